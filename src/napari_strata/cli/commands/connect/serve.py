"""The command `strata serve`: regions for 3D Slicer and OHIF."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.flags import add_encoder, add_settings, settings_of
from napari_strata.filenames import printable
from napari_strata.settings import ProposeSettings, RunSettings, ServeSettings

if TYPE_CHECKING:
    from napari_strata.serve.guard import Access


def add_command(commands: Any) -> None:
    """Add `serve` to the command line."""
    parser = commands.add_parser(
        "serve",
        help="serve 3D Slicer and OHIF, through MONAI Label's protocol",
    )
    parser.add_argument(
        "--taught",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="offer a teaching as the model taught:NAME; may be given several times",
    )
    parser.add_argument(
        "--codebook",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="offer a codebook as the model codebook:NAME; may be given several times",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FOLDER",
        help=(
            "keep scans, proposals and submitted labels in this folder (default: all is"
            " removed with the session)"
        ),
    )
    _add_access(parser)
    add_encoder(parser)
    add_settings(parser, ServeSettings)
    parser.set_defaults(run=_serve)


def _add_access(parser: argparse.ArgumentParser) -> None:
    """Add the flags of who may use the server, and of the PACS that it may ask."""
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help=(
            "file with the token that clients need (default: none on this machine, a"
            " new one on another --host)"
        ),
    )
    parser.add_argument(
        "--dicomweb",
        metavar="URL",
        help=(
            "fetch series that clients name from this PACS, such as"
            " http://localhost:8042/dicom-web (log-in: STRATA_DICOMWEB_LOGIN)"
        ),
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help=(
            "let the web page of this origin use the server, such as"
            " http://localhost:3000 for OHIF; may be given several times"
        ),
    )


def _serve(arguments: argparse.Namespace) -> None:
    serving = settings_of(arguments, ServeSettings, "serve")
    settings = settings_of(arguments, ProposeSettings, "propose")
    run = settings_of(arguments, RunSettings, "run")
    from napari_strata.pipeline import check_weights
    from napari_strata.serve.dicomweb import DicomWeb
    from napari_strata.serve.models import build_models
    from napari_strata.serve.run import (
        access_of,
        check_installed,
        proposer_of,
        read_token,
        serve,
    )

    check_installed()
    check_weights(settings, arguments.weights)
    token = read_token(arguments.token_file) if arguments.token_file else ""
    access = access_of(serving, token=token, origins=arguments.allow_origin)
    source = (
        DicomWeb.from_environment(arguments.dicomweb, access.max_bytes)
        if arguments.dicomweb
        else None
    )
    models = build_models(
        arguments.taught, arguments.codebook, settings, arguments.weights
    )
    if not arguments.quiet:
        logging.getLogger("napari_strata.serve").addHandler(_RequestLines())

    def on_start(address: str) -> None:
        _print_start(address, access, arguments, token)
        print(f"models: {', '.join(map(printable, models))}", file=sys.stderr)

    with contextlib.suppress(KeyboardInterrupt):
        serve(
            serving,
            models,
            proposer_of(settings, run, arguments.weights),
            access,
            keep=arguments.keep,
            source=source,
            on_start=on_start,
        )
    kept = printable(arguments.keep) if arguments.keep else ""
    print(f"stopped; {f'kept in {kept}' if kept else 'nothing is kept'}")


def _print_start(
    address: str, access: Access, arguments: argparse.Namespace, given: str
) -> None:
    """Print where the server is, who may use it and what it keeps."""
    print(f"{address}: stop it with Ctrl+C", flush=True)
    if access.token and not given:
        print(f"token: {access.token}", file=sys.stderr)
    if not access.is_local:
        print(
            "note: the connection is not encrypted; whoever listens on the network can"
            " read scans and token. See docs/serve.md.",
            file=sys.stderr,
        )
    if not arguments.keep:
        print(
            "note: scans and submitted labels are removed with their session; --keep"
            " FOLDER keeps them.",
            file=sys.stderr,
        )


class _RequestLines(logging.Handler):
    """Log handler that prints requests on stderr; they name no scan."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        print(printable(record.getMessage()), file=sys.stderr, flush=True)
