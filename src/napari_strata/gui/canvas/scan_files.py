"""Files of the open scans, which an export must never replace (no Qt)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from napari_strata.errors import WriteError
from napari_strata.filenames import CASE_SUFFIX
from napari_strata.gui.canvas.layers import is_scan, layer_facts
from napari_strata.io.atomic import same_file
from napari_strata.volume import Region

if TYPE_CHECKING:
    import napari.viewer


def open_scan_files(viewer: napari.viewer.Viewer) -> list[str]:
    """Return the files that the scans in a viewer were read from, by any reader.

    Case files are left out: a case may be saved over itself.
    """
    paths = [
        path
        for layer in viewer.layers
        if is_scan(layer)
        for path in (layer_facts(layer).get("path"), layer.source.path)
    ]
    return [
        str(path)
        for path in paths
        if path and Path(path).is_file() and Path(path).suffix != CASE_SUFFIX
    ]


def check_keeps_scans(
    path: Path, regions: Iterable[Region], scans: Iterable[str]
) -> None:
    """Check that writing to a path replaces no scan that is open.

    Parameters
    ----------
    path : Path
        Where labels, surfaces or a table go.
    regions : iterable of Region
        What "{id}" and "{name}" in the path stand for.
    scans : iterable of str
        The scans' files.

    Raises
    ------
    WriteError
        If one of the files to write is one of the scans.
    """
    from napari_strata.export.per_region import region_paths

    targets = region_paths(path, regions)
    for scan in scans:
        if any(same_file(target, scan) for target in targets):
            raise WriteError(
                f"{scan} is a scan that is open here, and would be replaced. Choose"
                " another name."
            )
