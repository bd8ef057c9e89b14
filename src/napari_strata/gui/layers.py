"""Volumes and segmentations as napari layers, and back (no Qt).

Layers are shown with a diagonal scale in mm and a translation that puts the middle of the grid where it lies in the
patient, along (inferior, posterior, left). Layers of one scan therefore coincide, two scans of one examination lie over
each other, and an oblique scan is shown along its own axes. The true affine travels in the metadata, under the keys
that other medical readers of napari use, and is what an export is written with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.errors import GeometryError
from napari_strata.io.modality import guess_modality
from napari_strata.refine.refinement import Refinement
from napari_strata.volume import Geometry, Modality, Region, Segmentation, Volume, default_regions, region_color, smallest_label_dtype

if TYPE_CHECKING:
    import napari.layers
    from napari.utils.colormaps import CyclicLabelColormap

LayerTuple = tuple[Any, dict[str, Any], str]
"""(data, keyword arguments of the layer, "image" or "labels")."""

METADATA_KEY = "strata"
"""Where our own facts about a layer stand in its metadata."""
EXPLAINS = "explains"
"""The fact by which a map that explains a proposal is known; it is no scan to work on."""

_MOST_CYCLIC = 2**16
"""Colours that napari's cyclic map of labels may have."""
_LEAST_COLORS = 2**12
USUAL_IDS = _LEAST_COLORS - 1
"""Ids up to here have a colour from the start."""
AXIS_LABELS = ("z", "y", "x")
UNITS = ("mm", "mm", "mm")
_TO_DISPLAY = -np.eye(3)[::-1]
"""RAS+ -> napari's world axes (inferior, posterior, left)."""


def image_tuple(volume: Volume) -> LayerTuple:
    """Give a scan as an image layer tuple, grey, with a window that suits its modality."""
    from napari_strata.gui.windows import contrast_limits, default_preset

    facts = {key: getattr(volume, key) for key in ("modality", "name", "path", "notes", "index", "series")}
    limits = contrast_limits(volume.data, volume.modality, default_preset(volume.modality))
    kwargs = {
        "name": volume.name if volume.index is None else f"{volume.name}, volume {volume.index}",
        "colormap": "gray",
        "contrast_limits": limits,
        "interpolation2d": "linear",
        "rendering": "mip" if volume.modality == "ct" else "attenuated_mip",
    }
    return np.asarray(volume.data), {**kwargs, **grid_kwargs(volume.geometry, facts)}, "image"


def labels_tuple(segmentation: Segmentation, *, name: str, opacity: float = 0.45) -> LayerTuple:
    """Give labels as a labels layer tuple with the colours and names of its region table."""
    facts = {"regions": segmentation.regions}
    kwargs = {
        "name": name,
        "opacity": opacity,
        "colormap": region_colormap(segmentation.regions),
        "features": region_features(segmentation.regions),
    }
    return segmentation.labels, {**kwargs, **grid_kwargs(segmentation.geometry, facts)}, "labels"


def case_labels_tuple(work: Refinement, *, name: str) -> LayerTuple:
    """Give a refinement as a labels layer tuple whose type leaves room for regions to come."""
    labels: NDArray[np.unsignedinteger] = work.labels.astype(roomy_dtype(work.next_id))
    data, kwargs, kind = labels_tuple(Segmentation(labels, work.regions, work.volume.geometry), name=name)
    kwargs["colormap"] = region_colormap(work.regions, capacity=color_capacity(work.next_id))
    return data, kwargs, kind


def roomy_dtype(next_id: int) -> type[np.unsignedinteger]:
    """Give a label type that leaves room for as many regions again, so that it hardly ever changes: napari shows another type anew."""
    return np.uint16 if next_id < 2**15 else np.uint32


def color_capacity(top: int) -> int:
    """Give how many ids get a colour ahead of need, so that colours are made anew only now and then: 4095, 16383 ..."""
    colors = _LEAST_COLORS
    while colors <= top:
        colors *= 4
    return colors - 1


def similarity_tuple(similarity: NDArray[np.float32], placed: Mapping[str, Any], *, name: str) -> LayerTuple:
    """Give a similarity map (z, y, x) as an image layer tuple.

    Parameters
    ----------
    similarity : (z, y, x) float32 array
        In [0, 1]: `similarity_map(...)[proposal.supervoxels]`.
    placed : mapping
        Where it lies: `grid_kwargs` or `matching_grid_kwargs`.
    name : str
        The layer's name.
    """
    return _map_tuple(similarity, placed, "similarity", name=name, colormap="inferno")


def confidence_tuple(confidence: NDArray[np.float32], placed: Mapping[str, Any], *, name: str) -> LayerTuple:
    """Give a confidence map (z, y, x) in [0, 1] as an image layer tuple; see `similarity_tuple`."""
    return _map_tuple(confidence, placed, "confidence", name=name, colormap="viridis")


def feature_colors_tuple(colors: NDArray[np.uint8], placed: Mapping[str, Any], *, name: str) -> LayerTuple:
    """Give feature colours (z, y, x, 3), RGB from 0 to 255, as an image layer tuple; see `similarity_tuple`."""
    shown = {"name": name, "rgb": True}
    return colors, {**placed, **shown, "metadata": _explaining(placed, "features")}, "image"


def _map_tuple(values: NDArray[np.float32], placed: Mapping[str, Any], what: str, *, name: str, colormap: str) -> LayerTuple:
    shown = {"name": name, "colormap": colormap, "contrast_limits": (0.0, 1.0)}
    return values, {**placed, **shown, "metadata": _explaining(placed, what)}, "image"


def _explaining(placed: Mapping[str, Any], what: str) -> dict[str, Any]:
    metadata = dict(placed.get("metadata", {}))
    return {**metadata, METADATA_KEY: {**metadata.get(METADATA_KEY, {}), EXPLAINS: what}}


def grid_kwargs(geometry: Geometry, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give the keyword arguments that place a layer on `geometry`: scale, translate, units, axis labels, metadata."""
    spacing = geometry.spacing_zyx_mm
    middle = (np.asarray(geometry.shape_zyx) - 1) / 2
    translate = _TO_DISPLAY @ geometry.world_from_voxel(middle) - spacing * middle
    metadata = {
        "affine": np.array(geometry.affine),
        "spacing": spacing,
        "origin": np.array(geometry.affine[:3, 3]),
        "direction": geometry.affine[:3, :3] / spacing,
        "header": {} if geometry.file is None else {"format": geometry.file.kind, "suffix": geometry.file.suffix},
        METADATA_KEY: {"geometry": geometry, **(facts or {})},
    }
    return {"scale": spacing, "translate": translate, "units": UNITS, "axis_labels": AXIS_LABELS, "metadata": metadata}


def matching_grid_kwargs(layer: napari.layers.Layer, geometry: Geometry, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give the keyword arguments that lay a new layer exactly over `layer`, whoever made it.

    The layer's own scale, translation, units and axis labels are copied, so that napari's scale bar and linked views
    keep working; the metadata are ours.
    """
    placed = {"scale": layer.scale, "translate": layer.translate, "units": layer.units, "axis_labels": layer.axis_labels}
    return {**grid_kwargs(geometry, facts), **placed}


def region_colormap(regions: Iterable[Region], *, capacity: int = 0, hidden: Collection[int] = ()) -> CyclicLabelColormap:
    """Give a napari colormap with the table's colours; background is clear.

    It is a cycle, long enough for no id to come round again below 65,536: napari makes the colours of 16-bit labels from a
    cycle in no time, from a dictionary in a tenth of a second.

    Parameters
    ----------
    regions : iterable of Region
        The table.
    capacity : int
        Ids up to here get their default colour too, so that the map need not change with every step of a slider.
    hidden : collection of int
        Ids that are not drawn.
    """
    from napari.utils.colormaps import CyclicLabelColormap

    colors = {region.id: region.color for region in regions}
    top = min(max([capacity, 1, *colors]), _MOST_CYCLIC - 1)
    rgba = np.array(_default_colors(top))
    for number, color in colors.items():
        rgba[(number - 1) % top + 1, :3] = np.array(color, np.float32) / np.float32(255)
    rgba[[0, *((number - 1) % top + 1 for number in hidden)]] = 0
    return CyclicLabelColormap(colors=rgba)


@lru_cache(maxsize=8)
def _default_colors(top: int) -> NDArray[np.float32]:
    """Give the default colours of the ids 0 .. top, (top + 1, 4) RGBA from 0 to 1; not to be written in."""
    rgb = np.array([region_color(number) for number in range(top + 1)], np.float32)
    return np.column_stack([rgb / np.float32(255), np.ones(top + 1, np.float32)])


def region_features(regions: Iterable[Region]) -> dict[str, list[Any]]:
    """Give the features table that makes napari show a region's name under the cursor."""
    rows = [(0, "background"), *((region.id, region.name) for region in regions)]
    return {"index": [row[0] for row in rows], "region": [row[1] for row in rows]}


def layer_facts(layer: napari.layers.Layer) -> dict[str, Any]:
    """Give what we know of a layer that we made, else an empty dict."""
    facts = layer.metadata.get(METADATA_KEY, {})
    return facts if isinstance(facts, dict) else {}


def is_scan(layer: napari.layers.Layer) -> bool:
    """Say whether a layer can be worked on: a single-resolution 3D grey image, no map of ours."""
    from napari.layers import Image

    plain = isinstance(layer, Image) and layer.ndim == 3 and not layer.rgb and not layer.multiscale
    return plain and EXPLAINS not in layer_facts(layer)


def what_to_do(layers: Iterable[napari.layers.Layer]) -> dict[str, str]:
    """Say what a person can do about layers among which there is no scan; empty where opening one is all there is to do."""
    from napari.layers import Image

    series = any(isinstance(layer, Image) and layer.ndim - 2 * layer.rgb > 3 for layer in layers)
    return {"none": "Several volumes in one layer: Open scan… takes one"} if series else {}


def volume_from_layer(layer: napari.layers.Layer, modality: Modality | None = None) -> Volume:
    """Make a Volume from any 3D image layer; see `volume_from_parts`."""
    if not is_scan(layer):
        raise GeometryError(f"Layer '{layer.name}' is not a 3D grey image. Choose one scan, or open one volume of the series.")
    attributes = {"scale": layer.scale, "units": layer.units, "metadata": layer.metadata, "name": layer.name}
    volume = volume_from_parts(layer.data, attributes)
    return volume if modality is None else replace(volume, modality=modality)


def volume_from_parts(data: ArrayLike, attributes: Mapping[str, Any]) -> Volume:
    """Make a Volume from the data and the attributes of an image layer.

    Parameters
    ----------
    data : (z, y, x) array
        The layer's data.
    attributes : mapping
        `scale`, and where there are any `metadata`, `units`, `name`.

    Returns
    -------
    Volume
        With the geometry we stored; else the affine that another reader left in the metadata; else the layer's scale.

    Raises
    ------
    GeometryError
        If the data are not 3D or the geometry cannot be used.
    """
    array = np.asarray(data)
    if array.ndim != 3:
        raise GeometryError(f"A scan has three axes, this layer has {array.ndim}. Choose one volume of the series.")
    facts = attributes.get("metadata", {}).get(METADATA_KEY) or {}
    if not np.isfinite(array).all():
        array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0)
    return Volume(
        data=array,
        geometry=geometry_from_parts(array.shape, attributes),
        modality=facts.get("modality") or guess_modality(array),
        name=str(facts.get("name") or attributes.get("name") or "scan"),
        path=str(facts.get("path", "")),
        notes=tuple(facts.get("notes", ())),
        index=facts.get("index"),
        series=facts.get("series"),
    )


def segmentation_from_parts(data: ArrayLike, attributes: Mapping[str, Any]) -> Segmentation:
    """Make a Segmentation from the data and the attributes of a labels layer; unknown labels get default rows."""
    array = np.asarray(data)
    if array.ndim != 3:
        raise GeometryError(f"Labels of a scan have three axes, this layer has {array.ndim}. Choose one volume of the series.")
    if array.size and int(array.min()) < 0:
        raise GeometryError("Labels below 0 cannot be written. Renumber them from 1, with 0 for background.")
    labels = array.astype(smallest_label_dtype(int(array.max(initial=0))))
    known = {region.id: region for region in (attributes.get("metadata", {}).get(METADATA_KEY) or {}).get("regions", ())}
    present = np.flatnonzero(np.bincount(labels.ravel()))
    table = tuple(known.get(row.id, row) for row in default_regions(present))
    return Segmentation(labels, table, geometry_from_parts(labels.shape, attributes))


def geometry_from_parts(shape: Sequence[int], attributes: Mapping[str, Any]) -> Geometry:
    """Find the geometry of a layer: ours, or another reader's affine where it fits the scale, or the scale alone."""
    shape_zyx = (int(shape[0]), int(shape[1]), int(shape[2]))
    metadata = attributes.get("metadata", {})
    stored = (metadata.get(METADATA_KEY) or {}).get("geometry")
    if isinstance(stored, Geometry) and stored.shape_zyx == shape_zyx:
        return stored
    spacing = np.abs(np.asarray(attributes.get("scale", (1.0, 1.0, 1.0)), dtype=np.float64)) * _mm_per_unit(attributes.get("units"))
    affine = _foreign_affine(metadata, spacing)
    return Geometry.from_spacing(shape_zyx, spacing) if affine is None else Geometry(shape_zyx, affine)


def has_known_orientation(layer: napari.layers.Layer) -> bool:
    """Say whether a layer tells where the patient's left is; a bare array does not."""
    geometry = layer_facts(layer).get("geometry")
    return isinstance(geometry, Geometry) or _foreign_affine(layer.metadata, np.abs(layer.scale) * _mm_per_unit(layer.units)) is not None


def _mm_per_unit(units: Sequence[Any] | None) -> NDArray[np.float64]:
    """Give mm per unit of each axis; pixels, and units that are no length, count as mm."""
    known = {"millimeter": 1.0, "mm": 1.0, "micrometer": 1e-3, "um": 1e-3, "nanometer": 1e-6, "centimeter": 10.0, "meter": 1e3}
    return np.array([known.get(str(unit), 1.0) for unit in (units or UNITS)])


def _foreign_affine(metadata: Mapping[str, Any], spacing: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Take another reader's affine where its voxel sizes agree with the layer's scale, in this or in the reverse axis order."""
    given = metadata.get("affine")
    affine = np.zeros(0) if given is None else np.asarray(given, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        return None
    if "LPS" in str(metadata.get("coordinate_system", "")).upper():
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    for order in ([0, 1, 2, 3], [2, 1, 0, 3]):
        if np.allclose(np.linalg.norm(affine[:3, order[:3]], axis=0), spacing, rtol=0.01):
            return affine[:, order]
    return None
