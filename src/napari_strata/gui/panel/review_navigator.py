"""Review: takes a person from one uncertain place of the proposal to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Points
from napari.utils.notifications import show_info

from napari_strata.errors import StrataError
from napari_strata.gui.canvas.canvas import OVERLAY_COLOR
from napari_strata.gui.canvas.layers import OVERLAY_METADATA, overlay_scale
from napari_strata.gui.canvas.placement import mm_per_unit
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.notifications import notify_errors
from napari_strata.gui.widgets.list_sections import ReviewSection
from napari_strata.refine.suggestions.suggest import Suggestion

if TYPE_CHECKING:
    import napari.viewer

RING_NAME = "Strata place"
_SUGGESTIONS = 30
"""Places asked for beyond those already seen: enough to find one that is new."""
_RING_MM = 12.0
"""Diameter of the ring around a place, wide enough to leave the place itself visible."""


class ReviewNavigator:
    """Walks through the places of the case in hand that are most worth reviewing.

    Parameters
    ----------
    section : ReviewSection
        Shows why a place is worth reviewing.
    viewer : napari.viewer.Viewer
        The viewer that is moved there.
    require_case : callable
        Returns the case in hand, or raises `StrataError`.
    select : callable
        Selects the region there.
    on_place : callable
        Called with whether a place is shown, whose keys then work.
    """

    def __init__(
        self,
        section: ReviewSection,
        viewer: napari.viewer.Viewer,
        *,
        require_case: Callable[[], ScanCase],
        select: Callable[[int], None],
        on_place: Callable[[bool], None],
    ) -> None:
        self._section = section
        self._viewer = viewer
        self._require_case = require_case
        self._select = select
        self._on_place = on_place
        self._ring: Points | None = None
        self._seen: set[tuple[int, int, int]] = set()
        self._here: tuple[ScanCase, Suggestion] | None = None
        section.next_asked.connect(self.next)
        section.accept_asked.connect(self.accept)

    @property
    def here(self) -> Suggestion | None:
        """The place shown now, None before the first."""
        return None if self._here is None else self._here[1]

    def next(self) -> None:
        """Go to the next place that was not shown yet.

        What is unlike the rest of the scan comes first, then the most uncertain places.
        """
        with notify_errors():
            case = self._require_case()
            if case.queue.is_busy:
                self._section.show_place("Waits until the edit before is done …")
            case.submit(
                partial(
                    case.work.view.places_to_review, _SUGGESTIONS + len(self._seen)
                ),
                partial(self._go_to, case),
            )

    def accept(self) -> None:
        """Fix the place as it is, and go to the next.

        Strokes elsewhere then leave it alone.
        """
        with notify_errors():
            case = self._require_case()
            if self._here is None or self._here[0] is not case:
                raise StrataError("Go to a place first: Look next, or N.")
            place = self._here[1]
            case.submit(
                partial(case.work.edits.assign_at, [place.voxel_zyx], place.region),
                lambda _region: self.next(),
            )

    def leave(self) -> None:
        """Leave the place and hide its ring.

        The layer is kept: removing it would block the window for a moment.
        """
        if self._here is not None:
            self._on_place(False)
        self._here = None
        self._section.show_place("")
        if (
            self._ring is not None
            and self._ring in self._viewer.layers
            and self._ring.visible
        ):
            self._ring.visible = False

    def forget(self) -> None:
        """Leave the place and remove its ring: another case is in hand."""
        self.leave()
        if self._ring is not None and self._ring in self._viewer.layers:
            self._viewer.layers.remove(self._ring)
        self._ring = None

    def _go_to(self, case: ScanCase, suggestions: Sequence[Suggestion]) -> None:
        place = next(
            (one for one in suggestions if one.voxel_zyx not in self._seen), None
        )
        if place is None:
            self.forget()
            self._section.show_place("")
            self._seen.clear()
            show_info("No more places to look at; Look next starts over.")
            return
        self._seen.add(place.voxel_zyx)
        self._here = case, place
        case.go_to(place.voxel_zyx)
        self._select(place.region)
        self._section.show_place(f"{case.name_of(place.region)}: {place.reason}")
        self._show_ring(case, place)
        self._on_place(True)

    def _show_ring(self, case: ScanCase, place: Suggestion) -> None:
        """Draw a ring around the place."""
        labels = case.labels
        size = overlay_scale(labels)
        points = np.array([labels.data_to_world(place.voxel_zyx)]) / size
        if self._ring is not None and self._ring in self._viewer.layers:
            self._ring.data = points
            self._ring.visible = True
            return
        active = self._viewer.layers.selection.active
        self._ring = Points(
            points,
            name=RING_NAME,
            metadata=dict(OVERLAY_METADATA),
            scale=(size, size, size),
            size=_RING_MM / float(mm_per_unit(labels.units, RING_NAME).max()) / size,
            face_color="transparent",
            border_color=OVERLAY_COLOR,
            border_width=0.08,
            units=labels.units,
            axis_labels=labels.axis_labels,
        )
        self._viewer.add_layer(self._ring)
        self._viewer.layers.selection.active = active
