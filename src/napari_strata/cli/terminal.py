"""What the commands share on the terminal.

Flags made from settings, progress on stderr, checks of outputs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from napari_strata.errors import WriteError
from napari_strata.filenames import json_text, printable
from napari_strata.io.atomic import link_end
from napari_strata.settings import ProposeSettings, RunSettings, names_in

if TYPE_CHECKING:
    from napari_strata.batch.inputs.discovery import PassedOver

AUTO = "auto"
"""Given in the place of a number: let the scan choose."""


def add_settings(parser: argparse.ArgumentParser, settings: type) -> None:
    """Make one flag per knob."""
    group = parser.add_argument_group("settings")
    hints = get_type_hints(settings)
    for knob in fields(settings):
        kind: Any = hints[knob.name]
        unit = f" {knob.metadata['unit']}" if knob.metadata["unit"] else ""
        text = (
            f"{knob.metadata['description']} (default: {knob.default}{unit})".replace(
                "%", "%%"
            )
        )
        flag = "--" + knob.name.replace("_", "-")
        if get_origin(kind) is Literal:
            group.add_argument(flag, choices=get_args(kind), help=text)
        elif knob.metadata.get("names"):
            group.add_argument(flag, nargs="+", metavar="NAME", help=text)
        else:
            group.add_argument(
                flag, type=kind, metavar=kind.__name__.upper(), help=text
            )


def add_recipe(
    parser: argparse.ArgumentParser, *, auto: bool = False
) -> argparse._MutuallyExclusiveGroup:
    """Add what decides the labels besides the scan, and give the group of cuts.

    With `auto`, the scan may choose their number.
    """
    cut = parser.add_mutually_exclusive_group(required=True)
    count, more = (
        (count_or_auto, "; auto takes a number at which the tree is stable")
        if auto
        else (int, "")
    )
    cut.add_argument(
        "--tissues",
        type=count,
        metavar="N",
        help=f"N groups of alike tissue, anywhere in the scan{more}",
    )
    cut.add_argument(
        "--regions", type=count, metavar="N", help=f"N connected regions{more}"
    )
    cut.add_argument(
        "--codebook",
        type=Path,
        metavar="FILE",
        help="the tissues of a codebook, numbered alike in every scan",
    )
    parser.add_argument(
        "--encoder",
        "--weights",
        dest="weights",
        type=Path,
        help="other weights, a description (.toml), a MONAI bundle",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="TOML",
        help="settings from the file's [propose] and [run] tables; flags win",
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_settings(parser, RunSettings)
    add_settings(parser, ProposeSettings)
    return cut


def _given(arguments: argparse.Namespace, settings: type) -> dict[str, Any]:
    """Collect the knobs that were given as flags."""
    values = {knob.name: getattr(arguments, knob.name) for knob in fields(settings)}
    plain = {
        name: ",".join(names_in(" ".join(value))) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return {name: value for name, value in plain.items() if value is not None}


def settings_of(
    arguments: argparse.Namespace, settings: Any, table: str, base: Any = None
) -> Any:
    """Make settings: flags over `base`, or over the TOML file, or over the defaults."""
    if base is None:
        base = (
            settings.from_toml(arguments.settings, table)
            if arguments.settings
            else settings()
        )
    return settings.from_dict({**base.to_dict(), **_given(arguments, settings)})


def count_or_auto(text: str) -> int | str:
    """Read a whole number, or the word "auto"."""
    try:
        return AUTO if text == AUTO else int(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a whole number nor {AUTO!r}"
        ) from err


def progress(quiet: bool) -> Callable[[int, int, str], None]:
    """Show progress on stderr: one line that changes on a terminal, plain lines elsewhere."""
    if quiet:
        return lambda done, total, stage: None
    begun, live = time.monotonic(), sys.stderr.isatty()
    last = [""]

    def show(done: int, total: int, stage: str) -> None:
        line = f"[{time.monotonic() - begun:5.1f} s] {stage}" + (
            f" {done}/{total}" if total > 1 else ""
        )
        if live:
            print(
                f"\r\033[K{line}",
                end="\n" if stage == "done" else "",
                file=sys.stderr,
                flush=True,
            )
        elif stage != last[0]:
            print(line, file=sys.stderr, flush=True)
        last[0] = stage

    return show


def progress_of_steps() -> Callable[[int, int, str], None]:
    """Show the steps of a training on stderr, and how long the rest takes."""
    begun, live = time.monotonic(), sys.stderr.isatty()
    first: list[int] = []

    def show(done: int, total: int, stage: str) -> None:
        first.append(done) if not first else None
        passed = time.monotonic() - begun
        left = passed / max(done - first[0], 1) * (total - done)
        line = f"step {done}/{total}, {stage}, {passed / 60:.1f} min"
        line += f", about {left / 60:.0f} min left" if done > first[0] else ""
        print(
            f"\r\033[K{line}" if live else line,
            end="" if live else "\n",
            file=sys.stderr,
            flush=True,
        )

    return show


@contextmanager
def line_ended(
    show: Callable[[int, int, str], None], *, quiet: bool = False
) -> Iterator[Callable[[int, int, str], None]]:
    """Give `show`, and end its changing line on a terminal when the work ends.

    However it ends.
    """
    last = ["done"]

    def shown(done: int, total: int, stage: str) -> None:
        show(done, total, stage)
        last[0] = stage

    try:
        yield shown
    finally:
        if not quiet and last[0] != "done" and sys.stderr.isatty():
            print(file=sys.stderr, flush=True)


_MOST_BY_KIND = 40
"""Images that are named for one reason to pass them over; the tables of a batch have all."""
_MOST_DOUBTED = 1000
"""The same for images that may be scans."""
_FEW = 3
"""So many are named where there are more than that."""


def tell_passed(passed: Sequence[PassedOver]) -> None:
    """Name on standard error what a search passed over, first what may be a scan.

    Of many for one reason some, and how many.
    """
    for line in passed_lines(passed, most_by_kind=_MOST_BY_KIND):
        print(f"passed over: {line}", file=sys.stderr)


def passed_lines(
    passed: Sequence[PassedOver], *, most_by_kind: int = _MOST_DOUBTED
) -> Iterator[str]:
    """Give a line for each file that was passed over, grouped by the reason.

    Of more for one reason than can be read, their number.
    """
    reasons: dict[tuple[bool, str], list[PassedOver]] = {}
    for one in passed:
        reasons.setdefault((not one.may_be_scan, one.reason), []).append(one)
    for (by_kind, reason), group in sorted(reasons.items()):
        named = (
            group
            if len(group) <= (most_by_kind if by_kind else _MOST_DOUBTED)
            else group[:_FEW]
        )
        yield from (f"{printable(one.path)}: {printable(reason)}" for one in named)
        if len(group) > len(named):
            yield (
                f"{len(group) - len(named)} more for the same reason:"
                f" {printable(reason)}"
            )


def print_json(document: Any) -> None:
    """Print JSON on standard output, in ASCII where the terminal has no other letters."""
    text = json_text(document, indent=1)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=1)
    print(text)


class _Note(logging.Handler):
    """Prints what the library warns of as a note to the user."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        print(f"note: {printable(record.getMessage())}", file=sys.stderr)


@contextmanager
def notes_shown() -> Iterator[None]:
    """Show the library's warnings as notes on stderr while the block runs."""
    ours, note = logging.getLogger("napari_strata"), _Note(logging.WARNING)
    level, propagates = ours.level, ours.propagate
    ours.addHandler(note)
    ours.setLevel(min(logging.WARNING, ours.getEffectiveLevel()))
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(note)
        ours.setLevel(level)
        ours.propagate = propagates


def check_writable(*paths: Path | None, scan: str = "") -> None:
    """Say early that an output cannot be written or would replace the scan.

    Before the work is done.
    """
    given = [path for path in paths if path is not None]
    for path in given:
        if scan and path.exists() and Path(scan).exists() and path.samefile(scan):
            raise WriteError(f"{path} is the scan itself. Choose another name.")
        if (
            sum(os.path.realpath(path) == os.path.realpath(other) for other in given)
            > 1
        ):
            raise WriteError(
                f"Two outputs would be written to {path}. Give each its own name."
            )
        folder = link_end(path).parent
        if not folder.is_dir():
            raise WriteError(
                f"Cannot write {path}: there is no folder {folder}. Create it first."
            )
        if not os.access(folder, os.W_OK) or path.is_dir():
            raise WriteError(
                f"Cannot write {path}. Choose a file name in a folder that you may"
                " write to."
            )
