"""The manifest's writers, for napari's File > Save (Qt only in a window).

They write labels and cases as they are on screen, and never over a scan that is open.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_strata.errors import GeometryError, StrataError
from napari_strata.gui.canvas.layers import (
    TAKES_KEYS,
    is_scan,
    level_shape,
    segmentation_from_parts,
)
from napari_strata.gui.canvas.placement import (
    METADATA_KEY,
    Placement,
    place,
    placing_of,
)
from napari_strata.gui.canvas.scan_files import check_keeps_scans, open_scan_files

if TYPE_CHECKING:
    from napari_strata.gui.session.scan_case import ScanCase
    from napari_strata.refine.session.refinement import Refinement

_NOT_A_CASE = (
    "A case is made of a scan whose regions Strata proposed. Save other labels as"
    " .nii.gz, .nrrd or .mha."
)


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer on the grid of its scan, with its region table beside it.

    Raises
    ------
    WriteError
        If a scan that is open, or a JSON file that Strata did not write, would be
        replaced; or if it cannot be written.
    """
    from napari_strata.export.outputs import outputs_beside
    from napari_strata.io.files import write

    data, attributes = _settled_parts(data, attributes)
    segmentation = segmentation_from_parts(
        data, attributes, scans=_open_scan_placements()
    )
    check_keeps_scans(Path(path), segmentation.regions, _scan_files(attributes))
    written = write(segmentation, path)
    beside = outputs_beside(written).sidecar
    return [str(one) for one in (written, beside) if one.exists()]


def write_other(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write surfaces, measures or names of one labels layer, depending on the suffix.

    Raises
    ------
    WriteError
        If a scan that is open would be replaced, or it cannot be written.
    """
    from napari_strata.export.files import write

    data, attributes = _settled_parts(data, attributes)
    segmentation = segmentation_from_parts(
        data, attributes, scans=_open_scan_placements()
    )
    check_keeps_scans(Path(path), segmentation.regions, _scan_files(attributes))
    return [str(write(segmentation, path))]


def write_case(
    path: str, layers: Sequence[tuple[Any, dict[str, Any], str]]
) -> list[str]:
    """Write the case that a labels layer shows.

    It includes all edits that were asked for, and what other tools wrote in the layer.

    Raises
    ------
    StrataError
        If it shows none, if another layer is not of that case, or if the layer shows
        what the case does not hold.
    WriteError
        If a scan that is open would be replaced, or the case cannot be written.
    """
    layers = [part for part in layers if not _is_overlay(part[1])]
    works = [_work_of(attributes) for _, attributes, _ in layers]
    shown = [
        (data, attributes, work)
        for (data, attributes, kind), work in zip(layers, works, strict=True)
        if kind == "labels"
    ]
    data, attributes, work = shown[0] if len(shown) == 1 else (None, {}, None)
    if work is None:
        raise StrataError(_NOT_A_CASE)
    if any(other is not work for other in works):
        raise StrataError(
            "A case holds one scan and its regions, and nothing else. Select only these"
            " layers to save it."
        )
    check_keeps_scans(Path(path), (), _scan_files(attributes))
    case = _settled_case(work)
    if case is not None:
        case.outside_edits.show_absorbed(case.outside_edits.absorb())
        case.painter.finish()
    elif not np.array_equal(np.asarray(data), work.labels):
        raise StrataError(
            "Another tool wrote in these labels, and the case does not hold that. Open"
            " the Strata panel, then save again."
        )
    history = work.history
    work.save(path)
    if case is not None:
        case.note_saved(history)
    return [path]


def has_window() -> bool:
    """Return whether a question can be asked: in the GUI thread of a running application."""
    if "qtpy" not in sys.modules:
        return False
    from qtpy.QtCore import QThread
    from qtpy.QtWidgets import QApplication

    application = QApplication.instance()
    return application is not None and application.thread() == QThread.currentThread()


def _is_overlay(attributes: Mapping[str, Any]) -> bool:
    """Return whether a layer is a mark of ours on the canvas, such as the selection."""
    facts = attributes.get("metadata", {}).get(METADATA_KEY) or {}
    return bool(facts.get(TAKES_KEYS))


def _work_of(attributes: Mapping[str, Any]) -> Refinement | None:
    from napari_strata.refine.session.refinement import Refinement

    work = (attributes.get("metadata", {}).get(METADATA_KEY) or {}).get("work")
    return work if isinstance(work, Refinement) else None


def _scan_files(attributes: Mapping[str, Any]) -> list[str]:
    """Return the files of the scans that an export must not replace.

    The scan that the labels lie on, and those open in the window in front.
    """
    work = _work_of(attributes)
    files = (
        [work.proposal.volume.path]
        if work is not None and work.proposal.volume.path
        else []
    )
    if has_window():
        import napari

        viewer = napari.current_viewer()
        files += [] if viewer is None else open_scan_files(viewer)
    return files


def _open_scan_placements() -> list[Placement]:
    """Return the placements of the scans in the window in front.

    Scans whose transform cannot be used are left out.
    """
    if not has_window():
        return []
    import napari

    viewer, placements = napari.current_viewer(), []
    for layer in reversed(
        [] if viewer is None else [layer for layer in viewer.layers if is_scan(layer)]
    ):
        with suppress(GeometryError):
            placements.append(place(level_shape(layer), placing_of(layer)))
    return placements


def _settled_parts(data: Any, attributes: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the labels and the table of a layer once all edits asked for are done and shown."""
    case = _settled_case(_work_of(attributes))
    if case is None:
        return data, attributes
    metadata = attributes["metadata"]
    facts = {**metadata[METADATA_KEY], "regions": case.work.regions}
    return case.labels.data, {
        **attributes,
        "metadata": {**metadata, METADATA_KEY: facts},
    }


def _settled_case(work: Refinement | None) -> ScanCase | None:
    """Find the case of a refinement in an open panel, and finish its edits.

    Raises
    ------
    StrataError
        If a file of it is being written: what was asked for since waits for that.
    """
    if work is None or not has_window():
        return None
    from qtpy.QtWidgets import QApplication

    from napari_strata.gui.panel.panel import StrataPanel

    panels = [
        widget
        for widget in QApplication.allWidgets()
        if isinstance(widget, StrataPanel)
    ]
    for panel in panels:
        for case in panel.cases.in_viewer:
            if case.work is work:
                if panel.files.is_writing:
                    raise StrataError(
                        "Another file is still being written. Wait for it, then save"
                        " again."
                    )
                panel.settle()
                case.finish()
                case.outside_edits.restore_shape()
                return case
    return None
