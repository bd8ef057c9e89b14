"""Log of a batch: one JSON object per line, continued by every run in a folder."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_strata.batch.outputs.names import LOG
from napari_strata.errors import WriteError
from napari_strata.filenames import json_text


class RunLog:
    """Log file of a batch, one line per event; each is on the disk at once.

    Parameters
    ----------
    folder : Path
        Of the batch's outputs; the log is batch.jsonl in it.

    Raises
    ------
    WriteError
        If the log cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        try:
            with open(self.path, "ab+") as file:
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    # a run was killed in the middle of a line
                    if file.read(1) != b"\n":
                        file.write(b"\n")
        except OSError as err:
            raise WriteError(
                f"Cannot write the log {self.path}: {err.strerror}. Choose another"
                " folder."
            ) from err

    def add(self, event: str, **values: Any) -> None:
        """Append one line: time, event and plain values.

        Raises
        ------
        WriteError
            If the log cannot be written.
        """
        line = json_text(
            {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "event": event,
                **values,
            }
        )
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as err:
            raise WriteError(
                f"Cannot write the log {self.path}: {err.strerror}. Free some space."
            ) from err


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read a log; half lines of a killed run are skipped."""
    events = []
    # not at what Python takes for line ends in names
    for line in (folder / LOG).read_text(encoding="utf-8").split("\n"):
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
