"""The manifest's commands: one function per action of `gui.actions` (Qt only when run).

napari.yaml names them as `napari_strata.gui.plugin.commands:<id>`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_strata.gui.actions import ACTIONS, Action
from napari_strata.gui.plugin.window import dock_panel

if TYPE_CHECKING:
    import napari.viewer


def _command(action: Action) -> Callable[[napari.viewer.Viewer], None]:
    """Return the function that runs an action in a viewer's panel."""

    def run(viewer: napari.viewer.Viewer) -> None:
        action.run(dock_panel(viewer))

    run.__name__ = action.id
    run.__doc__ = f"{action.title}."
    return run


_COMMANDS = {action.id: _command(action) for action in ACTIONS if action.is_command}


def __getattr__(name: str) -> Callable[[napari.viewer.Viewer], None]:
    """Return the command of an action."""
    if name not in _COMMANDS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _COMMANDS[name]
