"""Controller of the region table and the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from napari_strata.errors import EditError
from napari_strata.gui.panel.editing import next_step_names
from napari_strata.gui.session.scan_case import ScanCase
from napari_strata.gui.tasks.notifications import notify_errors
from napari_strata.gui.widgets.dialogs import ask_doubled_name
from napari_strata.gui.widgets.edit_section import EditSection
from napari_strata.gui.widgets.list_sections import HistorySection, RegionsSection
from napari_strata.gui.widgets.region_names import known_names, remember_name
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.session.view import View


class RegionListController:
    """Keeps the region table and the history up to date, and carries out their commands.

    Parameters
    ----------
    regions : RegionsSection
        The region table.
    history : HistorySection
        The list of steps.
    edits : EditSection
        Its undo and redo buttons name their steps.
    require_case : callable
        Returns the case in hand, or raises `StrataError`.
    jump : callable
        Undoes or redoes until the given number of steps is done.
    """

    def __init__(
        self,
        regions: RegionsSection,
        history: HistorySection,
        edits: EditSection,
        *,
        require_case: Callable[[], ScanCase],
        jump: Callable[[int], None],
    ) -> None:
        self._regions, self._history, self._edits = regions, history, edits
        self._require_case = require_case
        self._paired: View | None = None
        table = regions.table
        table.rename_asked.connect(self._on_rename)
        table.side_of = self._side_of
        table.recolor_asked.connect(
            lambda region, rgb: self._edit_region(_recolor, region, rgb)
        )
        table.lock_asked.connect(
            lambda region, locked: self._edit_region(
                Refinement.lock if locked else Refinement.unlock, region
            )
        )
        table.show_asked.connect(self._on_show_region)
        table.asked.connect(self._on_menu)
        regions.outline_asked.connect(self._on_outline)
        history.jump_asked.connect(jump)

    def show(self, case: ScanCase | None) -> None:
        """Bring the lists up to date."""
        if case is None:
            self._regions.table.show_regions((), {})
            self._edits.show_history("", "")
            self._history.show_steps((), ())
            return
        work = case.work
        self._regions.table.show_regions(
            work.regions, case.statistics(), case.painter.hidden
        )
        self._show_pairs(case)
        self._edits.show_history(*next_step_names(work))
        self._history.show_steps(work.history, work.steps.undone)
        self._regions.outline.setChecked(case.painter.is_outlined)

    def _show_pairs(self, case: ScanCase) -> None:
        """Find the pairs in the case's thread, and show them when they are known."""
        view = case.work.view
        if not case.is_prepared or view is self._paired:
            return
        self._paired = view
        case.queue.submit(
            view.pairs,
            lambda pairs: (
                self._regions.table.regions.show_partners(pairs)
                if self._paired is view
                else None
            ),
        )

    def _edit_region(self, edit: Callable[..., None], region: int, *args: Any) -> None:
        with notify_errors():
            case = self._require_case()
            case.submit(partial(edit, case.work, region, *args))

    def _on_rename(self, region: int, name: str) -> None:
        """Rename a region; if another one has that name, ask what is meant."""
        with notify_errors():
            case = self._require_case()
            same = [
                row.id
                for row in case.work.regions
                if row.name == name and row.id != region
            ]
            answer = ask_doubled_name(self._regions, name) if same else "keep"
            if answer == "merge":
                case.submit(partial(case.work.merge, [same[0], region]))
            elif answer == "keep":
                case.submit(partial(rename_known, case.work, region, name))

    def _side_of(self, region: int) -> str:
        """Return "left" or "right" if a region lies clearly on that side of the scan."""
        case = self._require_case()
        geometry = case.work.proposal.volume.geometry
        middle = geometry.world_from_voxel((np.array(geometry.shape_zyx) - 1) / 2)
        with suppress(EditError):
            place = geometry.world_from_voxel(case.work.view.place_of(region))
            away = float(place[0] - middle[0])
            if abs(away) > _MIDDLE_MM:
                return "right" if away > 0 else "left"
        return ""

    def _on_show_region(self, region: int, is_shown: bool) -> None:
        with notify_errors():
            case = self._require_case()
            hidden = case.painter.hidden
            case.painter.hide(hidden - {region} if is_shown else hidden | {region})
            self.show(case)

    def _on_outline(self, is_on: bool) -> None:
        with notify_errors():
            self._require_case().painter.show_outline(is_on)

    def _on_menu(self, what: str, ids: Sequence[int]) -> None:
        with notify_errors():
            case = self._require_case()
            present = {row.id for row in case.work.regions}
            if what == "jump":
                case.submit(partial(case.work.view.place_of, ids[-1]), case.go_to)
            elif what in ("lock", "unlock"):
                case.submit(partial(_set_locks, case.work, ids, what == "lock"))
            else:
                hidden = {
                    "solo": present - set(ids),
                    "hide": case.painter.hidden | set(ids),
                    "show_all": set(),
                }[what]
                case.painter.hide(frozenset(hidden))
                self.show(case)


_MIDDLE_MM = 10.0
"""Half the width of the strip in the middle of a scan that is neither left nor right."""


def _recolor(work: Refinement, region: int, color: tuple[int, int, int]) -> None:
    work.edits.recolor(region, color)


def rename_known(work: Refinement, region: int, name: str) -> None:
    """Rename a region; a name from the built-in list also sets its colour.

    Any other name is remembered for later.
    """
    work.rename(region, name)
    known = known_names().get(name)
    if known is None:
        remember_name(name)
    elif next(row.color for row in work.regions if row.id == region) != known.color:
        work.edits.recolor(region, known.color)


def _set_locks(work: Refinement, ids: Sequence[int], locked: bool) -> None:
    for region in ids:
        (work.lock if locked else work.unlock)(region)
