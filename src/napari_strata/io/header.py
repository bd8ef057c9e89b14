"""The size of a scan from its header alone, to plan memory before reading voxels."""

from __future__ import annotations

from pathlib import Path

from napari_strata.errors import ReadError
from napari_strata.io.atomic import file_suffix
from napari_strata.io.dicom.series import dicom_shape
from napari_strata.io.hashing import check_regular
from napari_strata.io.itk import itk_shape
from napari_strata.io.mgh import mgh_shape
from napari_strata.io.nifti import nifti_shape

_SHAPES = {
    **dict.fromkeys((".nii", ".nii.gz", ".hdr", ".img"), nifti_shape),
    **dict.fromkeys((".mgh", ".mgz"), mgh_shape),
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), itk_shape),
}


def header_shape(path: str | Path, *, series: str | None = None) -> tuple[int, ...]:
    """Return the numbers of voxels along a scan's own three axes, from its header alone.

    Parameters
    ----------
    path : str or Path
        What `read` takes.
    series : str or None
        SeriesInstanceUID, where a DICOM folder holds several.

    Raises
    ------
    ReadError
        If there is no such scan, or its header cannot be read.
    """
    source = Path(path)
    if not source.exists():
        raise ReadError(f"There is no file or folder {source}. Check the path.")
    if not source.is_dir():
        check_regular(source)
    suffix = file_suffix(source)
    try:
        if not source.is_dir() and suffix in _SHAPES:
            return _SHAPES[suffix](source, suffix=suffix)
        return dicom_shape(source, series)
    except OSError as err:
        raise ReadError(
            f"Cannot read {source}: {err.strerror}. Check that you may read it."
        ) from err
