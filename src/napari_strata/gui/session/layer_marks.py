"""Marks in the metadata of the layers that belong to one case.

A case file's reader and a panel that was closed leave these marks, so that a panel opened
later continues the case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from napari_strata.gui.canvas.layers import is_scan, layer_facts
from napari_strata.gui.canvas.placement import METADATA_KEY
from napari_strata.refine.session.refinement import Refinement

if TYPE_CHECKING:
    import napari.layers


def mark_layer(layer: napari.layers.Layer, **facts: object) -> None:
    """Note facts on a layer: `work`, its refinement, and `saved`, the saved history."""
    layer.metadata[METADATA_KEY] = {**layer_facts(layer), **facts}


def unmark_layer(layer: napari.layers.Layer) -> None:
    """Remove the refinement from a layer's metadata: another one takes its place."""
    layer.metadata[METADATA_KEY] = {
        key: fact
        for key, fact in layer_facts(layer).items()
        if key not in ("work", "saved")
    }


def marked_cases(
    layers: Iterable[napari.layers.Layer],
) -> Iterator[tuple[napari.layers.Image, Refinement, napari.layers.Labels]]:
    """Find every scan and labels layer that share a refinement."""
    all_layers = list(layers)
    works = [
        (layer, work)
        for layer in all_layers
        if isinstance(work := layer_facts(layer).get("work"), Refinement)
    ]
    for labels, work in works:
        if is_scan(labels):
            continue
        for scan, other in works:
            if other is work and is_scan(scan):
                yield scan, work, labels
                break
