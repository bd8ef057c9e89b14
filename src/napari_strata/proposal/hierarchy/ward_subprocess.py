"""Ward's tree over a graph, computed in a subprocess if a window must stay responsive.

Higra's call holds Python's global interpreter lock for seconds, which would freeze the
window. Callers with a window use `kept_responsive`; all others compute it in place. The
result is the same bit by bit.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import higra
import numpy as np
from numpy.typing import NDArray

from napari_strata.cancellation import raise_if_cancelled

logger = logging.getLogger(__name__)

_WORTH_IT = 20_000
"""Edges below which the call takes less time than a process needs to start."""
_ASK_S = 0.2
"""Interval between checks for cancellation."""
_IS_WATCHED: ContextVar[bool] = ContextVar("a window waits", default=False)


@contextmanager
def kept_responsive() -> Generator[None]:
    """Run calls of this thread that hold the interpreter lock in a subprocess."""
    token = _IS_WATCHED.set(True)
    try:
        yield
    finally:
        _IS_WATCHED.reset(token)


def ward_tree(
    vectors: NDArray[np.float64], sizes: NDArray[np.float64], edges: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Run Ward's criterion over a connected graph (higra's binary partition tree).

    Parameters
    ----------
    vectors : (n, channels) float64 array
        What nodes look like.
    sizes : (n,) float64 array
        Their weights.
    edges : (m, 2) int64 array
        Pairs of nodes.

    Returns
    -------
    (2n - 1,) int64 array, (2n - 1,) float64 array
        Parent and altitude of every node of the tree, leaves first.
    """
    if not _IS_WATCHED.get() or len(edges) < _WORTH_IT:
        return _ward_tree(vectors, sizes, edges)
    with tempfile.TemporaryDirectory(prefix="strata-") as folder:
        asked, answer = Path(folder) / "asked.npz", Path(folder) / "answer.npz"
        np.savez(asked, vectors=vectors, sizes=sizes, edges=edges)
        returned, said = _run([sys.executable, "-m", __name__, str(asked), str(answer)])
        if returned == 0 and answer.exists():
            with np.load(answer, allow_pickle=False) as found:
                return found["parents"], found["altitudes"]
    logger.warning(
        "Another process could not be used (%s); the window may not answer for some"
        " seconds.",
        said.strip()[-200:],
    )
    return _ward_tree(vectors, sizes, edges)


def _run(command: list[str]) -> tuple[int, str]:
    """Run a process until it ends or is cancelled; return its exit status and stderr."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while True:
                try:
                    said = process.communicate(timeout=_ASK_S)[1]
                except subprocess.TimeoutExpired:
                    raise_if_cancelled()
                else:
                    return process.returncode, said
        finally:
            if process.returncode is None:
                process.kill()


def _ward_tree(
    vectors: NDArray[np.float64], sizes: NDArray[np.float64], edges: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    graph = higra.UndirectedGraph(len(vectors))
    graph.add_edges(edges[:, 0], edges[:, 1])
    tree, altitudes = higra.binary_partition_tree_ward_linkage(
        graph, vectors, sizes, altitude_correction="max"
    )
    return np.asarray(tree.parents(), np.int64), np.asarray(altitudes, np.float64)


def _main(asked: str, answer: str) -> None:
    with np.load(asked, allow_pickle=False) as given:
        parents, altitudes = _ward_tree(
            given["vectors"], given["sizes"], given["edges"]
        )
    np.savez(answer, parents=parents, altitudes=altitudes)


if __name__ == "__main__":
    _main(*sys.argv[1:3])
