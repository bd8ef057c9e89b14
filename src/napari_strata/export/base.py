"""What an export format is: its name, its suffixes and the function that writes it.

`napari_strata.export.formats` holds the table of all formats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.io.atomic import Together
from napari_strata.settings import ExportSettings
from napari_strata.volume import Progress, Segmentation, Volume


@dataclass(frozen=True, slots=True, eq=False)
class ExportContext:
    """What is known besides the labels; each format takes what it needs.

    Parameters
    ----------
    scan : Volume or None
        The scan that the labels lie on. DICOM SEG needs it, tables take intensities
        from it, label files take its grid.
    confidence : (z, y, x) float array or None
        Confidence of every voxel, in [0, 1], for tables:
        ``proposal.confidence[proposal.supervoxels]``.
    reference : Segmentation or None
        Labels to compare with, for tables: id by id, or with
        ``ExportSettings(match="overlap")`` after regions were joined.
    provenance : dict or None
        How the labels were made (settings, seed, versions, edits), as plain values for
        the JSON file beside a label volume. With it, the JSON file also holds the
        measures and the scan's record.
    """

    scan: Volume | None = None
    confidence: NDArray[np.floating] | None = None
    reference: Segmentation | None = None
    provenance: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ExportRequest:
    """One segmentation to write to one path.

    Parameters
    ----------
    segmentation : Segmentation
        Labels, region table and geometry.
    path : Path
        The final name.
    together : Together
        Transaction that holds the unfinished files; they get their final names when it
        closes without an error.
    context : ExportContext
        Scan, confidence, reference and provenance.
    settings : ExportSettings
        Settings of all formats.
    sidecar : bool
        Whether a label volume gets a JSON file beside it.
    on_progress : callable
        Progress callback.
    """

    segmentation: Segmentation
    path: Path
    together: Together
    context: ExportContext
    settings: ExportSettings
    sidecar: bool
    on_progress: Progress


def accept_path(path: Path, context: ExportContext) -> None:
    """Accept every path: the format needs nothing that could be missing."""


def accept_any_file(path: Path) -> bool:
    """Return True: a file in this format may always be replaced."""
    return True


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A file format that segmentations can be exported to.

    Parameters
    ----------
    name : str
        Name for people, in the file dialog.
    suffixes : tuple of str
        File name suffixes in lower case; the first is the default.
    stage : callable
        Writes the request's files under temporary names in ``request.together``.
    stem : str
        End of the suggested file name: "labels" gives "scan_labels.nii.gz". Label
        formats that have a JSON file beside them need different stems.
    content : str
        What a file of this format holds instead of voxels ("a mesh"); empty if it holds
        voxels, so that labels can be read back from it.
    companions : tuple of str
        Suffixes of files that are written beside the main file.
    one_file_per_region : bool
        Whether "{id}" and "{name}" in the file name make one file per region.
    named_first : bool
        Whether only the regions that a person named are written by default, where there
        are any: a file per region, or large ones, for every proposed region help nobody.
    needs_series : bool
        Whether the scan has to be a DICOM series.
    check : callable
        Called early with path and context; raises `WriteError` if the file cannot be
        written.
    is_ours : callable
        Returns whether an existing file was written by Strata and may be replaced.
    """

    name: str
    suffixes: tuple[str, ...]
    stage: Callable[[ExportRequest], None]
    stem: str = "labels"
    content: str = ""
    companions: tuple[str, ...] = ()
    one_file_per_region: bool = False
    named_first: bool = False
    needs_series: bool = False
    check: Callable[[Path, ExportContext], object] = accept_path
    is_ours: Callable[[Path], bool] = accept_any_file
