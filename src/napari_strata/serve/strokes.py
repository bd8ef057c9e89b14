"""Strokes of a client teach what belongs to one structure.

The client sends its labels with the strokes among them, and gets the structure back.
Every answer follows from the structure as it was when its first stroke was drawn, and
from all strokes since: the same request gives the same answer, and a stroke that was
erased has no effect any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import ServeError
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.edits.strokes import Scribble
from napari_strata.refine.history.initial_state import (
    InitialState,
    check_labels,
    structure_state,
)
from napari_strata.refine.scribble.reach import Reach
from napari_strata.refine.session.view import View
from napari_strata.refine.state.assignment import Scope, State
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.serve.models import STRUCTURE
from napari_strata.volume import BACKGROUND, Region, Segmentation, region_color

_FOREGROUND, _BACKGROUND = "foreground_scribbles", "background_scribbles"
"""Names of 3D Slicer's segments with the strokes."""
_DEFAULT_NAMES = {1: STRUCTURE, 2: _BACKGROUND, 3: _FOREGROUND}
"""Values in labels that come without names, as MONAI Label has them."""
_REGION = 1
"""Region id of the structure."""
_REACH = Reach()
"""That of scribbles in the library and the window at their start."""


@dataclass(frozen=True, slots=True, eq=False)
class StrokeRequest:
    """What a client sends with its strokes.

    Parameters
    ----------
    structure : str
        Name of the structure.
    mask : (z, y, x) bool array
        The structure as the client has it; unknown under strokes.
    foreground, background : (k,) int64 array
        Voxels of the strokes on the structure and beside it, as flat indices.
    scope : {"everywhere", "here"}
        How far the strokes spread.
    """

    structure: str
    mask: NDArray[np.bool_]
    foreground: NDArray[np.int64]
    background: NDArray[np.int64]
    scope: Scope

    @property
    def strokes(self) -> NDArray[np.int64]:
        """Voxels of all strokes."""
        return np.concatenate([self.foreground, self.background])

    def shows(self, mask: NDArray[np.bool_]) -> bool:
        """Return whether the client's structure is this one, but for what strokes hide."""
        differs = self.mask != mask
        differs.reshape(-1)[self.strokes] = False
        return not differs.any()


def stroke_request(
    segmentation: Segmentation, params: Mapping[str, Any], proposal: Proposal
) -> StrokeRequest:
    """Return a client's labels and parameters as a request.

    Parameters
    ----------
    segmentation : Segmentation
        The client's labels, strokes among them.
    params : mapping
        `label_info` names the labels, `selected_label_name` the structure.
    proposal : Proposal
        Of the scan.

    Raises
    ------
    GeometryError
        If the labels lie on another grid than the scan.
    ServeError
        If there are no strokes.
    """
    check_labels(proposal.volume.geometry, segmentation)
    names = _names(params.get("label_info"))
    structure = str(params.get("selected_label_name") or STRUCTURE)
    labels = segmentation.labels
    scope = params.get("scope", "everywhere")
    if scope not in get_args(Scope):
        raise ServeError(
            f"scope is {str(scope)[:40]!r}; choose one of {', '.join(get_args(Scope))}."
        )
    request = StrokeRequest(
        structure,
        _is_any(labels, [key for key, name in names.items() if name == structure]),
        _voxels(labels, names, _FOREGROUND),
        _voxels(labels, names, _BACKGROUND),
        scope,
    )
    if len(request.strokes) == 0:
        raise ServeError(
            "There are no strokes. Draw on the structure, or beside it, and try again."
        )
    return request


def _names(label_info: Any) -> dict[int, str]:
    """Return the names of labels by their ids, from what a client sends."""
    if not isinstance(label_info, list) or not label_info:
        return _DEFAULT_NAMES
    try:
        return {
            int(one.get("id", one.get("idx"))): str(one["name"]) for one in label_info
        }
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise ServeError(
            'label_info must be a list such as [{"name": "liver", "id": 1}].'
        ) from err


def _is_any(labels: NDArray[np.unsignedinteger], ids: list[int]) -> NDArray[np.bool_]:
    """Return where labels are one of a few ids; far faster than `isin`."""
    found = np.zeros(labels.shape, np.bool_)
    for key in ids:
        if key > 0:
            found |= labels == key
    return found


def _voxels(
    labels: NDArray[np.unsignedinteger], names: dict[int, str], name: str
) -> NDArray[np.int64]:
    ids = [key for key, value in names.items() if value == name]
    return np.flatnonzero(_is_any(labels, ids)).astype(np.int64, copy=False)


class StrokeWork:
    """The strokes of one client on one scan, and what they taught so far.

    Parameters
    ----------
    proposal : Proposal
        Of the scan.
    """

    def __init__(self, proposal: Proposal) -> None:
        self._index = ProposalIndex(proposal)
        self._structure: str | None = None
        shape = proposal.supervoxels.shape
        # before the strokes, and with them
        self._start = self._answer = np.zeros(shape, np.bool_)
        self._start_state = self._state = self._state_of(self._start)
        self._strokes = np.empty(0, np.int64)

    def prepare(self) -> None:
        """Compute what strokes need, which takes about a second on a large scan."""
        self._index.slow_lookups()

    def answer(self, request: StrokeRequest) -> Segmentation:
        """Return the structure, as label 1.

        Raises
        ------
        EditError
            If the strokes cannot be used.
        """
        self._begin(request)
        index = self._index
        strokes = [
            Scribble(
                index.ras_mm(voxels),
                region,
                request.scope,
                reach=(_REACH.mm, _REACH.tolerance_sd),
            )
            for voxels, region in (
                (request.background, BACKGROUND),
                (request.foreground, _REGION),
            )
            if len(voxels)
        ]
        state = self._start_state
        for stroke in strokes:
            state = stroke.apply(state, index).state
        self._state, self._strokes = state, request.strokes
        self._answer = View(index, state).labels == _REGION
        return self._segmentation(self._answer, request.structure)

    def _begin(self, request: StrokeRequest) -> None:
        """Set from which state the strokes start."""
        is_same = request.structure == self._structure
        if is_same and np.isin(request.strokes, self._strokes).any():
            if request.shows(self._answer) or request.shows(self._start):
                return  # more strokes, or fewer
        elif is_same and request.shows(self._answer):
            # earlier strokes were cleared: what they taught stays
            self._start, self._start_state = self._answer, self._state
            return
        start, strokes = request.mask.copy(), request.strokes
        known = self._answer if is_same else np.zeros_like(start)
        start.reshape(-1)[strokes] = known.reshape(-1)[strokes]
        self._start = self._answer = start
        self._start_state = self._state = self._state_of(start)
        self._structure = request.structure

    def _state_of(self, mask: NDArray[np.bool_]) -> State:
        """Return the state of a case that starts from a structure."""
        if not mask.any():
            return InitialState("regions", 0).state(self._index)
        row = Region(_REGION, STRUCTURE, region_color(_REGION))
        return structure_state(self._index, mask, row)

    def _segmentation(self, mask: NDArray[np.bool_], name: str) -> Segmentation:
        return Segmentation(
            mask.view(np.uint8),
            (Region(_REGION, name, region_color(_REGION)),),
            self._index.proposal.volume.geometry,
        )
