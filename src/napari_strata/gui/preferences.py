"""Preferences under Plugins > Strata in napari (no Qt)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def explains_on_hover() -> bool:
    """Return whether a region is explained when the cursor rests on it."""
    return bool(_preference("view", "explain_on_hover", False))


def _preference(group: str, name: str, default: Any) -> Any:
    """Return one preference, or the default if napari has none for plugins (before 0.9)."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return default
    settings = get_plugin_settings().get(PLUGIN)
    return getattr(getattr(settings, group, None), name, default)
