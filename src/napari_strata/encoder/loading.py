"""Loading torch's libraries ahead of torch, without Python's lock (no torch is imported here)."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path

_LIBRARIES = ("libtorch_global_deps", "libc10", "libtorch_cpu", "libtorch")
_SUFFIXES = {"linux": ".so", "darwin": ".dylib"}


def load_libraries() -> None:
    """Load the large libraries of torch without blocking other threads.

    Python's own import keeps its lock while the system maps and links a library of
    several hundred MB, and a window stands still for that long. A C function that is
    called through ctypes does not. The import that follows finds them loaded. Where
    that cannot be done (Windows, another layout) nothing happens, and the import loads
    them itself.
    """
    spec = None if "torch" in sys.modules else find_spec("torch")
    if (
        spec is None
        or not spec.submodule_search_locations
        or sys.platform not in _SUFFIXES
    ):
        return
    folder = Path(spec.submodule_search_locations[0]) / "lib"
    load = ctypes.CDLL(None).dlopen
    load.restype, load.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    for name in _LIBRARIES:
        path = folder / f"{name}{_SUFFIXES[sys.platform]}"
        if path.exists():
            load(
                os.fsencode(path),
                os.RTLD_NOW
                | (os.RTLD_GLOBAL if name == _LIBRARIES[0] else os.RTLD_LOCAL),
            )
