"""Label a proposal by a cut of its own tree, by a codebook, or by a teaching.

The one step from `Proposal` to `Segmentation` that needs no person. The command line
and the batch both call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import SettingsError
from napari_strata.pipeline import encoder_in_use
from napari_strata.proposal.codebook.codebook import Codebook, check_encoder
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.transfer import Teaching
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Segmentation

TreeKind = Literal["tissues", "regions"]


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut of a scan's own tree.

    Parameters
    ----------
    tree : {"tissues", "regions"}
        Which tree is cut.
    n : int or None
        Number of tissues or regions, at least 1; None takes the cut that
        the proposal opens on, see `Proposal.as_proposed`.

    Raises
    ------
    SettingsError
        If `n` is less than 1.
    """

    tree: TreeKind
    n: int | None = None

    def __post_init__(self) -> None:
        if self.n is not None and self.n < 1:
            raise SettingsError(f"Asked for {self.n} {self.tree}. Ask for at least 1.")


LabelSource = Cut | Codebook | Teaching
"""What decides the labels of a proposal."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledScan:
    """A proposal with labels, and how it got them.

    Parameters
    ----------
    segmentation : Segmentation
        Labels on the scan's own grid, with their region table.
    confidence : (n_supervoxels,) float32 array
        Confidence of each supervoxel, 0 to 1, at the cut.
    cut : dict
        Tree and number of regions, as sidecars keep it: ``{"tissues": 16}``.
    provenance : dict
        What a sidecar keeps besides the proposal's provenance and `cut`: the codebook
        or the teaching with its drift; empty for a cut.
    warning : str
        That the scan does not fit the codebook or the teaching; "" if it does.
    """

    segmentation: Segmentation
    confidence: NDArray[np.float32]
    cut: dict[str, int]
    provenance: dict[str, dict[str, Any]]
    warning: str = ""


def label_proposal(proposal: Proposal, source: LabelSource) -> LabelledScan:
    """Return the labels of a proposal.

    Parameters
    ----------
    proposal : Proposal
        Of one scan.
    source : Cut, Codebook or Teaching
        What decides the labels.

    Raises
    ------
    CodebookError, TeachingError
        If the codebook or the teaching belongs to another encoder or modality.
    """
    if isinstance(source, Cut):
        n = proposal.as_proposed(source.tree) if source.n is None else source.n
        is_tissues = source.tree == "tissues"
        segmentation = proposal.tissues(n) if is_tissues else proposal.regions(n)
        confidence = proposal.confidence_at(source.tree, n)
        return LabelledScan(segmentation, confidence, {source.tree: n}, {})
    cut = {"tissues": region_count(source)}
    if isinstance(source, Codebook):
        assigned = source.apply(proposal)
        return LabelledScan(
            assigned.segmentation(proposal),
            proposal.confidence_at("tissues", cut["tissues"]),
            cut,
            {"codebook": {"sha256": source.sha256, **assigned.record()}},
            assigned.warning(),
        )
    transferred = source.apply(proposal)
    return LabelledScan(
        transferred.segmentation(proposal),
        transferred.confidence,
        cut,
        {"taught": {"sha256": source.sha256, **transferred.record(proposal)}},
        transferred.warning(),
    )


def region_count(source: Codebook | Teaching) -> int:
    """Return the number of regions that a codebook or a teaching knows."""
    return len(source.regions)


def load_codebook(
    path: Path, settings: ProposeSettings, weights: Path | None
) -> Codebook:
    """Read a codebook, and refuse one of another encoder before a scan is read.

    Raises
    ------
    CodebookError
        If it cannot be read, or belongs to another encoder.
    """
    codebook = Codebook.load(path)
    check_source(codebook, settings, weights)
    return codebook


def load_teaching(
    path: Path, settings: ProposeSettings, weights: Path | None
) -> Teaching:
    """Read a teaching, and refuse one of another encoder before a scan is read.

    Raises
    ------
    TeachingError
        If it cannot be read, or belongs to another encoder.
    """
    teaching = Teaching.load(path)
    check_source(teaching, settings, weights)
    return teaching


def check_source(
    source: LabelSource, settings: ProposeSettings, weights: Path | None
) -> None:
    """Check that a codebook or a teaching belongs to the encoder that will be used.

    Raises
    ------
    CodebookError, TeachingError
        If it belongs to another encoder.
    """
    if isinstance(source, Codebook):
        check_encoder(source, encoder_in_use(settings, weights))
    elif isinstance(source, Teaching):
        source.check(source.modality, encoder_in_use(settings, weights))
