"""Convert the values of a file to labels.

Labels are whole numbers from 0 up. Any other value raises an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import ChoiceError, ReadError
from napari_strata.volume import smallest_label_dtype

HIGHEST_ID = 2**32 - 1
"""Largest label that is read or written: 32 bits without a sign."""

_DUST = 1e-3
"""Distance from a whole number up to which a label is rounded (interpolation, scaling)."""
_OF_DUST = 1e-5
"""Error of float32 in a distance of `_DUST`."""
_EXACT_UP_TO = {2: 2**11, 4: 2**24, 8: 2**53}
"""Whole numbers that a float of so many bytes tells from their neighbours."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels in the file's own order.

    Parameters
    ----------
    labels : (i, j, k) unsigned integer array
        0 is background.
    notes : tuple of str
        What had to be done to the file's values.
    """

    labels: NDArray[np.unsignedinteger]
    notes: tuple[str, ...] = ()


def whole_labels(
    values: NDArray[Any], source: str, *, advice: str = "", volume: int | None = None
) -> Labels:
    """Turn values into labels.

    Values up to 1e-3 off a whole number, as resampling or a scaled file leaves them,
    are rounded, with a note.

    Parameters
    ----------
    values : (i, j, k) real array
        In the file's own order.
    source : str
        Names the file in messages.
    advice : str
        What to do about a fraction, where the caller knows better than this function.
    volume : int or None
        Which volume of the file it is, for messages.

    Raises
    ------
    ReadError
        If a value is no whole number from 0 to 4294967295; the message names the first
        one in the file and its voxel.
    """
    if values.dtype.kind == "b":
        return Labels(values.astype(np.uint8))
    if values.dtype.kind in "iu":
        if int(values.min()) < 0 or int(values.max()) > HIGHEST_ID:
            raise _refused(
                values, (values < 0) | (values > HIGHEST_ID), source, advice, volume
            )
        return Labels(values.astype(smallest_label_dtype(int(values.max()))))
    with np.errstate(invalid="ignore"):
        nearest = np.rint(values)
        off = np.abs(values - nearest)
        bad = ~(
            (off <= _DUST + _OF_DUST)
            & (nearest >= 0)
            & (nearest < float(HIGHEST_ID + 1))
        )
    if bad.any():
        raise _refused(values, bad, source, advice, volume)
    notes = []
    if (most := float(off.max())) > 0:
        notes.append(
            f"Values lie up to {most:.2g} off whole numbers, and were rounded to them."
        )
    highest = int(nearest.max())
    if highest > _EXACT_UP_TO.get(values.dtype.itemsize, highest):
        limit = _EXACT_UP_TO[values.dtype.itemsize]
        notes.append(
            f"Labels above {limit} are stored as {8 * values.dtype.itemsize}-bit"
            " floats, which round them: they may differ from what was meant. Save the"
            " labels as integers."
        )
    return Labels(nearest.astype(smallest_label_dtype(highest)), tuple(notes))


def layered_labels(
    volumes: NDArray[Any], source: str, *, index: int | None = None, advice: str = ""
) -> Labels:
    """Turn the volumes of a 4D file into one volume of labels.

    One volume, or the one chosen, is taken as it is. Several of zeros and ones are
    one-hot: volume n (from 0) is label n + 1, or label n where every voxel lies in
    exactly one volume, so that volume 0 is the background. Several that each hold one
    number of their own keep these numbers. Where volumes overlap, the later one is on
    top; notes tell all this.

    Parameters
    ----------
    volumes : (i, j, k, volume) real array
        In the file's own order.
    source : str
        Names the file in messages.
    index : int or None
        Which volume to take, from 0.
    advice : str
        See `whole_labels`.

    Raises
    ------
    ReadError
        If a value is no label, or the volumes hold probabilities.
    ChoiceError
        If there are several volumes of many labels each and none was chosen, or the
        choice is not there.
    """
    count = volumes.shape[3]
    if index is not None:
        if not 0 <= index < count:
            raise ChoiceError(
                f"{source} has no volume {index}: it holds {count}; choose one with"
                f" --index 0..{count - 1}."
            )
        return whole_labels(
            volumes[..., index],
            source,
            advice=advice,
            volume=index if count > 1 else None,
        )
    if count == 1:
        return whole_labels(volumes[..., 0], source, advice=advice)
    _check_no_probabilities(volumes, source)
    layers, held, notes = [], [], dict[str, None]()
    for number in range(count):
        one = whole_labels(volumes[..., number], source, advice=advice, volume=number)
        layers.append(one.labels)
        held.append([int(value) for value in np.unique(one.labels) if value])
        notes |= dict.fromkeys(one.notes)
    values = [ids[0] for ids in held if ids]
    is_mask = len(set(values)) <= 1
    if any(len(ids) > 1 for ids in held) or not (
        is_mask or len(set(values)) == len(values)
    ):
        options = [
            (f"volume {number} of 0 to {count - 1}", {"index": number})
            for number in range(count)
        ]
        raise ChoiceError(
            f"{source} holds {count} volumes of labels each (over time?), not one"
            f" volume for each label. Take one out with `strata convert {source}"
            f" --index 0..{count - 1} -o ONE.nii.gz`.",
            options,
        )
    return _laid_over(layers, None if is_mask else held, tuple(notes))


def _laid_over(
    layers: list[NDArray[np.unsignedinteger]],
    held: list[list[int]] | None,
    notes: tuple[str, ...],
) -> Labels:
    """Merge volumes that hold one label each into one label volume.

    The ids are those in `held`. Without it, volumes are numbered from 1, or from 0 if
    every voxel lies in exactly one of them.
    """
    count = len(layers)
    depth = np.zeros(layers[0].shape, np.uint32)
    for layer in layers:
        depth += layer > 0
    first = 1
    if held is not None:
        ids = [own[0] if own else 0 for own in held]
        how = (
            f"The file holds {count} volumes, each with one label of its own; they were"
            " laid over each other."
        )
    elif bool((depth == 1).all()):
        first, ids = 0, list(range(count))
        how = (
            f"The file holds {count} volumes of zeros and ones (one-hot), and every"
            " voxel lies in exactly one: volume 0 is taken for the background, volumes"
            f" 1 to {count - 1} are labels 1 to {count - 1}."
        )
    else:
        ids = list(range(1, count + 1))
        how = (
            f"The file holds {count} volumes of zeros and ones (one-hot): volumes 0 to"
            f" {count - 1} are labels 1 to {count}."
        )
    labels = np.zeros(layers[0].shape, smallest_label_dtype(max(ids)))
    for layer, value in zip(layers[1 - first :], ids[1 - first :], strict=True):
        labels[layer > 0] = value
    hidden = int(np.count_nonzero(depth > 1))
    over = (
        (f"{hidden} voxels lie in several volumes; the last one has them.",)
        if hidden
        else ()
    )
    return Labels(labels, (how, *over, *notes))


def _check_no_probabilities(volumes: NDArray[Any], source: str) -> None:
    """Refuse volumes of fractions between 0 and 1."""
    if volumes.dtype.kind != "f":
        return
    with np.errstate(invalid="ignore"):
        fraction = np.abs(volumes - np.rint(volumes)) > _DUST + _OF_DUST
        if not (
            fraction.any() and volumes.min() >= -_DUST and volumes.max() <= 1 + _DUST
        ):
            return
    i, j, k, n = _first(fraction)
    raise ReadError(
        f"{source} holds {volumes.shape[3]} volumes of probabilities"
        f" ({volumes[i, j, k, n]:.6g} at voxel ({i}, {j}, {k}) of volume {n}), not"
        " labels. Save for each voxel the number of the volume that is highest there"
        " (argmax), as integers."
    )


def _refused(
    values: NDArray[Any],
    bad: NDArray[np.bool_],
    source: str,
    advice: str,
    volume: int | None,
) -> ReadError:
    """Make the error that names the first bad value, in the file's own order (i runs fastest)."""
    i, j, k = _first(bad)
    value = values[i, j, k]
    count = int(np.count_nonzero(bad))
    rest = (
        ""
        if count == 1
        else f" and {count - 1} more such {'value' if count == 2 else 'values'}"
    )
    of = "" if volume is None else f" of volume {volume}"
    number = float(value)
    shown = (
        str(int(value))
        if np.isfinite(number) and number == np.rint(number)
        else f"{number:.6g}"
    )
    shown = "NaN" if np.isnan(number) else shown
    if not np.isfinite(number) or (number < 0 and number == np.rint(number)):
        todo = (
            f"Choose the label file; if {shown} stands for its background, set it to 0"
            " and save again"
        )
    elif number > HIGHEST_ID:
        todo = f"Renumber the labels: ids go up to {HIGHEST_ID}"
    else:
        todo = advice or "Choose the label file, or save the labels as whole numbers"
    return ReadError(
        f"{source} is not a label file as it stands: it holds {shown} at voxel ({i},"
        f" {j}, {k}){of}{rest}, and labels are whole numbers from 0 up. {todo}."
    )


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    at = int(mask.reshape(-1, order="F").argmax())
    return tuple(int(n) for n in np.unravel_index(at, mask.shape, order="F"))
