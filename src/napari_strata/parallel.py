"""Independent parts of a computation on the cores that it may use.

Results never depend on the number of threads: every part is computed as it would be
alone, and results are joined in order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Generic, TypeVar

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.machine import core_count

_threads: ContextVar[int] = ContextVar("threads of a computation", default=1)
Part = TypeVar("Part")
Result = TypeVar("Result")
Other = TypeVar("Other")


@contextmanager
def worker_threads(count: int) -> Generator[None]:
    """Let `both` and `each` use this many threads inside the block.

    Parameters
    ----------
    count : int
        Number of threads; 0 takes every core. Outside of such blocks, and in the threads
        that `both` and `each` start, it is 1.
    """
    token = _threads.set(count or core_count())
    try:
        yield
    finally:
        _threads.reset(token)


def both(one: Callable[[], Result], other: Callable[[], Other]) -> tuple[Result, Other]:
    """Return the results of two functions, which run at once where threads allow it.

    The first one runs in the calling thread, so only it can report progress. An error of
    either is raised when both have ended.
    """
    if _threads.get() < 2:
        return one(), other()
    with ThreadPoolExecutor(1, thread_name_prefix="strata-beside") as pool:
        beside = pool.submit(other)
        token = _threads.set(1)
        try:
            first = one()
        finally:
            _threads.reset(token)
        return first, beside.result()


def each(function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """Return the results of a function for some parts, in their order.

    Threads take the next part whenever they are free. The first error is raised when all
    threads have ended.
    """
    todo = list(parts)
    count = min(_threads.get(), len(todo))
    if count < 2:
        done = []
        for part in todo:
            raise_if_cancelled()
            done.append(function(part))
        return done
    return _Sharing(function, todo).run(count)


def each_if(
    worth: bool, function: Callable[[Part], Result], parts: Iterable[Part]
) -> list[Result]:
    """Return what `each` does; in the calling thread alone if threads are not worth it."""
    return each(function, parts) if worth else [function(part) for part in parts]


class _Sharing(Generic[Part, Result]):
    """Parts that several threads work through.

    Parameters
    ----------
    function : callable
        Computes the result of a part.
    parts : list
        The parts.
    """

    def __init__(self, function: Callable[[Part], Result], parts: list[Part]) -> None:
        self._function, self._parts = function, parts
        self._next, self._taking = 0, threading.Lock()
        self._results: dict[int, Result] = {}

    def run(self, count: int) -> list[Result]:
        """Return all results in order, computed by this many threads."""
        with ThreadPoolExecutor(count - 1, thread_name_prefix="strata-part") as pool:
            beside = [pool.submit(self._work) for _ in range(count - 1)]
            token = _threads.set(1)
            try:
                self._work()
            finally:
                _threads.reset(token)
        for thread in beside:
            thread.result()
        return [self._results[number] for number in range(len(self._parts))]

    def _work(self) -> None:
        try:
            while (number := self._take()) is not None:
                raise_if_cancelled()
                self._results[number] = self._function(self._parts[number])
        except BaseException:
            self._next = len(self._parts)  # the other threads end, too
            raise

    def _take(self) -> int | None:
        with self._taking:
            number = self._next
            self._next += 1
        return number if number < len(self._parts) else None
