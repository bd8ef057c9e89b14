"""The `strata` command. Heavy packages are imported by the commands that need them."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

from napari_strata._version import __version__
from napari_strata.cli.commands import (
    adapt,
    batch,
    codebook,
    convert,
    evaluate,
    explain,
    info,
    pretrain,
    propose,
    refine,
    samples,
    synthesise,
    teach,
    view,
)
from napari_strata.cli.commands.connect import serve
from napari_strata.cli.commands.quality import audit
from napari_strata.errors import StrataError
from napari_strata.filenames import escape_streams, printable

USER_ERROR = 2
"""Exit code of errors that the user can fix."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 + SIGINT."""
_COMMANDS = (
    propose,
    batch,
    explain,
    refine,
    view,
    info,
    evaluate,
    audit,
    pretrain,
    adapt,
    codebook,
    convert,
    teach,
    serve,
    samples,
    synthesise,
)
"""Modules of the commands, in the order of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns
    -------
    int
        0 if all is done, 1 if scans of a batch failed or may have been passed over, 2
        after an error that the user can fix, 130 if interrupted.
    """
    escape_streams()
    arguments = build_parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.ERROR,
        format="%(message)s",
        stream=sys.stderr,
    )
    try:
        run: Callable[[argparse.Namespace], int | None] = arguments.run
        return run(arguments) or 0
    except StrataError as err:
        print(f"strata: {printable(err)}", file=sys.stderr)
        return USER_ERROR
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] not in ("torch", "monai"):
            raise
        print(
            "strata: this command needs torch and MONAI, which are not installed. Install"
            " them (pip install torch monai).",
            file=sys.stderr,
        )
        return USER_ERROR
    except MemoryError:
        print(
            "strata: not enough memory. Close other programs, or use a coarser scan.",
            file=sys.stderr,
        )
        return USER_ERROR
    except KeyboardInterrupt:
        state = (
            "finished scans are kept, run it again to continue"
            if arguments.run is batch.run_command
            else "nothing was written"
        )
        print(f"strata: stopped; {state}.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with all commands."""
    parser = argparse.ArgumentParser(
        prog="strata",
        description=(
            "Propose tissue regions in 3D MRI and CT scans, refine them, and export"
            " them on the scan's own grid."
        ),
        epilog=(
            "Research software: it proposes, a person decides. Nothing leaves your"
            " machine."
        ),
    )
    parser.add_argument("--version", action="version", version=f"strata {__version__}")
    parser.add_argument("--verbose", action="store_true", help="show debug messages")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_command(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
