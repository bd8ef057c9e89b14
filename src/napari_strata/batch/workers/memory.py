"""Memory: what a scan needs, estimated from its header, and what there is."""

from __future__ import annotations

import math

import psutil

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.deprecated import moved_names
from napari_strata.errors import StrataError
from napari_strata.io.header import header_shape
from napari_strata.machine import control_group_limits
from napari_strata.proposal.methods.registry import find_method
from napari_strata.settings import ProposeSettings

IDLE_GB = 0.7
"""Memory in GB of a process with torch and the encoder loaded, between scans."""
_PER_MVOX_GB, _PER_WORKING_MVOX_GB, _OUTPUT_PER_WORKING_MVOX_GB = 0.022, 0.3, 0.1
"""GB per million voxels: of the scan, of the encoder's grid, and of its features."""
_BESIDE_PER_MVOX_GB, _MOST_BESIDE_MVOX = 0.05, 12.0
"""GB per million voxels of supervoxels that are made while the encoder works.

Only with several threads, and up to 12 million voxels in the body's bounding box.
"""
_GMM_IDLE_GB, _GMM_PER_MVOX_GB = 0.35, 0.08
"""The same two figures for the method gmm-mrf, which loads no torch."""
_CASE_PER_MVOX_GB = 0.02
"""GB per million voxels if a case is replayed: its supervoxels, and labels twice."""
_MARGIN = 1.15
"""Factor on top of the fitted line."""
_SHARE_TO_USE = 0.9
"""Share of the memory that a batch uses; the system needs the rest."""


def estimate_gb(
    scan: PlannedScan, settings: ProposeSettings, *, threads: int = 1
) -> float | None:
    """Estimate the peak memory of a proposal in GB (1e9 bytes); None without a header.

    A line fitted to measured peaks, plus 15 %. With one thread, 256 x 256 x 256 voxels
    take 3.0 GB (3.3 estimated), a CT of 512 x 512 x 600 takes 5.9 GB (6.9), a cube of
    64 voxels 0.7 GB (0.9). See `docs/batch.md`.

    Parameters
    ----------
    scan : PlannedScan
        Only its header is read.
    settings : ProposeSettings
        `method`, `working_mvox` and `memory_gb` are used.
    threads : int
        Threads per scan; 0 for all there are.
    """
    try:
        mvox = math.prod(header_shape(scan.path, series=scan.series)) / 1e6
    except StrataError:
        return None
    case_gb = _CASE_PER_MVOX_GB if scan.replay is not None else 0.0
    if not find_method(settings.method).needs_encoder:
        return round(
            _MARGIN * (_GMM_IDLE_GB + (_GMM_PER_MVOX_GB + case_gb) * mvox),
            2,
        )
    working = min(mvox, settings.working_mvox)
    encoder = min(
        _PER_WORKING_MVOX_GB * working,
        settings.memory_gb + _OUTPUT_PER_WORKING_MVOX_GB * working,
    )
    beside = _BESIDE_PER_MVOX_GB * min(mvox, _MOST_BESIDE_MVOX) if threads != 1 else 0.0
    return round(
        _MARGIN * (IDLE_GB + encoder + beside + (_PER_MVOX_GB + case_gb) * mvox), 2
    )


def machine_gb() -> float:
    """Return how much memory may be used here, in GB.

    This is nine tenths of the machine's memory, or of the limit of the container or job.
    """
    limits = [
        int(text)
        for text in (
            *control_group_limits("memory.max"),
            *control_group_limits("memory.limit_in_bytes"),
        )
        if text.isdecimal()
    ]
    return round(_SHARE_TO_USE * min([psutil.virtual_memory().total, *limits]) / 1e9, 2)


__getattr__ = moved_names("batch.memory")
