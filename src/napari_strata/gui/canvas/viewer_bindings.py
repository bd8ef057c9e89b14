"""Callbacks and keys on a viewer that can all be removed again (no Qt)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import napari.viewer


class ViewerBindings:
    """Callbacks and key bindings on one viewer.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Where they hang until `remove`.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._unbind: list[Callable[[], object]] = []

    def on_event(self, emitter: Any, callback: Callable[..., None]) -> None:
        """Call back on a napari event."""
        emitter.connect(callback)
        self._unbind.append(lambda: emitter.disconnect(callback))

    def on_mouse(
        self, callbacks: list[Callable[..., Any]], callback: Callable[..., Any]
    ) -> None:
        """Call back on the mouse, through one of the viewer's callback lists."""
        callbacks.append(callback)
        self._unbind.append(lambda: callbacks.remove(callback))

    def on_keys(
        self, provider: Any, keys: Iterable[tuple[str, Callable[[], object]]]
    ) -> None:
        """Bind keys, in napari's notation, on the viewer or on a layer.

        napari's own bindings come back with `remove`.
        """
        for key, action in keys:
            provider.bind_key(key, _without_argument(action), overwrite=True)
            self._unbind.append(partial(provider.bind_key, key, None, overwrite=True))

    def on_remove(self, callback: Callable[[], object]) -> None:
        """Call back when the bindings are removed."""
        self._unbind.append(callback)

    def remove(self) -> None:
        """Remove every binding, the latest first."""
        while self._unbind:
            self._unbind.pop()()


def _without_argument(action: Callable[[], object]) -> Callable[[Any], None]:
    def run(_provider: Any) -> None:
        action()

    return run
