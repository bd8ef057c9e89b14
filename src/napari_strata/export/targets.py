"""Which existing files an export may replace.

Files of its own kind by Strata, and none that it is made from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from napari_strata.errors import WriteError
from napari_strata.export.formats import format_of
from napari_strata.io.atomic import file_suffix, same_file
from napari_strata.io.dicom.series import is_dicom, is_segmentation
from napari_strata.volume import Volume


def check_may_replace(path: Path, scan: Volume | None) -> None:
    """Raise if a file is an image, or was not written by Strata.

    Parameters
    ----------
    path : Path
        Where an export is to be written.
    scan : Volume or None
        What the labels lie on.

    Raises
    ------
    WriteError
        If `path` is the scan, an image of a DICOM series, or a .dcm, .label, .txt,
        .csv, .tsv or .parquet file of others.
    """
    if scan is not None and scan.path and same_file(path, scan.path):
        raise WriteError(f"{path} is the scan itself. Choose another name.")
    if not path.is_file():
        return
    if not is_segmentation(path) and (file_suffix(path) == ".dcm" or is_dicom(path)):
        raise WriteError(
            f"{path} is no DICOM segmentation but perhaps an image of a series, and"
            " would be replaced. Choose another name."
        )
    export_format = format_of(path)
    if export_format is not None and not export_format.is_ours(path):
        raise WriteError(
            f"{path} is not Strata's and would be replaced. Choose another name."
        )


def check_inputs_stay(
    outputs: Iterable[Path], inputs: Iterable[str | Path | None]
) -> None:
    """Raise if an output is one of the inputs, under any name.

    Raises
    ------
    WriteError
        If an output is an input.
    """
    given = [Path(one) for one in inputs if one]
    for path in outputs:
        for one in given:
            if same_file(path, one):
                raise WriteError(
                    f"{one} would be replaced by what is made from it. Choose another"
                    " name."
                )


def check_distinct(paths: Iterable[Path]) -> None:
    """Raise if two files would get one name.

    Names that differ in capitals only count as one, as on some file systems.

    Raises
    ------
    WriteError
        If two paths are equal but for capitals.
    """
    seen: set[str] = set()
    for path in paths:
        name = os.path.realpath(path).casefold()
        if name in seen:
            raise WriteError(
                f"Two outputs would be written to {path}. Give each its own name;"
                " capitals alone do not tell files apart."
            )
        seen.add(name)
