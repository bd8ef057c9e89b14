"""Messages between a program and its worker process, over two pipes.

A message is a pickle, followed by the arrays in it as they lie in memory. Nothing is
left on disk or in shared memory when a process is killed, on any system. Pickles are
only read from pipes that this program opened to its own child, or to its parent: never
from a file, a socket or another person.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251 (between a program and its own child only)
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK_BYTES = 4 << 20
"""Bytes written at a time."""
_HEAD = struct.Struct("<QQ")
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Job:
    """A request: what to call, and with what.

    Parameters
    ----------
    function : str
        A function of this package, "module:name". It is looked up in the worker, so
        that the program itself need not import it.
    arguments : mapping
        Keyword arguments; `on_progress` is added by the worker.
    """

    function: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Started:
    """The worker begins with the job."""


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """Progress of the job: steps done, steps in all, and the stage's name."""

    done: int
    total: int
    stage: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the worker's log."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What the function returned."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """The error that the function raised, and its traceback as text."""

    error: Exception
    trace: str


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A message as it was received: a pickle, and the memory of its arrays."""

    pickled: bytes
    buffers: list[NDArray[np.uint8]]


class Channel:
    """Both pipes of one side.

    Parameters
    ----------
    incoming, outgoing : raw binary files
        Opened without a buffer.
    """

    def __init__(self, incoming: io.RawIOBase, outgoing: io.RawIOBase) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._sending = threading.Lock()

    def send(
        self,
        message: object,
        *,
        known: Mapping[str, object] | None = None,
    ) -> None:
        """Send a message.

        Parameters
        ----------
        message : object
            What is sent.
        known : mapping
            Objects that the other side has: they are sent as their names.

        Raises
        ------
        OSError
            If the other side is gone.
        """
        pickled, views = _pickled(message, known or {})
        head = _HEAD.pack(len(pickled), len(views)) + b"".join(
            _LENGTH.pack(len(view)) for view in views
        )
        with self._sending:
            self._write(memoryview(head + pickled))
            for view in views:
                self._write(view)

    def receive(self) -> Frame:
        """Wait for the next message.

        Raises
        ------
        EOFError, OSError
            If the other side is gone.
        """
        length, count = _HEAD.unpack(self._read(_HEAD.size).data)
        table = self._read(count * _LENGTH.size).data
        lengths = [size for (size,) in _LENGTH.iter_unpack(table)]
        pickled = self._read(length).tobytes()
        return Frame(pickled, [self._read(size) for size in lengths])

    def _write(self, data: memoryview) -> None:
        start = 0
        while start < len(data):
            start += self._outgoing.write(data[start : start + _CHUNK_BYTES]) or 0

    def _read(self, size: int) -> NDArray[np.uint8]:
        data = np.empty(size, np.uint8)
        view, start = data.data, 0
        while start < size:
            count = self._incoming.readinto(view[start:])
            if not count:
                raise EOFError("The other side closed its pipe.")
            start += count
        return data


def _pickled(
    message: object, known: Mapping[str, object]
) -> tuple[memoryview, list[memoryview]]:
    """Return the pickle of a message, and the memory of its arrays."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, buffers, known).dump(message)
    return stream.getbuffer(), [buffer.raw() for buffer in buffers]


def pack(message: object) -> Frame:
    """Return a message as the other side would receive it."""
    pickled, views = _pickled(message, {})
    return Frame(bytes(pickled), [np.frombuffer(view, np.uint8) for view in views])


def unpack(frame: Frame, known: Mapping[str, object] | None = None) -> Any:
    """Return the message of a frame; `known` are the objects that are sent as names."""
    return _Unpickler(io.BytesIO(frame.pickled), frame.buffers, known or {}).load()


class _Pickler(pickle.Pickler):
    """Sends arrays apart from the pickle, in the order in which they lie in memory.

    The other side gets the same strides, since sums over an array may differ in their
    last bits when its axes lie in another order.
    """

    def __init__(
        self,
        stream: io.BytesIO,
        buffers: list[pickle.PickleBuffer],
        known: Mapping[str, object],
    ) -> None:
        super().__init__(stream, protocol=5, buffer_callback=buffers.append)
        self._names = {id(value): name for name, value in known.items()}

    def persistent_id(self, obj: Any) -> str | None:
        return self._names.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) not in (np.ndarray, np.memmap) or obj.dtype.hasobject:
            return NotImplemented
        if (
            obj.dtype.names is not None
            or obj.dtype.kind in "mM"
            or not obj.size * obj.ndim
        ):
            return NotImplemented
        array = np.asarray(obj)
        order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        flips = tuple(slice(None, None, -1 if s < 0 else 1) for s in array.strides)
        laid_out = np.ascontiguousarray(array[flips].transpose(order))
        backwards = [step.step < 0 for step in flips]
        return _restored, (
            pickle.PickleBuffer(laid_out.reshape(-1).data),
            array.dtype.str,
            laid_out.shape if array.ndim else (),
            order,
            backwards,
            bool(array.flags.writeable),
        )


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        stream: io.BytesIO,
        buffers: list[NDArray[np.uint8]],
        known: Mapping[str, object],
    ) -> None:
        super().__init__(stream, buffers=buffers)
        self._known = known

    def persistent_load(self, pid: Any) -> Any:
        return self._known[pid]


def _restored(
    buffer: NDArray[np.uint8],
    dtype: str,
    shape: tuple[int, ...],
    order: list[int],
    backwards: list[bool],
    is_writeable: bool,
) -> NDArray[Any]:
    """Return an array with the strides it had, from its memory."""
    laid_out = np.frombuffer(buffer, np.dtype(dtype)).reshape(shape)
    array = laid_out.transpose(np.argsort(order).tolist())
    array = array[tuple(slice(None, None, -1 if back else 1) for back in backwards)]
    array.setflags(write=is_writeable)
    return array
