"""The manifest's sample data: synthetic scans with their true labels (no Qt)."""

from __future__ import annotations

from napari_strata.gui.canvas.layers import LayerTuple, image_tuple, labels_tuple


def sample_head_t1() -> list[LayerTuple]:
    """Make the sample head, T1-weighted MR."""
    return _sample("head_t1")


def sample_chest_ct() -> list[LayerTuple]:
    """Make the sample chest and abdomen CT."""
    return _sample("chest_ct")


def sample_thick_t2() -> list[LayerTuple]:
    """Make the sample head, T2-weighted MR in thick slices."""
    return _sample("thick_t2")


def _sample(name: str) -> list[LayerTuple]:
    """Make a sample scan and a hidden layer with its true labels."""
    from napari_strata.synthesis.samples import make_sample

    volume, truth = make_sample(name)
    data, kwargs, kind = labels_tuple(truth, name=f"{volume.name} truth")
    return [image_tuple(volume), (data, {**kwargs, "visible": False}, kind)]
