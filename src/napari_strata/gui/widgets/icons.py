"""Small icons on the panel's buttons, one set for dark themes and one for light ones."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from napari.utils.theme import get_theme
from qtpy.QtCore import QSize
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import QPushButton

from napari_strata.gui.canvas.viewer_bindings import ViewerBindings

if TYPE_CHECKING:
    import napari.viewer

SIZE = QSize(16, 16)


def kind_of_theme(name: str) -> Literal["dark", "light"]:
    """Return whether a theme has a dark or a light background."""
    red, green, blue = get_theme(name).background.as_rgb_tuple()[:3]
    return "dark" if 0.299 * red + 0.587 * green + 0.114 * blue < 128 else "light"


def icon_of(name: str, kind: Literal["dark", "light"]) -> QIcon:
    """Return one of the icons that ship with the package."""
    return QIcon(str(files("napari_strata.gui") / "icons" / f"{name}_{kind}.svg"))


def show_icons(
    buttons: Mapping[str, QPushButton],
    viewer: napari.viewer.Viewer,
    hooks: ViewerBindings,
) -> None:
    """Put icons on buttons by name, and change them with the theme."""

    def follow(_event: object = None) -> None:
        kind = kind_of_theme(viewer.theme)
        for name, button in buttons.items():
            button.setIcon(icon_of(name, kind))
            button.setIconSize(SIZE)

    hooks.on_event(viewer.events.theme, follow)
    follow()
