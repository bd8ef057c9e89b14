"""Every key and mouse gesture, once: what is bound, and what the help says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from napari_strata.gui.canvas.viewer_bindings import ViewerBindings

if TYPE_CHECKING:
    import napari.viewer

    from napari_strata.gui.panel.panel import StrataPanel

HELP: dict[str, tuple[tuple[str, str], ...]] = {
    "Select and edit": (
        (
            "Click, Shift+click",
            "select the region under the cursor, add it to the selection",
        ),
        ("M, S", "merge, split the selected regions"),
        ("F2", "rename the region selected last"),
        ("A, K", "accept the selected regions (and lock them); lock or unlock them"),
        ("Ctrl+Z, Ctrl+Shift+Z", "undo, redo"),
        ("W", "why is it one region?"),
    ),
    "Brushes": (
        ("Shift+S, Shift+P, Shift+C", "scribble, paint, back to select"),
        ("Shift+X", "cut: draw a line across a region"),
        ("[, ]", "smaller, larger brush"),
        ("Space, Escape", "take, drop the strokes that are previewed (or Shift+U)"),
    ),
    "Look next": (("N", "next place worth a look"), ("Space", "accept it, and go on")),
    "View": (
        ("Shift+A, Shift+F, Shift+G, Shift+H", "axial, coronal, sagittal, 3D"),
        ("Shift+T", "three planes with a crosshair"),
        ("Right-drag", "window: right is wider, down is brighter"),
        ("Alt+1 ... Alt+7", "window presets"),
        ("G, Shift+O", "outlines or filled; show every region again"),
        ("Shift+R", "ruler"),
        ("Arrows, Ctrl+wheel; wheel; drag", "next slice; zoom; move (napari)"),
    ),
    "Help": (("H", "this list"),),
}


def bind_panel_keys(
    hooks: ViewerBindings, viewer: napari.viewer.Viewer, panel: StrataPanel
) -> None:
    """Bind the keys that work wherever the canvas has the focus.

    Layers of other kinds keep their own keys first.
    """
    edit, tool, show = panel.edit, panel.use_tool, panel.orientation.show_plane
    keys: dict[str, Callable[[], object]] = {
        **{key: partial(edit, "merge") for key in ("M", "Shift-M")},
        **{key: partial(edit, "split") for key in ("S", "Shift-D")},
        "Shift-U": partial(edit, "update"),
        "Shift-S": partial(tool, "scribble"),
        "Shift-P": partial(tool, "paint"),
        "Shift-X": partial(tool, "cut"),
        "Shift-C": partial(tool, "select"),
        "A": partial(panel.editor.use_region_tool, "accept"),
        "N": panel.looker.next,
        "W": partial(panel.explain, "card"),
        "K": panel.toggle_lock,
        "F2": panel.table.rename_last,
        "Shift-A": partial(show, "axial"),
        "Shift-F": partial(show, "coronal"),
        "Shift-G": partial(show, "sagittal"),
        "Shift-H": panel.orientation.show_3d,
        "Shift-T": panel.scan.buttons["planes"].toggle,
        "Shift-R": panel.scan.buttons["ruler"].toggle,
        "G": panel.regions.outline.toggle,
        "Shift-O": panel.regions.show_all.click,
        "H": panel.show_help,
        **{
            f"Alt-{number}": partial(panel.viewing.show_window_number, number)
            for number in range(1, 8)
        },
    }
    hooks.on_keys(viewer, keys.items())
