"""Preferences under Plugins > Strata in napari (no Qt)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_strata.refine.scribble.reach import Reach
from napari_strata.settings import RunSettings

PLUGIN = "napari-strata"


def run_settings() -> RunSettings:
    """Return the preferred device and number of threads for proposals."""
    return RunSettings(
        device=_preference("work", "device", "auto"),
        threads=int(_preference("work", "threads", 0)),
    )


def autosave_folder() -> Path | None:
    """Return the folder for unsaved edits, None for the user's state folder."""
    chosen = str(_preference("work", "autosave_folder", "")).strip()
    return Path(chosen).expanduser() if chosen else None


def default_view() -> str:
    """Return the view of a new scan: "axial", "coronal", "sagittal" or "three planes"."""
    return str(_preference("view", "default_view", "axial"))


def has_equal_planes() -> bool:
    """Return whether the three planes have equal sizes."""
    return bool(_preference("view", "equal_planes", False))


def starts_maximised() -> bool:
    """Return whether a window opens as large as the screen."""
    return bool(_preference("view", "start_maximised", False))


def wheel_moves_slices() -> bool:
    """Return whether the wheel moves through slices, and Ctrl+wheel zooms."""
    return bool(_preference("view", "wheel_moves_slices", False))


def explains_on_hover() -> bool:
    """Return whether a region is explained when the cursor rests on it."""
    return bool(_preference("view", "explain_on_hover", False))


def stroke_reach_mm() -> float:
    """Return how far strokes go that stay "here", in mm."""
    return float(_preference("work", "stroke_reach_mm", Reach().mm))


def remember_stroke_reach_mm(mm: float) -> None:
    """Keep a reach of strokes for the next session."""
    group = getattr(_settings(), "work", None)
    if hasattr(group, "stroke_reach_mm") and group.stroke_reach_mm != mm:
        group.stroke_reach_mm = mm


def _preference(group: str, name: str, default: Any) -> Any:
    """Return one preference, or the default if napari has none for plugins (before 0.9)."""
    return getattr(getattr(_settings(), group, None), name, default)


def _settings() -> Any:
    """Return this plugin's preferences, None if napari has none."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return None
    return get_plugin_settings().get(PLUGIN)
