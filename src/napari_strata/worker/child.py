"""The worker process: it does its parent's jobs until the parent is gone.

Started by `WorkerProcess` as `python -c "... child.main()"`, so that it runs no script
of the user, and imports neither napari nor Qt.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import logging
import os
import queue
import signal
import threading
import time
import traceback
from pathlib import Path

from napari_strata.encoder.memory import release_memory
from napari_strata.errors import StrataError
from napari_strata.worker.messages import (
    Channel,
    Failure,
    Frame,
    Job,
    LogLine,
    ProgressReport,
    Result,
    Started,
    pack,
    unpack,
)

logger = logging.getLogger(__name__)

_ENGINE = (
    "napari_strata.pipeline",
    "napari_strata.proposal.methods.learned",
    "napari_strata.encoder.embed",
    "napari_strata.encoder.runtime.select",
)
"""Imported while no job is there, so that the first one starts at once."""
_TORCH = (
    "napari_strata.encoder.custom_network",
    "napari_strata.encoder.runtime.torch_runtime",
)
"""Imported as well where OpenVINO does not run the encoder."""
_REPORT_S = 0.04
"""Least time between two reports of one stage: the window looks every 80 ms."""
_NICE = 5
"""Gives way to the window, whose threads are then drawn without waiting for a core."""
_KILLED_FIRST = 500
"""Linux, of -1000 to 1000: where memory runs out, this process ends and not the window."""


def main() -> None:
    """Do one job after the other; end when the parent closes its pipe or is killed."""
    channel = _take_pipes()
    with contextlib.suppress(ValueError):
        # Ctrl+C in a terminal reaches this process too: the parent decides
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):  # no `nice` on Windows
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_KILLED_FIRST))
    jobs: queue.SimpleQueue[Frame] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(channel, jobs), daemon=True).start()
    logging.getLogger().addHandler(_LogSender(channel))
    try:
        _load_engine(jobs)
    except Exception:
        logger.info("The engine was not loaded ahead.", exc_info=True)
    while True:
        _do(jobs.get(), channel)
        gc.collect()
        release_memory()


def _load_engine(jobs: queue.SimpleQueue[Frame]) -> None:
    """Import what proposals need, until a job comes: it imports the rest as it goes."""
    for name in _ENGINE:
        if not jobs.empty():
            return
        importlib.import_module(name)
    from napari_strata.encoder.runtime.openvino_runtime import import_openvino
    from napari_strata.encoder.runtime.select import uses_openvino

    if uses_openvino():
        import_openvino()
        return
    for name in _TORCH:
        if not jobs.empty():
            return
        importlib.import_module(name)


def _take_pipes() -> Channel:
    """Return the pipes to the parent, and keep them from what others read and print."""
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return Channel(
        io.FileIO(incoming, "rb"),
        io.FileIO(outgoing, "wb"),
    )


def _listen(channel: Channel, jobs: queue.SimpleQueue[Frame]) -> None:
    """Take up jobs; end the process, whatever it does, when the parent is gone."""
    try:
        while True:
            jobs.put(channel.receive())
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:  # noqa: BLE001 (nobody would take jobs any more)
        traceback.print_exc()
        os._exit(1)


def _do(frame: Frame, channel: Channel) -> None:
    channel.send(Started())
    # what the parent has is not sent back to it
    known: dict[str, object] = {}
    try:
        job: Job = unpack(frame)
        volume = job.arguments.get("volume")
        if volume is not None:
            known = {"volume": volume, "volume.data": volume.data}
        module, name = job.function.split(":")
        function = getattr(importlib.import_module(module), name)
        value = function(**job.arguments, on_progress=_Reporter(channel))
        answer: Result | Failure = Result(value)
    except MemoryError as err:
        answer = Failure(_out_of_memory(err), traceback.format_exc())
    except Exception as err:  # noqa: BLE001 (the parent raises it)
        answer = Failure(_portable(err), traceback.format_exc())
    _answer(channel, answer, known)


def _answer(
    channel: Channel, answer: Result | Failure, known: dict[str, object]
) -> None:
    try:
        channel.send(answer, known=known)
    except MemoryError as err:
        channel.send(Failure(_out_of_memory(err), traceback.format_exc()))
    except OSError:
        os._exit(0)
    except (TypeError, AttributeError, ValueError) as err:  # it cannot be pickled
        trace = answer.trace if isinstance(answer, Failure) else traceback.format_exc()
        channel.send(Failure(RuntimeError(f"{type(err).__name__}: {err}"), trace))


def _portable(error: Exception) -> Exception:
    """Return an error that can be raised on the other side of the pipe."""
    try:
        unpack(pack(error))
    except Exception:  # noqa: BLE001 (classes of other packages may do anything)
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _out_of_memory(error: MemoryError) -> StrataError:
    reason = f" ({error})" if str(error) else ""
    return StrataError(
        f"There is not enough memory{reason}. Nothing was changed. Close other programs,"
        " or propose fewer supervoxels."
    )


class _Reporter:
    """Sends progress to the parent, not more often than it is looked at."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._stage, self._sent_at = channel, "", 0.0

    def __call__(self, done: int, total: int, stage: str) -> None:
        now = time.monotonic()
        if stage != self._stage or now - self._sent_at > _REPORT_S:
            self._stage, self._sent_at = stage, now
            self._channel.send(ProgressReport(int(done), int(total), stage))


class _LogSender(logging.Handler):
    """Sends what is logged to the parent, whose own loggers take it."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._channel.send(
                LogLine(record.name, record.levelno, record.getMessage())
            )
        except OSError:
            os._exit(0)
