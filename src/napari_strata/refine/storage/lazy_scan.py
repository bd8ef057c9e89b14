"""A scan whose voxels are read on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray


class LazyScan(NDArrayOperatorsMixin):
    """Array of a scan with known shape and type, whose voxels are read on first use.

    Parameters
    ----------
    read : callable
        Returns the array (z, y, x); raises `CaseError` if the scan is missing or
        another one.
    shape : tuple of 3 int
        Number of voxels along z, y, x.
    dtype : numpy.dtype
        Type of the intensities.
    scan_hash : str
        Recorded SHA-256 of the scan.
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
        """Apply a numpy function to the scan."""
        plain = [x._array() if isinstance(x, LazyScan) else x for x in inputs]
        return getattr(ufunc, method)(*plain, **kwargs)

    def __getitem__(self, key: Any) -> Any:
        """Return a part of the scan."""
        return self._array()[key]

    def __len__(self) -> int:
        """Return the number of planes along z."""
        return self.shape[0]

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the array (`astype`, `min` ...)."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._array(), name)
