"""Texts and maps of the explain section, made outside the GUI thread (no Qt, no layers)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_strata.explain import (
    MergePath,
    MergeStep,
    RegionCard,
    explain_region,
    feature_colors,
    merge_path,
    similarity_map,
)
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.volume import Progress

Question = Literal["card", "similarity", "confidence", "features"]

_MAX_STEPS = 3
"""Merge steps named in a text, so that it stays a few lines long."""
_MAX_DIFFERENCES = 2
"""Differences named between a region and its neighbour, the largest first."""


@dataclass(frozen=True, slots=True, eq=False)
class ExplainRequest:
    """A question about a region, with the state of the case when it was asked.

    Parameters
    ----------
    proposal : Proposal
        The proposal whose supervoxels the table lists.
    table : (n_supervoxels,) int32 array
        The region of each supervoxel as it stood when it was asked.
    tree : {"regions", "tissues"}
        The tree in use.
    region : int or None
        The region; None asks of the whole scan, and only "confidence" and "features"
        can.
    question : {"card", "similarity", "confidence", "features"}
        Words only, or a map with them.
    names : mapping
        Names of the regions, by id.
    """

    proposal: Proposal
    table: NDArray[np.int32]
    tree: TreeName
    region: int | None
    question: Question
    names: Mapping[int, str]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The answer to a question: a text and a map.

    The text is "" without a region. The map is (z, y, x) float32, (z, y, x, 3) uint8
    for "features", and None for "card".
    """

    request: ExplainRequest
    text: str
    painted: NDArray[Any] | None


def explain_body(request: ExplainRequest, on_progress: Progress) -> Answer:
    """Answer a question with a text, and with a map if it asks for one.

    Raises
    ------
    RegionError
        If the region has no supervoxels.
    SettingsError
        If the proposal holds no features to show.
    """
    on_progress(0, 0, "Explaining")
    proposal, values = request.proposal, None
    if request.question == "similarity" and request.region is not None:
        values = similarity_map(proposal, request.table, request.region)
    elif request.question == "confidence":
        values = proposal.confidence
    elif request.question == "features":
        values = np.rint(255 * feature_colors(proposal)).astype(np.uint8)
    text = "" if request.region is None else explanation_text(request)
    return Answer(
        request,
        text,
        (
            None
            if values is None
            else paint_map(values, proposal.supervoxels, on_progress)
        ),
    )


def paint_map(
    values: NDArray[Any], supervoxels: NDArray[np.int32], on_progress: Progress
) -> NDArray[Any]:
    """Paint one value, or one colour, per supervoxel over the scan, plane by plane.

    Returns (z, y, x) or (z, y, x, channel).
    """
    painted = np.empty((*supervoxels.shape, *values.shape[1:]), values.dtype)
    for z, plane in enumerate(supervoxels):
        on_progress(z, len(supervoxels), "Painting the map")
        painted[z] = values[plane]
    return painted


def explanation_text(request: ExplainRequest) -> str:
    """Return a few lines on a region: its coherence, its closest neighbour, its merges."""
    if request.region is None:
        return ""
    card = explain_region(request.proposal, request.table, request.region)
    lines = [*_card_lines(card, request.names)]
    path = merge_path(request.proposal, request.table, request.region, request.tree)
    return "\n".join(lines if path is None else [*lines, *_path_lines(path, request)])


def _card_lines(card: RegionCard, names: Mapping[int, str]) -> list[str]:
    lines = [
        (
            f"{_name(card.id, names)}: {_ml(card.volume_ml)}, {card.n_supervoxels}"
            f" supervoxels, confidence {card.confidence:.2f}"
        ),
        f"Similarity inside: {card.similarity:.2f}.",
    ]
    if card.neighbor is None:
        return lines
    lines[-1] += (
        f" Most similar neighbour: {_name(card.neighbor, names)},"
        f" {card.neighbor_similarity:.2f}."
    )
    split = card.evidence
    lines.append(
        f"What separates them: features {split.features:.0%}, intensity"
        f" {split.intensity:.0%}, position {split.position:.0%}"
    )
    shown = ", ".join(
        f"{column.title} {column.difference_sd:+.1f} sd"
        for column in card.telling[:_MAX_DIFFERENCES]
    )
    lines[-1] += f" (most: {shown})." if shown else "."
    return lines


def _path_lines(path: MergePath, request: ExplainRequest) -> list[str]:
    lines = []
    if path.share < 1:
        lines.append(
            f"It is {path.share:.0%} of the smallest branch that holds it,"
            f" {_ml(path.volume_ml)}; of that branch:"
        )
    sizes = np.bincount(
        request.proposal.supervoxels.ravel(), minlength=request.proposal.n_supervoxels
    )
    shown = [
        f"at {step.n} joins {_partner(step, request, sizes)}, {_ml(step.joined_ml)}"
        for step in path.steps[:_MAX_STEPS]
    ]
    more = len(path.steps) - len(shown)
    if shown:
        lines.append(
            "Coarser: " + "; ".join(shown) + (f"; {more} more." if more else ".")
        )
    lines.append(
        "Finer: a single supervoxel."
        if path.parts_at is None
        else f"Finer: splits at {path.parts_at}."
    )
    return lines


def _partner(step: MergeStep, request: ExplainRequest, sizes: NDArray[np.int64]) -> str:
    """Return the name of the region that a region joins in a merge step.

    It is the region that most of the joined part belongs to now: ids on screen need not
    be those of a cut.
    """
    members = request.proposal.tree(request.tree).cut(step.n + 1) == step.joined
    return _name(
        int(np.bincount(request.table[members], weights=sizes[members]).argmax()),
        request.names,
    )


def _name(region: int, names: Mapping[int, str]) -> str:
    return "background" if region == 0 else names.get(region, f"region {region}")


def _ml(volume_ml: float) -> str:
    return f"{volume_ml:.0f} mL" if volume_ml >= 10 else f"{volume_ml:.2g} mL"
