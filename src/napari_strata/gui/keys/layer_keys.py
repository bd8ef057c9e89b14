"""The keys of the action table, bound on the viewer and on each of our layers (no Qt).

napari asks the active layer first, then its class, and the viewer last. Its own keys for
labels, shapes and points (Escape, M, S, A, Shift+P, Shift+A ...) would therefore hide
ours. Bound on a layer's instance, ours come first; layers of other tools keep napari's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from napari_strata.gui.actions import When
from napari_strata.gui.canvas.layers import TAKES_KEYS, layer_facts
from napari_strata.gui.canvas.viewer_bindings import ViewerBindings

if TYPE_CHECKING:
    import napari.layers
    import napari.viewer

Keys = Iterable[tuple[str, Callable[[], object]]]
"""Keys in napari's notation, with what they call."""

_ALWAYS: tuple[When, ...] = ("always", "our layers")


class LayerKeys:
    """Binds the action table's keys, and those that answer what is on the canvas.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Its layers are followed until `close`.
    keys : callable
        Returns the keys for a `When`.
    """

    def __init__(
        self, viewer: napari.viewer.Viewer, keys: Callable[[When], Keys]
    ) -> None:
        self._viewer = viewer
        self._keys = keys
        self._bindings = ViewerBindings(viewer)
        self._answers = ViewerBindings(viewer)
        self._bound: dict[napari.layers.Layer, ViewerBindings] = {}
        self._answer: When | None = None
        self._bindings.on_keys(viewer, keys("always"))
        self._bindings.on_event(viewer.layers.events.inserted, self._on_inserted)
        self._bindings.on_event(viewer.layers.events.removed, self._on_removed)
        for layer in viewer.layers:
            self._bind_if_ours(layer)

    @property
    def answer(self) -> When | None:
        """The "preview" or "review" that Space answers now, else None."""
        return self._answer

    def bind(self, layer: napari.layers.Layer) -> None:
        """Bind the keys on one of our layers; may be called more than once."""
        if layer in self._bound:
            return
        self._bound[layer] = bindings = ViewerBindings(self._viewer)
        for when in _ALWAYS:
            bindings.on_keys(layer, self._keys(when))
        if self._answer is not None:
            self._answers.on_keys(layer, self._keys(self._answer))

    def release(self, layer: napari.layers.Layer) -> None:
        """Give a layer's keys back to napari."""
        if layer in self._bound:
            answer = self._answer
            self.set_answer(None)
            self._bound.pop(layer).remove()
            self.set_answer(answer)

    def set_answer(self, answer: When | None) -> None:
        """Bind the keys that answer a preview or a place, or give them back to napari."""
        if answer == self._answer:
            return
        self._answers.remove()
        self._answer = answer
        if answer is not None:
            for provider in (self._viewer, *self._bound):
                self._answers.on_keys(provider, self._keys(answer))

    def close(self) -> None:
        """Remove every key."""
        for layer in list(self._bound):
            self.release(layer)
        self.set_answer(None)
        self._bindings.remove()

    def _bind_if_ours(self, layer: napari.layers.Layer) -> None:
        if layer_facts(layer).get(TAKES_KEYS):
            self.bind(layer)

    def _on_inserted(self, event: Any) -> None:
        self._bind_if_ours(event.value)

    def _on_removed(self, event: Any) -> None:
        self.release(event.value)
