"""Importing the engine in a thread so that the window goes on meanwhile (no Qt)."""

from __future__ import annotations

import gc
import importlib
import threading

from napari_strata.encoder.loading import load_libraries

_ENGINE = (
    "napari_strata.pipeline",
    "napari_strata.encoder.custom_network",
    "napari_strata.encoder.embed",
    "napari_strata.proposal.methods.learned",
)
_loading = threading.Lock()
_state = {"loaded": False, "frozen": False}


def load_engine() -> None:
    """Import what makes proposals, once.

    Torch and what comes with it are hundreds of thousands of objects. Python would look
    through all objects of the program several times while they are made, a quarter of a
    second each time in which no thread runs, and find nothing to throw away. It is told
    not to look meanwhile, and to pass over what there is by then, until `thaw`.
    """
    with _loading:
        if _state["loaded"]:
            return
        load_libraries()
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            for name in _ENGINE:
                importlib.import_module(name)
        finally:
            gc.freeze()
            _state.update(loaded=True, frozen=True)
            if was_enabled:
                gc.enable()


def thaw() -> None:
    """Let Python look through all objects again.

    Something large was closed, and may be among them.
    """
    if _state["frozen"]:
        _state["frozen"] = False
        gc.unfreeze()
