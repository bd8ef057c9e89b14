"""The mouse wheel scrolls the panel; it changes a value only where the focus is."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QScrollBar,
    QTabBar,
    QWidget,
)

_TURNS = (QAbstractSlider, QAbstractSpinBox, QComboBox, QTabBar)
"""Widgets that the wheel changes."""


class WheelGuard(QObject):
    """Keeps the wheel from changing widgets that do not have the focus.

    Parameters
    ----------
    root : QWidget
        Every widget in it is guarded. Buttons and combo boxes in it do not take the focus
        when they are clicked, so that keys still reach the canvas afterwards.
    """

    def __init__(self, root: QWidget) -> None:
        super().__init__(root)
        for widget in root.findChildren(QWidget):
            if isinstance(widget, (QAbstractButton, QComboBox, QTabBar)):
                widget.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            elif widget.focusPolicy() == Qt.FocusPolicy.WheelFocus:
                widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
            if isinstance(widget, _TURNS) and not isinstance(widget, QScrollBar):
                widget.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Leave the wheel to what is around a widget without the focus."""
        if (
            event is not None
            and event.type() == QEvent.Type.Wheel
            and isinstance(watched, QWidget)
            and not watched.hasFocus()
        ):
            event.ignore()
            return True
        return False
