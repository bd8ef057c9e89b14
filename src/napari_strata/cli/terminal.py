"""What commands show on the terminal: progress, notes, JSON; and checks of outputs."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.errors import WriteError
from napari_strata.filenames import json_text, printable
from napari_strata.io.atomic import link_end

if TYPE_CHECKING:
    from napari_strata.batch.inputs.discovery import SkippedPath

_MAX_NAMED_NO_SCANS = 40
"""Files that are no scans by their kind: more than this for one reason are counted.

The tables of a batch name all of them.
"""
_MAX_NAMED_POSSIBLE_SCANS = 1000
"""Files that may be scans: more than this for one reason are counted."""
_EXAMPLES = 3
"""Files that are named as examples where the rest is counted."""


def progress(quiet: bool) -> Callable[[int, int, str], None]:
    """Return a callable that shows progress on stderr.

    On a terminal, one line is updated. If stderr is a file, plain lines are written.
    """
    if quiet:
        return lambda done, total, stage: None
    start, is_terminal = time.monotonic(), sys.stderr.isatty()
    last_stage = [""]

    def show(done: int, total: int, stage: str) -> None:
        count = f" {done}/{total}" if total > 1 else ""
        line = f"[{time.monotonic() - start:5.1f} s] {stage}{count}"
        if is_terminal:
            print(
                f"\r\033[K{line}",
                end="\n" if stage == "done" else "",
                file=sys.stderr,
                flush=True,
            )
        elif stage != last_stage[0]:
            print(line, file=sys.stderr, flush=True)
        last_stage[0] = stage

    return show


def progress_of_steps() -> Callable[[int, int, str], None]:
    """Return a callable that shows the steps of a training and the time left on stderr."""
    start, is_terminal = time.monotonic(), sys.stderr.isatty()
    first_step: list[int] = []

    def show(done: int, total: int, stage: str) -> None:
        if not first_step:
            first_step.append(done)
        seconds = time.monotonic() - start
        left = seconds / max(done - first_step[0], 1) * (total - done)
        line = f"step {done}/{total}, {stage}, {seconds / 60:.1f} min"
        line += f", about {left / 60:.0f} min left" if done > first_step[0] else ""
        print(
            f"\r\033[K{line}" if is_terminal else line,
            end="" if is_terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    return show


@contextmanager
def line_ended(
    show: Callable[[int, int, str], None], *, quiet: bool = False
) -> Iterator[Callable[[int, int, str], None]]:
    """Wrap a progress callable, and end its changing line when the block ends.

    Also if the block raises, so that the next message starts on a line of its own.
    """
    last_stage = ["done"]

    def recorded(done: int, total: int, stage: str) -> None:
        show(done, total, stage)
        last_stage[0] = stage

    try:
        yield recorded
    finally:
        if not quiet and last_stage[0] != "done" and sys.stderr.isatty():
            print(file=sys.stderr, flush=True)


def print_skipped(skipped: Sequence[SkippedPath]) -> None:
    """Print on stderr which files a search passed over: first those that may be scans."""
    for line in skipped_lines(skipped, max_no_scans=_MAX_NAMED_NO_SCANS):
        print(f"passed over: {line}", file=sys.stderr)


def skipped_lines(
    skipped: Sequence[SkippedPath], *, max_no_scans: int = _MAX_NAMED_POSSIBLE_SCANS
) -> Iterator[str]:
    """Yield a line for each file that was passed over, grouped by the reason.

    Parameters
    ----------
    skipped : sequence of SkippedPath
        From a search.
    max_no_scans : int
        If more files than this are no scans for one reason, a few are named and the
        rest is counted.
    """
    by_reason: dict[tuple[bool, str], list[SkippedPath]] = {}
    for file in skipped:
        by_reason.setdefault((not file.may_be_scan, file.reason), []).append(file)
    for (is_no_scan, reason), group in sorted(by_reason.items()):
        limit = max_no_scans if is_no_scan else _MAX_NAMED_POSSIBLE_SCANS
        named = group if len(group) <= limit else group[:_EXAMPLES]
        yield from (f"{printable(file.path)}: {printable(reason)}" for file in named)
        if len(group) > len(named):
            rest = len(group) - len(named)
            yield f"{rest} more for the same reason: {printable(reason)}"


def print_json(document: Any) -> None:
    """Print JSON on stdout; in ASCII if the terminal's encoding lacks some letters."""
    text = json_text(document, indent=1)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(document, indent=1)
    print(text)


class _NoteHandler(logging.Handler):
    """Log handler that prints the library's warnings as notes to the user."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        print(f"note: {printable(record.getMessage())}", file=sys.stderr)


@contextmanager
def notes_shown() -> Iterator[None]:
    """Show the library's warnings as notes on stderr while the block runs."""
    logger, handler = logging.getLogger("napari_strata"), _NoteHandler(logging.WARNING)
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(min(logging.WARNING, logger.getEffectiveLevel()))
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates


def check_writable(*paths: Path | None, scan: str = "") -> None:
    """Check outputs before the work: that they can be written and do not replace the scan.

    Raises
    ------
    WriteError
        If one cannot be written, is the scan, or two have the same name.
    """
    outputs = [path for path in paths if path is not None]
    for path in outputs:
        if scan and path.exists() and Path(scan).exists() and path.samefile(scan):
            raise WriteError(f"{path} is the scan itself. Choose another name.")
        real = os.path.realpath(path)
        if sum(real == os.path.realpath(other) for other in outputs) > 1:
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


def check_suffix(path: Path, suffix: str) -> None:
    """Check that the name of an output ends as its format needs.

    Raises
    ------
    WriteError
        If it does not.
    """
    if path.suffix.lower() != suffix:
        raise WriteError(f"Cannot write {path}: the name must end in {suffix}.")
