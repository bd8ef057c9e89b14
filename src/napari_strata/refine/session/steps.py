"""The history of a refinement: its done and undone steps."""

from __future__ import annotations

from collections.abc import Callable

from napari_strata.refine.history.journal import JournalStep
from napari_strata.refine.session.edit_session import Change, EditSession


class Steps:
    """Steps of a case, `work.steps`.

    Parameters
    ----------
    session : EditSession
        The case.
    """

    def __init__(self, session: EditSession) -> None:
        self._session = session

    @property
    def done(self) -> tuple[str, ...]:
        """Names of the steps that are done, oldest first."""
        return tuple(step.name for step in self._session.journal.done)

    @property
    def undone(self) -> tuple[str, ...]:
        """Names of the undone steps, in the order of redoing."""
        return tuple(step.name for step in reversed(self._session.journal.undone))

    def undo(self) -> str | None:
        """Undo the last step. Return its name, or None if there is none."""
        with self._session.lock:
            done = len(self._session.journal.done)
            if not done:
                return None
            self.jump(done - 1)
            return self.undone[0]

    def redo(self) -> str | None:
        """Redo the step that was undone last. Return its name, or None if there is none."""
        with self._session.lock:
            if not self._session.journal.undone:
                return None
            self.jump(len(self._session.journal.done) + 1)
            return self.done[-1]

    def jump(self, step: int) -> None:
        """Undo or redo until exactly `step` steps are done; 0 is the start.

        Raises
        ------
        EditError
            If the history has no such step.
        """
        self._session.jump(step)

    def carry_out(self, steps: list[JournalStep], *, done: int, next_id: int) -> None:
        """Carry out the steps of another journal, then undo those past the first `done`.

        Parameters
        ----------
        steps : list of JournalStep
            The steps, oldest first.
        done : int
            Number of steps that stay done.
        next_id : int
            The next unused region id in that journal's case.

        Raises
        ------
        EditError
            If a step cannot be carried out here.
        """
        self._session.carry_out(steps, done=done, next_id=next_id)

    def on_change(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call `callback(change)` after every edit, undo and redo.

        Returns
        -------
        callable
            A function that stops the calls.
        """
        return self._session.listen(callback)
