"""A worker process as its parent sees it: started, asked, killed."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import napari_strata
from napari_strata.errors import WorkerError
from napari_strata.volume import Progress
from napari_strata.worker.messages import (
    Channel,
    Failure,
    Frame,
    Job,
    LogLine,
    ProgressReport,
    Result,
    Started,
    unpack,
)

logger = logging.getLogger(__name__)

_ASK_S = 0.05
"""How often the caller is asked whether it still waits."""
_END_S = 10.0
"""Longest wait for a killed process to be gone."""
_PIPE_BYTES = 1 << 20
"""Size of the pipes where it can be chosen (Linux): fewer, larger reads."""
_KEPT_LINES = 20
"""Last lines of a worker's error output that are kept to explain its end."""
_WINDOWS_FLAGS: int = getattr(subprocess, "CREATE_NO_WINDOW", 0) | getattr(
    subprocess, "BELOW_NORMAL_PRIORITY_CLASS", 0
)
"""No console opens, and the window's threads come first (see `child._NICE`)."""
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from napari_strata.worker.child import main; main()"
)


class WorkerProcess:
    """A Python process that waits for jobs, with its imports done.

    It ends when it is killed, and by itself when this process ends in any way.

    Raises
    ------
    OSError
        If no process can be started.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            _command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            creationflags=_WINDOWS_FLAGS,
        )
        incoming = cast(io.RawIOBase, self._process.stdout)
        outgoing = cast(io.RawIOBase, self._process.stdin)
        for stream in (incoming, outgoing):
            _widen(stream)
        self._channel = Channel(incoming, outgoing)
        self._frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._errors: deque[str] = deque(maxlen=_KEPT_LINES)
        self._ended = threading.Event()
        self.was_killed = False
        """Whether this program ended it."""
        for target in (self._listen, self._keep_errors):
            threading.Thread(target=target, name="strata-worker", daemon=True).start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can take a job."""
        return self._process.poll() is None and not self._ended.is_set()

    def kill(self) -> None:
        """End the process at once, whatever it does; its memory returns to the system."""
        self.was_killed = True
        with contextlib.suppress(OSError):
            self._process.kill()

    def wait(self, timeout_s: float = _END_S) -> bool:
        """Wait until the process is gone; return whether it is."""
        return self._ended.wait(timeout_s)

    def call(
        self, function: str, arguments: Mapping[str, Any], on_progress: Progress
    ) -> Any:
        """Call a function in the process and return what it returns.

        Parameters
        ----------
        function : str
            A function of this package, "module:name", with a parameter `on_progress`.
        arguments : mapping
            Its other arguments. If there is a `volume`, it is not sent back with the
            result: the result holds the very object that was passed.
        on_progress : callable
            Called with the function's progress, and repeatedly in between. If it
            raises, the process is killed, and the error is raised here.

        Raises
        ------
        WorkerError
            If the process ends before the result is there.
        StrataError or other
            What the function raised. Its traceback is the cause.
        """
        try:
            answer = self._answer(Job(function, arguments), on_progress)
        except BaseException:
            self.kill()
            raise
        if isinstance(answer, Failure):
            raise answer.error from _RemoteError(answer.trace)
        return answer.value

    def _answer(self, job: Job, on_progress: Progress) -> Result | Failure:
        volume = job.arguments.get("volume")
        known = {} if volume is None else {"volume": volume, "volume.data": volume.data}
        last, has_started = ProgressReport(0, 0, "Loading the engine"), False
        try:
            self._send(job, lambda: on_progress(last.done, last.total, last.stage))
        except (OSError, ValueError) as err:
            raise self._end_error(has_started) from err
        while True:
            on_progress(last.done, last.total, last.stage)
            try:
                frame = self._frames.get(timeout=_ASK_S)
            except queue.Empty:
                continue
            if frame is None:
                raise self._end_error(has_started)
            match unpack(frame, known):
                case ProgressReport() as last:
                    pass
                case LogLine(name, level, text):
                    logging.getLogger(name).log(level, "%s", text)
                case Started():
                    has_started = True
                case Result() | Failure() as answer:
                    return answer

    def _send(self, job: Job, ask: Callable[[], None]) -> None:
        """Send a job in a thread, so that a process that does not read can be given up."""
        failed: list[BaseException] = []

        def send() -> None:
            try:
                self._channel.send(job)
            except BaseException as err:  # noqa: BLE001 (raised below)
                failed.append(err)

        thread = threading.Thread(target=send, name="strata-send", daemon=True)
        thread.start()
        while thread.is_alive():
            ask()
            thread.join(_ASK_S)
        if failed:
            raise failed[0]

    def _listen(self) -> None:
        """Take what the process sends until it ends; then clear away what is left of it."""
        try:
            while True:
                self._frames.put(self._channel.receive())
        except (EOFError, OSError, ValueError, MemoryError) as err:
            logger.info("Worker process %d: no more messages (%r).", self.pid, err)
        # it may be gone already; else nobody would hear it
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._ended.set()
        self._frames.put(None)

    def _keep_errors(self) -> None:
        """Pass error output on to this program's own, and keep its last lines."""
        stream = self._process.stderr
        if stream is None:
            return
        with (
            stream,
            contextlib.suppress(OSError, ValueError),
            open(stream.fileno(), errors="replace", closefd=False) as lines,
        ):
            for line in lines:
                self._errors.append(line.strip())
                with contextlib.suppress(OSError, ValueError, AttributeError):
                    sys.stderr.write(line)

    def _end_error(self, has_started: bool) -> WorkerError:
        self.wait()
        status = self._process.returncode
        logger.info("Worker process %d: %s.", self.pid, _ending(status))
        if has_started or not self._errors:
            message = (
                "Computing crashed; edits are kept. Propose again: a new process"
                f" is started. Cause: {_ending(status)}. If it crashes again,"
                " close other programs to free memory, or propose fewer supervoxels."
            )
        else:
            message = (
                "Computing could not start; edits are kept. Cause:"
                f" {self._errors[-1]} ({_ending(status)})."
            )
        return WorkerError(message, has_started=has_started)


class _RemoteError(Exception):
    """The traceback of an error in the worker process."""

    def __str__(self) -> str:
        return f"\n\nIn the worker process:\n{super().__str__()}"


def _command() -> list[str]:
    """Return the command of a worker, which finds the same packages as this process.

    It names no script, so nothing that the user runs is imported a second time.
    """
    own = str(Path(napari_strata.__file__).parents[1])
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("this program has no Python interpreter of its own")
    folders = [folder for folder in sys.path if isinstance(folder, str) and folder]
    if own not in folders:
        folders.insert(0, own)
    return [sys.executable, "-P", "-c", _BOOT, json.dumps(folders)]


def _ending(status: int | None) -> str:
    """Return how a process ended, in words."""
    if status is None:
        return "its process does not answer"
    if status >= 0:
        return f"its process ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return "its process was killed, most often because memory ran out"
    return f"its process ended with {name}"


def _widen(stream: io.RawIOBase) -> None:
    """Let a pipe hold more, where that can be chosen."""
    if sys.platform != "linux":
        return
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
