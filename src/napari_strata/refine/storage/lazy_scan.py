"""A scan whose voxels are read when they are first used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray


class LazyScan(NDArrayOperatorsMixin):
    """Array of a scan: knows its shape and type, and reads the voxels when first used.

    Parameters
    ----------
    read : callable
        Gives the array (z, y, x); raises `CaseError` when the scan is gone or another
        one.
    shape : tuple of 3 int
        Voxels along z, y, x.
    dtype : numpy.dtype
        Type of the intensities.
    scan_hash : str
        SHA-256 that the scan had.
    """

    def __init__(
        self,
        read: Callable[[], NDArray[np.generic]],
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        scan_hash: str,
    ) -> None:
        self._read = read
        self._data: NDArray[np.generic] | None = None
        self.shape = shape
        self.dtype = dtype
        self.scan_hash = scan_hash
        self.ndim = len(shape)
        self.size = int(np.prod(shape))

    def _array(self) -> NDArray[np.generic]:
        if self._data is None:
            self._data = self._read()
        return self._data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the scan."""
        return (
            np.array(self._array(), dtype=dtype)
            if copy
            else np.asarray(self._array(), dtype=dtype)
        )

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any
    ) -> Any:
        """Calculate with the scan."""
        plain = [x._array() if isinstance(x, LazyScan) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        """Return a part of the scan."""
        return self._array()[key]

    def __len__(self) -> int:
        """Return the number of planes along z."""
        return self.shape[0]

    def __getattr__(self, name: str) -> Any:
        """Offer the methods of an array (`astype`, `min` ...)."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._array(), name)
