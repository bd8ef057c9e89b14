"""The manifest's readers: scans, labels and cases as napari layers (no Qt)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from napari_strata.errors import ChoiceError
from napari_strata.filenames import CASE_SUFFIX
from napari_strata.gui.canvas.layers import (
    LayerTuple,
    case_labels_tuple,
    image_tuple,
    labels_tuple,
)
from napari_strata.gui.canvas.placement import METADATA_KEY
from napari_strata.gui.plugin.napari_save import has_window

NO_LAYERS: Any = ((None,),)
"""napari's sign that a reader read the file and there is nothing to show."""

DICOM_FILES_CHECKED = 200
"""Files of a folder that are checked before it counts as a folder without DICOM files.

The limit keeps napari responsive when a large folder of other files is dropped.
"""


def get_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Return a reader for scans and label files, None for any other file.

    A folder is taken when it holds DICOM files. Several paths are read one by one.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return read_layers if paths and all(_is_known(Path(one)) for one in paths) else None


def read_layers(path: str | Sequence[str]) -> list[LayerTuple]:
    """Read scans as image layers, label files as labels layers, and cases as both.

    An open panel continues the case.
    """
    from napari_strata.io.files import read_labels

    layers: list[LayerTuple] = []
    for one in [path] if isinstance(path, str) else path:
        source = Path(one)
        if source.suffix == CASE_SUFFIX:
            layers += read_case(source)
        elif _has_region_table(source):
            layers.append(labels_tuple(read_labels(source), name=_stem(source)))
        else:
            layers += _read_scan(source)
    return layers or list(NO_LAYERS)


def read_case(path: Path) -> list[LayerTuple]:
    """Read a case as its scan and its regions, which share the refinement.

    Raises
    ------
    CaseError
        If it cannot be read.
    """
    from napari_strata.refine.session.refinement import Refinement

    work = Refinement.load(path)
    layers = [
        image_tuple(work.proposal.volume),
        case_labels_tuple(work, name=f"{_stem(path)} regions"),
    ]
    for _, kwargs, _ in layers:
        kwargs["metadata"][METADATA_KEY] |= {"work": work, "saved": work.history}
    return layers


def _read_scan(path: Path) -> list[LayerTuple]:
    """Read a scan. If the file holds several and there is a window, ask which one.

    Return an empty list if the dialog is cancelled.
    """
    from napari_strata.io.files import read

    try:
        return [image_tuple(read(path))]
    except ChoiceError as err:
        if not err.options or not has_window():
            raise
        from napari_strata.gui.widgets.dialogs import ask_choice

        options = ask_choice(None, path, err.options)
    return [] if options is None else [image_tuple(read(path, **options))]


def _is_known(path: Path) -> bool:
    """Return whether we read a file, or a folder because it holds DICOM files."""
    from napari_strata.io.dicom.series import is_dicom, is_segmentation
    from napari_strata.io.files import SCAN_SUFFIXES

    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file())
        return any(is_dicom(file) for file in islice(files, DICOM_FILES_CHECKED))
    suffixes = (*SCAN_SUFFIXES, CASE_SUFFIX)
    return path.name.lower().endswith(suffixes) or is_segmentation(path)


def _has_region_table(path: Path) -> bool:
    """Return whether a file holds labels rather than a scan.

    Such a file has our region table beside it, or that of 3D Slicer or DICOM inside.
    """
    from napari_strata.export.outputs import outputs_beside
    from napari_strata.io.files import holds_segments
    from napari_strata.io.sidecar import has_table

    return path.is_file() and (
        holds_segments(path) or has_table(outputs_beside(path).sidecar)
    )


def _stem(path: Path) -> str:
    return path.name.split(".")[0]
