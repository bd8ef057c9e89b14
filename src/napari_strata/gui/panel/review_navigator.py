"""Takes a person from one place worth a look to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Points
from napari.utils.notifications import show_info

from napari_strata.errors import StrataError
from napari_strata.gui.canvas.placement import mm_per_unit
from napari_strata.gui.panel.editing import reported
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.widgets.list_sections import ReviewSection
from napari_strata.refine.suggestions.suggest import Suggestion

if TYPE_CHECKING:
    import napari.viewer

MARK_NAME = "Strata place"
_MOST = 30
_RING_MM = 12.0
_COLOR = "#ffd75a"


class ReviewNavigator:
    """Walks through the suggestions of the case in hand.

    Parameters
    ----------
    section : ReviewSection
        Says why a place is worth a look.
    viewer : napari.viewer.Viewer
        What is moved there.
    require_case : callable
        Gives the case in hand, or raises `StrataError`.
    select : callable
        Selects the region there.
    """

    def __init__(
        self,
        section: ReviewSection,
        viewer: napari.viewer.Viewer,
        *,
        require_case: Callable[[], ScanCase],
        select: Callable[[int], None],
    ) -> None:
        self._section = section
        self._viewer = viewer
        self._require_case = require_case
        self._select = select
        self._mark: Points | None = None
        self._seen: set[tuple[int, int, int]] = set()
        self._here: tuple[ScanCase, Suggestion] | None = None
        section.next_asked.connect(self.next)
        section.accept_asked.connect(self.accept)

    @property
    def here(self) -> Suggestion | None:
        """The place where the person is, None before the first."""
        return None if self._here is None else self._here[1]

    def next(self) -> None:
        """Go to the place most worth a look that was not seen yet."""
        with reported():
            case, count = self._require_case(), _MOST + len(self._seen)
            case.submit(
                lambda: case.work.view.suggestions(count),
                partial(self._go, case),
            )

    def accept(self) -> None:
        """Keep the place as it is shown, so that strokes elsewhere leave it alone.

        Go on to the next.
        """
        with reported():
            case = self._require_case()
            if self._here is None or self._here[0] is not case:
                raise StrataError("Go to a place first: Next place, or N.")
            place = self._here[1]
            case.submit(
                partial(case.work.edits.assign_at, [place.voxel_zyx], place.region),
                lambda _region: self.next(),
            )

    def leave(self) -> None:
        """Leave the place, and hide its ring: taking a layer away would hold the window up."""
        if self._here is not None:
            self._here[0].accept_keys(False)
        self._here = None
        self._section.show_place("")
        if (
            self._mark is not None
            and self._mark in self._viewer.layers
            and self._mark.visible
        ):
            self._mark.visible = False

    def forget(self) -> None:
        """Leave the place, and take its ring away: something else is in hand."""
        self.leave()
        if self._mark is not None and self._mark in self._viewer.layers:
            self._viewer.layers.remove(self._mark)
        self._mark = None

    def _go(self, case: ScanCase, found: Sequence[Suggestion]) -> None:
        place = next((one for one in found if one.voxel_zyx not in self._seen), None)
        if place is None:
            self.forget()
            self._seen.clear()
            show_info("No more places to look at; Next place starts over.")
            return
        self._seen.add(place.voxel_zyx)
        self._here = case, place
        case.go_to(place.voxel_zyx)
        self._select(place.region)
        self._section.show_place(f"{case.name_of(place.region)}: {place.reason}")
        self._show_mark(case, place)
        case.accept_keys(True, {"Space": self.accept})

    def _show_mark(self, case: ScanCase, place: Suggestion) -> None:
        """Ring the place on the canvas."""
        labels = case.labels
        points = np.array([labels.data_to_world(place.voxel_zyx)])
        if self._mark is not None and self._mark in self._viewer.layers:
            self._mark.data = points
            self._mark.visible = True
            return
        active = self._viewer.layers.selection.active
        self._mark = Points(
            points,
            name=MARK_NAME,
            size=_RING_MM / float(mm_per_unit(labels.units, MARK_NAME).max()),
            face_color="transparent",
            border_color=_COLOR,
            border_width=0.08,
            units=labels.units,
            axis_labels=labels.axis_labels,
        )
        self._viewer.add_layer(self._mark)
        self._viewer.layers.selection.active = active
