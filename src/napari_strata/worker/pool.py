"""Worker processes of a program: one is kept warm, and each job has one to itself."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from napari_strata.errors import WorkerError
from napari_strata.volume import Progress
from napari_strata.worker.process import WorkerProcess

logger = logging.getLogger(__name__)


class WorkerStartError(Exception):
    """No worker process can be started here."""


class WorkerPool:
    """Starts worker processes, and keeps one that waits while somebody may need it.

    A cancelled job ends with its process. Another one is warmed at once for the next.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: WorkerProcess | None = None
        self._busy: set[WorkerProcess] = set()
        self._users: set[object] = set()

    @property
    def processes(self) -> tuple[WorkerProcess, ...]:
        """Every process that is alive, the one that waits first."""
        with self._lock:
            known = [self._idle, *self._busy]
        return tuple(one for one in known if one is not None and one.is_alive)

    def open(self, user: object) -> None:
        """Keep a process warm until `close` is called with the same user."""
        self._users.add(user)
        self._warm()

    def close(self, user: object) -> None:
        """End the process that waits if nobody else keeps it warm."""
        self._users.discard(user)
        if not self._users:
            with self._lock:
                idle, self._idle = self._idle, None
            if idle is not None:
                idle.kill()

    def shut_down(self) -> None:
        """End every process at once."""
        self._users.clear()
        with self._lock:
            known, self._idle = [self._idle, *self._busy], None
        for process in known:
            if process is not None:
                process.kill()
                process.wait()

    def call(
        self, function: str, arguments: Mapping[str, Any], on_progress: Progress
    ) -> Any:
        """Call a function in a worker process, see `WorkerProcess.call`.

        Raises
        ------
        WorkerStartError
            If no process can be started.
        WorkerError
            If the process ends before the result is there. One that was found dead
            before it began is replaced once, without a word.
        """
        try:
            return self._call(function, arguments, on_progress)
        except WorkerError as err:
            if err.has_started:
                raise
        return self._call(function, arguments, on_progress)

    def _call(
        self, function: str, arguments: Mapping[str, Any], on_progress: Progress
    ) -> Any:
        process = self._take()
        try:
            return process.call(function, arguments, on_progress)
        finally:
            self._give_back(process)

    def _take(self) -> WorkerProcess:
        with self._lock:
            process, self._idle = self._idle, None
            if process is None or not process.is_alive:
                try:
                    process = WorkerProcess()
                except OSError as err:
                    raise WorkerStartError(str(err)) from err
            self._busy.add(process)
        return process

    def _give_back(self, process: WorkerProcess) -> None:
        with self._lock:
            self._busy.discard(process)
            is_kept = bool(self._users) and self._idle is None
            # one that was just killed may not be gone yet
            if is_kept and not process.was_killed and process.is_alive:
                self._idle = process
                return
        process.kill()
        self._warm()

    def _warm(self) -> None:
        """Start a process in a thread, so that the caller goes on."""
        if self._users:
            threading.Thread(target=self._start, name="strata-warm").start()

    def _start(self) -> None:
        try:
            with self._lock:
                if self._users and (self._idle is None or not self._idle.is_alive):
                    self._idle = WorkerProcess()
        except OSError as err:
            logger.warning("No worker process can be started: %s", err)
