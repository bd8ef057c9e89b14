"""The mouse on the canvas: it shows the position, and clicks select regions (no Qt)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_strata.gui.canvas.orientation import describe_position
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.volume import BACKGROUND, Volume

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

_CLICK_PIXELS = 3
"""A press that moves further than this is a drag of the view, not a click."""


class Cursor:
    """Follows the mouse over the scan in hand.

    Parameters
    ----------
    show_text : callable
        Called with the text for the position under the cursor, "" off the scan.
    click_region : callable
        Called with a region's id, and whether it is added to the selection.
    """

    def __init__(
        self,
        show_text: Callable[[str], None],
        click_region: Callable[[int, bool], None],
    ) -> None:
        self._show_text = show_text
        self._click_region = click_region
        self._image: napari.layers.Image | None = None
        self._volume: Volume | None = None
        self._case: ScanCase | None = None

    def follow(
        self,
        image: napari.layers.Image | None,
        volume: Volume | None,
        case: ScanCase | None,
    ) -> None:
        """Follow the mouse over another scan."""
        self._image, self._volume, self._case = image, volume, case

    def on_move(self, viewer: napari.viewer.Viewer, event: Any) -> None:
        """Show the position, the intensity and the region under the cursor (2D only)."""
        text = ""
        if (
            self._image is not None
            and self._volume is not None
            and viewer.dims.ndisplay == 2
        ):
            voxel = self._image.world_to_data(event.position[-3:])[-3:]
            unit = "HU" if self._volume.modality == "ct" else ""
            text = describe_position(
                self._volume.geometry, self._volume.data, voxel, unit=unit
            )
            if text and (region := self._region_at(event)) is not None:
                text += f"\n{self._name_of(region)}"
        self._show_text(text)

    def on_drag(self, viewer: napari.viewer.Viewer, event: Any) -> Generator[None]:
        """Select the region under a click; a drag still moves the view."""
        start, moved = np.asarray(event.pos), False
        yield
        while event.type == "mouse_move":
            moved = moved or bool(
                np.abs(np.asarray(event.pos) - start).max() > _CLICK_PIXELS
            )
            yield
        active = viewer.layers.selection.active
        if (
            moved
            or event.button != 1
            or (active is not None and str(active.mode) != "pan_zoom")
        ):
            return
        region = self._region_at(event)
        if region is not None and region != BACKGROUND:
            self._click_region(
                region, "Control" in event.modifiers or "Shift" in event.modifiers
            )

    def _region_at(self, event: Any) -> int | None:
        case = self._case
        if case is None or not case.is_shown:
            return None
        return case.region_under(
            event.position, event.view_direction, list(event.dims_displayed)
        )

    def _name_of(self, region: int) -> str:
        if region == BACKGROUND or self._case is None:
            return "background"
        return next(
            (
                f"{row.name} (id {row.id})"
                for row in self._case.work.regions
                if row.id == region
            ),
            "",
        )
