"""Strata: unsupervised tissue regions in 3D MRI and CT scans, refined in seconds.

Labels are exported on the scan's own grid. Names are resolved when first used, so that
importing the package loads no torch, napari or Qt.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from napari_strata import deprecated
from napari_strata._version import __version__ as __version__

if TYPE_CHECKING:
    from napari_strata.encoder.adapt import adapt
    from napari_strata.encoder.embed import embed
    from napari_strata.errors import StrataError
    from napari_strata.export.files import read_labels, write
    from napari_strata.io.files import list_series, read
    from napari_strata.measure import agree, compare, measure_regions
    from napari_strata.pipeline import propose
    from napari_strata.proposal.codebook.codebook import Codebook, fit_codebook
    from napari_strata.proposal.proposal import Proposal
    from napari_strata.refine.session.recovery import find_unfinished
    from napari_strata.refine.session.refinement import Refinement
    from napari_strata.refine.transfer import Teaching
    from napari_strata.settings import ProposeSettings
    from napari_strata.volume import Geometry, Region, Segmentation, Volume

_HOMES = {
    "Codebook": "proposal.codebook.codebook",
    "Geometry": "volume",
    "Proposal": "proposal.proposal",
    "ProposeSettings": "settings",
    "Refinement": "refine.session.refinement",
    "Region": "volume",
    "Segmentation": "volume",
    "StrataError": "errors",
    "Teaching": "refine.transfer",
    "Volume": "volume",
    "adapt": "encoder.adapt",
    "agree": "measure",
    "compare": "measure",
    "embed": "encoder.embed",
    "find_unfinished": "refine.session.recovery",
    "fit_codebook": "proposal.codebook.codebook",
    "list_series": "io.files",
    "measure_regions": "measure",
    "propose": "pipeline",
    "read": "io.files",
    "read_labels": "export.files",
    "write": "export.files",
}

__all__ = [
    "Codebook",
    "Geometry",
    "Proposal",
    "ProposeSettings",
    "Refinement",
    "Region",
    "Segmentation",
    "StrataError",
    "Teaching",
    "Volume",
    "adapt",
    "agree",
    "compare",
    "embed",
    "find_unfinished",
    "fit_codebook",
    "list_series",
    "measure_regions",
    "propose",
    "read",
    "read_labels",
    "write",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'napari_strata' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"napari_strata.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names without importing them."""
    return sorted([*globals(), *__all__])


deprecated.install()
