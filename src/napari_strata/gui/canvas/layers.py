"""Volumes and segmentations as napari layers, and back (no Qt).

Layers are shown with a diagonal scale in mm and a translation that puts the middle of
the grid where it lies in the patient, along (inferior, posterior, left). Layers of one
scan therefore coincide, two scans of one examination lie over each other, and an
oblique scan is shown along its own axes.

The true affine is kept in the metadata, also under the keys of napari-nifti (x, y, z
order), so that its writer works too. Back from a layer, `placement.place` finds where
it lies.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_strata.errors import GeometryError
from napari_strata.gui.canvas.placement import (
    METADATA_KEY,
    PLACING,
    Placement,
    layer_name,
    lies_straight,
    place,
    placing_of,
    spatial_shape,
    world_linear,
    world_of,
)
from napari_strata.io.intensities import check_varies, finite, plain_type
from napari_strata.io.modality import guess_modality
from napari_strata.refine.session.refinement import Refinement
from napari_strata.volume import (
    Geometry,
    Modality,
    Region,
    Segmentation,
    Volume,
    default_regions,
    label_ids,
    region_color,
    smallest_label_dtype,
)

if TYPE_CHECKING:
    import napari.layers
    from napari.utils.colormaps import CyclicLabelColormap

logger = logging.getLogger(__name__)

LayerTuple = tuple[Any, dict[str, Any], str]
"""(data, keyword arguments of the layer, "image" or "labels")."""

EXPLAINS = "explains"
"""Key of the fact that marks a map of the explain section; such a map is no scan."""

TAKES_KEYS = "takes_keys"
"""Key of the fact that marks an overlay, stroke or preview layer: our keys work on it."""
OVERLAY_METADATA = {METADATA_KEY: {TAKES_KEYS: True}}
"""Metadata of our overlays: ruler, cut line, crosshair, ring and outline."""

_MAX_CYCLIC = 2**16
"""Colours that napari's cyclic map of labels may have."""
_MIN_COLORS = 2**12
"""Colours made from the start: more than the regions of nearly every case."""
USUAL_IDS = _MIN_COLORS - 1
"""Ids up to this have a colour from the start."""
AXIS_LABELS = ("z", "y", "x")
UNITS = ("mm", "mm", "mm")


def image_tuple(volume: Volume) -> LayerTuple:
    """Return a scan as a grey image layer tuple, with the default window of its modality."""
    from napari_strata.gui.canvas.window_presets import contrast_limits, default_preset

    facts = {
        key: getattr(volume, key)
        for key in ("modality", "name", "path", "notes", "index", "series")
    }
    limits = contrast_limits(
        volume.data, volume.modality, default_preset(volume.modality)
    )
    kwargs = {
        "name": (
            volume.name
            if volume.index is None
            else f"{volume.name}, volume {volume.index}"
        ),
        "colormap": "gray",
        "contrast_limits": limits,
        "interpolation2d": "linear",
        "rendering": "mip" if volume.modality == "ct" else "attenuated_mip",
    }
    return (
        np.asarray(volume.data),
        {**kwargs, **grid_kwargs(volume.geometry, facts)},
        "image",
    )


def labels_tuple(
    segmentation: Segmentation, *, name: str, opacity: float = 0.45
) -> LayerTuple:
    """Return labels as a labels layer tuple with the colours and names of their region table."""
    facts = {"regions": segmentation.regions}
    kwargs = {
        "name": name,
        "opacity": opacity,
        "colormap": region_colormap(segmentation.regions),
        "features": region_features(segmentation.regions),
    }
    return (
        segmentation.labels,
        {**kwargs, **grid_kwargs(segmentation.geometry, facts)},
        "labels",
    )


def case_labels_tuple(work: Refinement, *, name: str) -> LayerTuple:
    """Return a refinement as a labels layer tuple.

    Its type and colours leave room for regions to come.
    """
    labels: NDArray[np.unsignedinteger] = work.labels.astype(
        roomy_dtype(work.view.next_id)
    )
    data, kwargs, kind = labels_tuple(
        Segmentation(labels, work.regions, work.proposal.volume.geometry), name=name
    )
    kwargs["colormap"] = region_colormap(
        (*work.view.state.expected_rows(), *work.regions),
        capacity=color_capacity(work.view.next_id),
    )
    return data, kwargs, kind


def roomy_dtype(next_id: int) -> type[np.unsignedinteger]:
    """Return a label type with room for twice the ids in use.

    napari rebuilds the layer when the type changes, so it should hardly ever change.
    """
    return np.uint16 if next_id < 2**15 else np.uint32


def color_capacity(top: int) -> int:
    """Return how many ids get a colour ahead of need: 4095, 16383 ...

    Colours are then remade only now and then.
    """
    colors = _MIN_COLORS
    while colors <= top:
        colors *= 4
    return colors - 1


def similarity_tuple(
    similarity: NDArray[np.float32], placed: Mapping[str, Any], *, name: str
) -> LayerTuple:
    """Return a similarity map (z, y, x) as an image layer tuple.

    Parameters
    ----------
    similarity : (z, y, x) float32 array
        In [0, 1]: `similarity_map(...)[proposal.supervoxels]`.
    placed : mapping
        From `grid_kwargs` or `matching_grid_kwargs`.
    name : str
        The layer's name.
    """
    return _map_tuple(similarity, placed, "similarity", name=name, colormap="inferno")


def confidence_tuple(
    confidence: NDArray[np.float32], placed: Mapping[str, Any], *, name: str
) -> LayerTuple:
    """Return a confidence map (z, y, x) in [0, 1] as an image layer tuple.

    See `similarity_tuple`.
    """
    return _map_tuple(confidence, placed, "confidence", name=name, colormap="viridis")


def feature_colors_tuple(
    colors: NDArray[np.uint8], placed: Mapping[str, Any], *, name: str
) -> LayerTuple:
    """Return feature colours (z, y, x, 3), RGB from 0 to 255, as an image layer tuple.

    See `similarity_tuple`.
    """
    shown = {"name": name, "rgb": True}
    return (
        colors,
        {**placed, **shown, "metadata": _explaining(placed, "features")},
        "image",
    )


def _map_tuple(
    values: NDArray[np.float32],
    placed: Mapping[str, Any],
    what: str,
    *,
    name: str,
    colormap: str,
) -> LayerTuple:
    shown = {"name": name, "colormap": colormap, "contrast_limits": (0.0, 1.0)}
    return values, {**placed, **shown, "metadata": _explaining(placed, what)}, "image"


def _explaining(placed: Mapping[str, Any], what: str) -> dict[str, Any]:
    metadata = dict(placed.get("metadata", {}))
    return {
        **metadata,
        METADATA_KEY: {**metadata.get(METADATA_KEY, {}), EXPLAINS: what},
    }


def grid_kwargs(
    geometry: Geometry, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the keyword arguments that place a layer on a geometry.

    These are scale, translate, units, axis labels and metadata.
    """
    world = world_of(geometry)
    placed = {
        "scale": geometry.spacing_zyx_mm,
        "translate": world[:3, 3],
        "units": UNITS,
        "axis_labels": AXIS_LABELS,
    }
    return {
        **placed,
        "metadata": _metadata(geometry, {"world": world, **(facts or {})}),
    }


def matching_grid_kwargs(
    layer: napari.layers.Layer,
    geometry: Geometry,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments that lay a new 3D layer exactly over an existing one.

    The existing layer may be anyone's. Its transform, units and axis labels are copied,
    so that napari's scale bar and linked views keep working; the metadata are ours.
    """
    placement = place(level_shape(layer), placing_of(layer))
    placed = {"world": placement.world, "knows_sides": placement.knows_sides}
    return {
        **overlay_kwargs(layer),
        "metadata": _metadata(geometry, {**placed, **(facts or {})}),
    }


def overlay_scale(layer: napari.layers.Layer) -> float:
    """Return the scale of an overlay over a scan: its thickest step, along every axis.

    napari steps through slices by the smallest scale of all layers. An overlay with a scale
    of 1 would make 137 steps of 25 thick slices, and the position would jump when it goes.
    """
    return float(np.abs(layer.extent.step[-3:]).max())


def overlay_kwargs(layer: napari.layers.Layer) -> dict[str, Any]:
    """Return the transform, units and axis labels of a layer, for a 3D layer over it.

    They are those of its last three axes.
    """
    spare = layer.ndim - 3
    named = {"units": layer.units[spare:], "axis_labels": layer.axis_labels[spare:]}
    if not spare:
        return {
            **{key: getattr(layer, key) for key in PLACING},
            "affine": np.array(layer.affine.affine_matrix),
            **named,
        }
    world = np.eye(4)
    world[:3, 3] = np.asarray(layer.data_to_world(np.zeros(3)), np.float64)[-3:]
    world[:3, :3] = world_linear(layer)
    if lies_straight(layer):
        return {"scale": np.diag(world)[:3], "translate": world[:3, 3], **named}
    return {"affine": world, **named}


def scan_data(layer: napari.layers.Layer) -> Any:
    """Return the array (z, y, x) of a layer at full resolution, without reading it.

    Axes before the last three have one step, which is selected.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    return data[(0,) * (len(data.shape) - 3)] if len(data.shape) > 3 else data


def level_shape(layer: napari.layers.Layer) -> tuple[int, ...]:
    """Return the shape of a layer's data; with several resolutions, that of the full one."""
    return tuple(
        int(n) for n in (layer.data[0] if layer.multiscale else layer.data).shape
    )


def _metadata(geometry: Geometry, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's metadata: our facts, and the keys of napari-nifti.

    The latter describe the array with its axes in the order x, y, z.
    """
    affine = np.array(geometry.affine[:, [2, 1, 0, 3]])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return {
        "affine": affine,
        "spacing": spacing,
        "origin": affine[:3, 3],
        "direction": affine[:3, :3] / spacing,
        "header": (
            {}
            if geometry.file is None
            else {"format": geometry.file.kind, "suffix": geometry.file.suffix}
        ),
        METADATA_KEY: {"geometry": geometry, **facts},
    }


def region_colormap(
    regions: Iterable[Region], *, capacity: int = 0, hidden: Collection[int] = ()
) -> CyclicLabelColormap:
    """Return a napari colormap with the table's colours; background is clear.

    It is a cyclic colormap, long enough that no id below 65,536 repeats: napari colours
    16-bit labels from a cycle at once, from a dictionary in a tenth of a second.

    Parameters
    ----------
    regions : iterable of Region
        The table.
    capacity : int
        Ids up to this get their default colour too, so that the map need not change
        with every step of the slider.
    hidden : collection of int
        Ids that are not drawn.
    """
    from napari.utils.colormaps import CyclicLabelColormap

    colors = {region.id: region.color for region in regions}
    top = min(max([capacity, 1, *colors]), _MAX_CYCLIC - 1)
    rgba = np.array(_default_colors(top))
    for number, color in colors.items():
        rgba[(number - 1) % top + 1, :3] = np.array(color, np.float32) / np.float32(255)
    rgba[[0, *((number - 1) % top + 1 for number in hidden)]] = 0
    return CyclicLabelColormap(colors=rgba)


@lru_cache(maxsize=8)
def _default_colors(top: int) -> NDArray[np.float32]:
    """Return the default colours of the ids 0 .. top, (top + 1, 4) RGBA from 0 to 1.

    The array is cached and must not be changed.
    """
    rgb = np.array([region_color(number) for number in range(top + 1)], np.float32)
    return np.column_stack([rgb / np.float32(255), np.ones(top + 1, np.float32)])


def region_features(regions: Iterable[Region]) -> dict[str, list[Any]]:
    """Return the features table with which napari shows a region's name under the cursor."""
    rows = [(0, "background"), *((region.id, region.name) for region in regions)]
    return {"index": [row[0] for row in rows], "region": [row[1] for row in rows]}


def layer_facts(layer: napari.layers.Layer) -> dict[str, Any]:
    """Return our facts about a layer, an empty dict if we did not make it."""
    facts = layer.metadata.get(METADATA_KEY, {})
    return facts if isinstance(facts, dict) else {}


def is_scan(layer: napari.layers.Layer) -> bool:
    """Return whether a layer can be used as a scan.

    A scan is a 3D grey image, maybe with more axes of one step each. Our own maps are
    excluded.
    """
    from napari.layers import Image

    if not isinstance(layer, Image) or layer.rgb or EXPLAINS in layer_facts(layer):
        return False
    shape = level_shape(layer)
    return len(shape) == 3 or (len(shape) > 3 and set(shape[:-3]) == {1})


def advice_without_scan(layers: Iterable[napari.layers.Layer]) -> dict[str, str]:
    """Return the advice for the list of scans if none of the layers is a scan.

    It is empty if the user only has to open a scan.
    """
    from napari.layers import Image

    series = any(
        isinstance(layer, Image) and layer.ndim - 2 * layer.rgb > 3 for layer in layers
    )
    return (
        {"none": "Several volumes in one layer: Open scan… takes one"} if series else {}
    )


def volume_from_layer(
    layer: napari.layers.Layer, modality: Modality | None = None
) -> Volume:
    """Make a Volume from any 3D image layer; see `volume_from_parts`."""
    if not is_scan(layer):
        shape = level_shape(layer)
        if len(shape) == 4 and shape[-1] == 1:
            spatial_shape(shape, f"Layer '{layer.name}' is not a 3D grey image: it")
        why = (
            "is not a 3D grey image"
            f" ({' x '.join(map(str, shape))}{', RGB' if getattr(layer, 'rgb', False) else ''})"
        )
        raise GeometryError(
            f"Layer '{layer.name}' {why}. Choose one scan, or open one volume of the"
            " series."
        )
    volume = volume_from_parts(
        layer.data, {**placing_of(layer), "multiscale": layer.multiscale}
    )
    return volume if modality is None else replace(volume, modality=modality)


def has_known_orientation(layer: napari.layers.Layer) -> bool:
    """Return whether a layer defines the patient's left side; a bare array does not."""
    return place(level_shape(layer), placing_of(layer)).knows_sides


def warn_assumptions(layer: napari.layers.Layer, volume: Volume) -> None:
    """Warn about what was assumed of a layer, beyond what its reader noted."""
    from napari.utils.notifications import show_warning

    noted = set(layer_facts(layer).get("notes", ()))
    new_notes = [note for note in volume.notes if note not in noted]
    if new_notes:
        show_warning(f"{layer.name}: {' '.join(new_notes)}")


def volume_from_parts(data: ArrayLike, attributes: Mapping[str, Any]) -> Volume:
    """Make a Volume from the data and attributes of an image layer.

    The rules are those for files.

    Parameters
    ----------
    data : (z, y, x) array
        The layer's data; axes before the last three have one step, and of several
        resolutions the first is taken.
    attributes : mapping
        `scale`, and where there are any `translate`, `rotate`, `shear`, `affine`,
        `units`, `axis_labels`, `metadata`, `name`, `multiscale`.

    Returns
    -------
    Volume
        With the geometry of `placement.place`; `notes` name what was assumed, and what
        was done to the intensities.

    Raises
    ------
    GeometryError
        If the data are not 3D or the transform cannot be used.
    ReadError
        If the voxels are not real numbers, or all equal.
    """
    array = _full_resolution(data, attributes)
    name = layer_name(attributes)
    placement = place(array.shape, attributes)
    shape = placement.geometry.shape_zyx
    if min(shape) < 2:
        size = " x ".join(map(str, shape))
        raise GeometryError(
            f"{name} has one slice only ({size}). Strata needs a 3D scan: open the"
            " whole volume."
        )
    plain = plain_type(array.reshape(shape), name)
    intensities, notes = finite(plain, name)
    check_varies(intensities, name)
    metadata = attributes.get("metadata") or {}
    facts = metadata.get(METADATA_KEY) or {}
    return Volume(
        data=intensities,
        geometry=placement.geometry,
        modality=facts.get("modality") or guess_modality(intensities),
        name=str(facts.get("name") or attributes.get("name") or "scan"),
        path=str(facts.get("path", "")),
        notes=(*facts.get("notes", ()), *placement.notes, *notes),
        index=facts.get("index"),
        series=facts.get("series"),
    )


def segmentation_from_parts(
    data: ArrayLike, attributes: Mapping[str, Any], *, scans: Sequence[Placement] = ()
) -> Segmentation:
    """Make a Segmentation from the data and attributes of a labels layer.

    Labels without a row in the region table get default rows. `scans` are the
    placements of the scans beside it, see `placement.place`.

    Raises
    ------
    GeometryError
        If the data are not 3D, the transform cannot be used, or voxels are not whole
        numbers from 0 to 4294967295.
    """
    array = _full_resolution(data, attributes)
    placement = place(array.shape, attributes, scans=scans)
    for note in placement.notes:
        logger.warning("%s: %s", layer_name(attributes), note)
    labels = _as_labels(
        array.reshape(placement.geometry.shape_zyx), layer_name(attributes)
    )
    facts = (attributes.get("metadata") or {}).get(METADATA_KEY) or {}
    known = {region.id: region for region in facts.get("regions", ())}
    table = tuple(known.get(row.id, row) for row in default_regions(label_ids(labels)))
    return Segmentation(labels, table, placement.geometry)


def _full_resolution(data: Any, attributes: Mapping[str, Any]) -> NDArray[Any]:
    """Read the array of a layer into memory; with several resolutions, the full one."""
    levels = attributes.get("multiscale") or (
        isinstance(data, Sequence) and all(hasattr(level, "shape") for level in data)
    )
    return np.asarray(data[0] if levels and len(data) else data)


def _as_labels(values: NDArray[Any], name: str) -> NDArray[np.unsignedinteger]:
    """Return label values in the smallest unsigned type that holds them."""
    if values.dtype.kind not in "biuf":
        raise GeometryError(
            f"{name} has {values.dtype} voxels. Labels are whole numbers from 0 up:"
            " convert the layer to labels."
        )
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f" and not (
        np.isfinite(values).all() and (values == np.round(values)).all()
    ):
        odd = values[~(values == np.round(values))]
        raise GeometryError(
            f"{name} holds {odd[0] if odd.size else 'infinity'}. Labels are whole"
            " numbers from 0 up: round them first."
        )
    lowest, highest = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if lowest < 0:
        raise GeometryError(
            f"{name} holds {lowest}. Labels below 0 cannot be written: renumber them"
            " from 1, with 0 for background."
        )
    if highest >= 2**32:
        raise GeometryError(
            f"{name} holds {highest}, which does not fit into 32 bits. Renumber the"
            " labels."
        )
    labels: NDArray[np.unsignedinteger] = values.astype(smallest_label_dtype(highest))
    return labels
