"""The last lines of the server's log, without names of scans or of patients."""

from __future__ import annotations

import logging
from collections import deque

LINES = 1000
"""Lines that are held."""


class LogLines(logging.Handler):
    """Log handler that holds the last lines in memory."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._lines: deque[str] = deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Hold one line."""
        self._lines.append(self.format(record))

    def last(self, count: int) -> str:
        """Return the last lines as text."""
        return "".join(f"{line}\n" for line in list(self._lines)[-max(count, 0) :])
