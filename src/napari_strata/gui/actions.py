"""Every action of the window in one table: id, keys, title, help and what it calls.

The key bindings, the help overlay and the commands of napari's menus are made from it.
To change what Ctrl+Z does, or to give an action another key, change its row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from napari_strata.gui.canvas.window_presets import CT_WINDOWS_HU

Panel = Any
"""A `StrataPanel`. The panel imports this table, so its type cannot be named here."""

When = Literal["always", "our layers", "preview", "review"]
"""When a key works.

"always": wherever the focus is, except that layers of other tools keep napari's keys.
"our layers": in the panel and while one of our layers is active, because napari's layers
use the same key. "preview": while a stroke preview is shown. "review": while a place to
review is shown.
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an action, such as "Ctrl+Z", and when it works."""

    text: str
    when: When = "always"

    @property
    def napari(self) -> str:
        """The key as napari writes it, such as "Control-Z"."""
        return self.text.replace("Ctrl", "Control").replace("+", "-")


@dataclass(frozen=True, slots=True)
class Action:
    """Something a person can do in the window.

    Parameters
    ----------
    id : str
        Without the plugin's name; the manifest's id is "napari-strata.<id>".
    keys : tuple of Key
        Keys that start it.
    title : str
        What napari's menus and command palette show.
    help : str
        What the help overlay shows; "" leaves the action out of it.
    group : str
        Heading in the help overlay.
    run : callable
        Called with the panel.
    is_command : bool
        Whether napari.yaml lists it as a command.
    """

    id: str
    keys: tuple[Key, ...]
    title: str
    help: str
    group: str
    run: Callable[[Panel], object]
    is_command: bool = True


@dataclass(frozen=True, slots=True)
class Gesture:
    """A mouse gesture or a key of napari's own, for the help overlay only."""

    keys: str
    help: str
    group: str


EDIT, BRUSHES, REVIEW, VIEW, FILES, HELP = (
    "Select and edit",
    "Brushes",
    "Review",
    "View",
    "Files",
    "Help",
)
"""Headings of the help overlay, in its order."""


def _edit(command: str) -> Callable[[Panel], object]:
    return lambda panel: panel.editor.edit(command)


def _tool(tool: str) -> Callable[[Panel], object]:
    return lambda panel: panel.editor.use_tool(tool)


def _plane(plane: str) -> Callable[[Panel], object]:
    return lambda panel: panel.orientation.show_plane(plane)


def _press(section: str, button: str) -> Callable[[Panel], object]:
    """Return a call that clicks a button of a section, or switches a checkable one."""

    def press(panel: Panel) -> None:
        widget = getattr(panel.sections, section).buttons[button]
        (widget.toggle if widget.isCheckable() else widget.click)()

    return press


_PRESET_KEYS = tuple(
    f"Alt+{number}" for number in range(1, min(len(CT_WINDOWS_HU), 9) + 1)
)
"""Keys of the first nine window presets. MR has fewer; its last keys do nothing."""


def _window_preset(number: int) -> Action:
    return Action(
        f"window_preset_{number}",
        (Key(_PRESET_KEYS[number - 1]),),
        f"Apply window preset {number}",
        "",
        VIEW,
        lambda panel: panel.views.show_window_number(number),
        is_command=False,
    )


_key_only = partial(Action, is_command=False)

ACTIONS: tuple[Action, ...] = (
    # Edit regions
    Action(
        "propose",
        (),
        "Segment the scan in hand: propose regions",
        "",
        EDIT,
        lambda panel: panel.proposals.start(),
    ),
    Action(
        "merge",
        (Key("M"), Key("Shift+M")),
        "Merge the selected regions",
        "merge the selected regions",
        EDIT,
        _edit("merge"),
    ),
    Action(
        "split",
        (Key("S"), Key("Shift+D")),
        "Split the selected regions along their strongest boundary",
        "split the selected regions",
        EDIT,
        _edit("split"),
    ),
    _key_only(
        "rename",
        (Key("F2"),),
        "Rename the region selected last",
        "rename the region selected last",
        EDIT,
        lambda panel: panel.sections.regions.table.rename_last(),
    ),
    Action(
        "accept",
        (Key("A"),),
        "Accept the selected regions",
        "accept the selected regions and lock them",
        EDIT,
        lambda panel: panel.editor.use_region_tool("accept"),
    ),
    _key_only(
        "lock",
        (Key("K"),),
        "Lock or unlock the selected regions",
        "lock or unlock the selected regions",
        EDIT,
        lambda panel: panel.sections.regions.table.toggle_lock(),
    ),
    Action(
        "undo",
        (Key("Ctrl+Z", "our layers"),),
        "Undo the last edit of regions",
        "undo the last edit",
        EDIT,
        lambda panel: panel.editor.undo(),
    ),
    Action(
        "redo",
        (Key("Ctrl+Shift+Z", "our layers"),),
        "Redo the edit of regions that was undone last",
        "redo it",
        EDIT,
        lambda panel: panel.editor.redo(),
    ),
    Action(
        "why",
        (Key("W"),),
        "Explain why the selected region is one",
        "explain the selected region",
        EDIT,
        lambda panel: panel.explainer.ask("card"),
    ),
    # Brushes
    Action(
        "scribble",
        (Key("Shift+S"),),
        "Scribble: teach regions with strokes",
        "scribble: stroke over a region, similar voxels follow",
        BRUSHES,
        _tool("scribble"),
    ),
    Action(
        "paint",
        (Key("Shift+P"),),
        "Paint voxels of the selected region",
        "paint voxels of the selected region",
        BRUSHES,
        _tool("paint"),
    ),
    Action(
        "cut",
        (Key("Shift+X"),),
        "Cut: part a region by a line drawn over it",
        "cut: draw a line across a region",
        BRUSHES,
        _tool("cut"),
    ),
    _key_only(
        "select",
        (Key("Shift+C"),),
        "Select regions by clicking",
        "put the brush down: clicks select regions",
        BRUSHES,
        _tool("select"),
    ),
    Action(
        "update",
        (Key("Shift+U"), Key("Space", "preview")),
        "Take the strokes that are previewed",
        "apply the strokes (Space while a preview is shown)",
        BRUSHES,
        _edit("update"),
    ),
    _key_only(
        "clear",
        (Key("Escape", "preview"),),
        "Discard the strokes",
        "discard the strokes while a preview is shown",
        BRUSHES,
        _edit("clear"),
    ),
    _key_only(
        "smaller_brush",
        (Key("[", "our layers"),),
        "Make the brush smaller",
        "smaller brush",
        BRUSHES,
        lambda panel: panel.sections.edit.step_brush_size(-1),
    ),
    _key_only(
        "larger_brush",
        (Key("]", "our layers"),),
        "Make the brush larger",
        "larger brush",
        BRUSHES,
        lambda panel: panel.sections.edit.step_brush_size(1),
    ),
    # Review
    Action(
        "next_place",
        (Key("N"),),
        "Go to the next place worth a look",
        "go to the next place to review",
        REVIEW,
        lambda panel: panel.review.next(),
    ),
    _key_only(
        "accept_place",
        (Key("Space", "review"),),
        "Accept this place",
        "accept it and go to the next",
        REVIEW,
        lambda panel: panel.review.accept(),
    ),
    # View
    _key_only(
        "axial",
        (Key("Shift+A"),),
        "Show the axial plane",
        "axial",
        VIEW,
        _plane("axial"),
    ),
    _key_only(
        "coronal",
        (Key("Shift+F"),),
        "Show the coronal plane",
        "coronal",
        VIEW,
        _plane("coronal"),
    ),
    _key_only(
        "sagittal",
        (Key("Shift+G"),),
        "Show the sagittal plane",
        "sagittal",
        VIEW,
        _plane("sagittal"),
    ),
    _key_only(
        "3d",
        (Key("Shift+H"),),
        "Show the scan in 3D",
        "3D",
        VIEW,
        lambda panel: panel.orientation.show_3d(),
    ),
    Action(
        "three_planes",
        (Key("Shift+T"),),
        "Show three linked planes",
        "three planes with a crosshair, on or off",
        VIEW,
        _press("scan", "planes"),
    ),
    *(_window_preset(number) for number in range(1, len(_PRESET_KEYS) + 1)),
    _key_only(
        "outline",
        (Key("G"),),
        "Draw regions as outlines or filled",
        "outlines or filled regions",
        VIEW,
        lambda panel: panel.sections.regions.outline.toggle(),
    ),
    _key_only(
        "show_all",
        (Key("Shift+O"),),
        "Show every region again",
        "show every region again",
        VIEW,
        lambda panel: panel.sections.regions.show_all.click(),
    ),
    Action(
        "surfaces",
        (),
        "Show the selected regions as surfaces",
        "",
        VIEW,
        lambda panel: panel.views.show_surfaces(),
    ),
    Action(
        "ruler",
        (Key("Shift+R"),),
        "Measure with the ruler",
        "ruler, on or off",
        VIEW,
        _press("scan", "ruler"),
    ),
    Action(
        "compare",
        (),
        "Compare two time points side by side",
        "",
        VIEW,
        lambda panel: panel.views.compare(),
    ),
    # Files
    Action(
        "export",
        (),
        "Export labels, surfaces or a table...",
        "",
        FILES,
        _press("export", "export"),
    ),
    Action(
        "save_case",
        (),
        "Save the case...",
        "",
        FILES,
        _press("export", "save"),
    ),
    # Help
    Action(
        "keys",
        (Key("H"),),
        "Show every key and mouse gesture",
        "this list",
        HELP,
        lambda panel: panel.sections.show_help(),
    ),
    Action(
        "tour",
        (),
        "Take the tour of the panel",
        "",
        HELP,
        lambda panel: panel.sections.tour.begin(),
    ),
)
"""The order within a group is that of the help overlay."""

GESTURES = (
    Gesture("Click", "select the region under the cursor", EDIT),
    Gesture("Shift+click", "add the region to the selection, or take it out", EDIT),
    Gesture(f"{_PRESET_KEYS[0]} ... {_PRESET_KEYS[-1]}", "window presets", VIEW),
    Gesture("Alt+wheel", "reach of the strokes, while Scribble is in hand", EDIT),
    Gesture("Right-drag", "window: right is wider, down is brighter", VIEW),
    Gesture("Arrows, Ctrl+wheel; wheel; drag", "next slice; zoom; move (napari)", VIEW),
)


def keys_for(when: When, panel: Panel) -> Iterable[tuple[str, Callable[[], object]]]:
    """Return each key that works at one time, in napari's notation, with its call."""
    return [
        (key.napari, partial(action.run, panel))
        for action in ACTIONS
        for key in action.keys
        if key.when == when
    ]


def action_for(
    key: str, panel: Panel, answer: When | None
) -> Callable[[], object] | None:
    """Return what a key, such as "Ctrl+Z", does now; None if the table has no such key.

    `answer` is "preview" or "review" while that key would answer one.
    """
    times: tuple[When | None, ...] = (answer, "our layers", "always")
    return next(
        (
            partial(action.run, panel)
            for when in times
            for action in ACTIONS
            if any(one.text == key and one.when == when for one in action.keys)
        ),
        None,
    )


def shortcut(action_id: str, when: When | None = None) -> str:
    """Return the first key of an action, for tooltips; `when` chooses among several."""
    return next(
        key.text
        for action in ACTIONS
        if action.id == action_id
        for key in action.keys
        if when in (None, key.when)
    )


def help_rows() -> dict[str, list[tuple[str, str]]]:
    """Return the help overlay's rows (keys, help) by heading."""
    rows: dict[str, list[tuple[str, str]]] = {}
    for group in (EDIT, BRUSHES, REVIEW, VIEW, HELP):
        rows[group] = [
            (gesture.keys, gesture.help)
            for gesture in GESTURES
            if gesture.group == group
        ]
        rows[group] += [
            (", ".join(dict.fromkeys(key.text for key in action.keys)), action.help)
            for action in ACTIONS
            if action.group == group and action.help
        ]
    return rows
