"""The keys of the action table where the focus is outside the canvas.

Tables, buttons and combo boxes take letters and Space for themselves. While one of them
in our part of the window has the focus, its keys are looked up in the table first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qtpy.QtCore import QEvent, QKeyCombination, QObject, Qt
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QDockWidget,
    QLineEdit,
    QPlainTextEdit,
    QTextEdit,
    QWidget,
)

_LAYER_DOCKS = ("layer list", "layer controls")
"""napari's docks in which our keys work too."""
_NUMBER = frozenset("0123456789.,+-")
"""What a spin box takes."""
_REPEATED = ("[", "]")
"""Keys that repeat while they are held."""


class FocusKeys(QObject):
    """Runs the actions of keys that are pressed in the panel, its planes or the layer list.

    Parameters
    ----------
    panel : QWidget
        The panel.
    action_for : callable
        Returns what a key, such as "Ctrl+Z", does now; None if it is nothing of ours.
    also : callable
        Returns other widgets of ours, such as the two other planes.
    """

    def __init__(
        self,
        panel: QWidget,
        action_for: Callable[[str], Callable[[], object] | None],
        also: Callable[[], list[QWidget]],
    ) -> None:
        super().__init__(panel)
        self._panel = panel
        self._action_for = action_for
        self._also = also
        self._watched: QWidget | None = None
        application = QApplication.instance()
        if isinstance(application, QApplication):
            application.focusChanged.connect(self._on_focus)
            self._on_focus(None, application.focusWidget())

    def close(self) -> None:
        """Stop listening."""
        application = QApplication.instance()
        if isinstance(application, QApplication):
            application.focusChanged.disconnect(self._on_focus)
        self._on_focus(None, None)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Run the action of a key before the widget with the focus sees it."""
        if not isinstance(event, QKeyEvent) or not isinstance(watched, QWidget):
            return False
        if event.type() not in (QEvent.Type.ShortcutOverride, QEvent.Type.KeyPress):
            return False
        if _is_typing(watched, event):
            return False
        key = key_text(event)
        action = self._action_for(key)
        opens_list = key == "Space" and isinstance(watched, QComboBox)
        if action is None and not opens_list:
            return False
        event.accept()
        is_press = event.type() == QEvent.Type.KeyPress
        if is_press and action and (not event.isAutoRepeat() or key in _REPEATED):
            action()
        return True

    def _on_focus(self, _old: QWidget | None, new: QWidget | None) -> None:
        watched = new if new is not None and self._is_ours(new) else None
        if watched is self._watched:
            return
        if self._watched is not None:
            self._watched.removeEventFilter(self)
            self._watched.destroyed.disconnect(self._on_gone)
        self._watched = watched
        if watched is not None:
            watched.installEventFilter(self)
            watched.destroyed.connect(self._on_gone)

    def _on_gone(self, _gone: object = None) -> None:
        self._watched = None

    def _is_ours(self, widget: QWidget) -> bool:
        chain = list(_with_parents(widget))
        if any(part in chain for part in (self._panel, *self._also())):
            return True
        dock = next((part for part in chain if isinstance(part, QDockWidget)), None)
        return (
            dock is not None
            and dock.objectName() in _LAYER_DOCKS
            and any(part is dock.parentWidget() for part in _with_parents(self._panel))
        )


def _with_parents(widget: QWidget | None) -> Iterator[QWidget]:
    while widget is not None:
        yield widget
        widget = widget.parentWidget()


def key_text(event: QKeyEvent) -> str:
    """Return the key of an event as the action table writes it, such as "Shift+M"."""
    modifiers = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
    combination = QKeyCombination(modifiers, Qt.Key(event.key()))
    text = QKeySequence(combination).toString(QKeySequence.SequenceFormat.PortableText)
    return {"Esc": "Escape"}.get(text, text)


def _is_typing(widget: QWidget, event: QKeyEvent) -> bool:
    """Return whether a key writes something where the focus is."""
    commands = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier
    text = event.text()
    writes = bool(text) and text.isprintable() and not event.modifiers() & commands
    if isinstance(widget, QAbstractSpinBox):
        return writes and text in _NUMBER
    if isinstance(widget, QLineEdit) and not widget.isReadOnly():
        undoes = event.matches(QKeySequence.StandardKey.Undo)
        redoes = event.matches(QKeySequence.StandardKey.Redo)
        return (
            writes
            or (undoes and widget.isUndoAvailable())
            or (redoes and widget.isRedoAvailable())
            or (event.key() == Qt.Key.Key_Escape and _edits_a_cell(widget))
        )
    return writes and isinstance(widget, (QTextEdit, QPlainTextEdit))


def _edits_a_cell(line: QLineEdit) -> bool:
    """Return whether a line edit is the editor of a table's cell."""
    parent = line.parentWidget()
    return parent is not None and parent.objectName() == "qt_scrollarea_viewport"
