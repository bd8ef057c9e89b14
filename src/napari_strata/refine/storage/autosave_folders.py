"""Folders of unfinished work: where autosave writes, and where recovery looks.

`state_folder` is the default for both. A folder that a person chooses is a preference:
`gui/preferences.py` and napari.yaml.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from napari_strata.filenames import SCAN_SUFFIXES
from napari_strata.io.atomic import file_suffix
from napari_strata.volume import Volume


def folder_beside(scan: Path) -> Path:
    """Return the folder beside a scan, where earlier versions kept its edits.

    Recovery looks there; autosave writes there only if the state folder cannot be used.
    """
    return scan.absolute().parent


def autosave_folders(volume: Volume) -> list[Path]:
    """Return the folders where a scan's journal may be, best first.

    These are the user's state folder and, if the scan is a file, the folder beside it.
    Folders of scans stay free of unfinished work, which is many megabytes.
    """
    scan = Path(volume.path) if volume.path else None
    beside = (
        [folder_beside(scan)]
        if scan is not None
        and scan.is_file()
        and not volume.series
        and _is_own_file(scan)
        else []
    )
    return [
        state_folder(),
        *[place for place in beside if os.access(place, os.W_OK | os.X_OK)],
    ]


def recovery_folders(beside: Path | None, chosen: str | Path | None) -> list[Path]:
    """Return the folders where unfinished work on a scan may be.

    Parameters
    ----------
    beside : Path or None
        `folder_beside` of the scan, None if the scan is unknown.
    chosen : str, Path or None
        The folder that the user chose, if any.
    """
    places = (chosen, beside, state_folder())
    return list(dict.fromkeys(Path(place) for place in places if place is not None))


def _is_own_file(scan: Path) -> bool:
    """Return whether a file is a whole scan rather than one file of a DICOM folder."""
    return file_suffix(scan) in SCAN_SUFFIXES


def state_folder() -> Path:
    """Return the user's state folder for unfinished work."""
    return platformdirs.user_state_path("napari-strata", appauthor=False) / "unfinished"
