"""What NRRD and MetaImage headers say and ITK leaves out.

These are units, the kind of space, scales, and the segments of 3D Slicer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_strata.errors import GeometryError

NRRD = (".nrrd", ".nhdr", ".seg.nrrd")
"""Endings of NRRD files, in lower case."""

_LONGEST_HEADER = 2**24
"""Longest NRRD header, in bytes; 3D Slicer writes long ones for many segments."""
_LONGEST_META_HEADER = 2**16
"""Longest MetaImage header, in bytes."""
_ITEM = re.compile(r'"([^"]*)"|(\S+)')
_ESCAPED = re.compile(r"\\n|\\\\")
_VECTOR = re.compile(r"none|\([^()]*\)", re.IGNORECASE)
_MM = {
    "nm": 1e-6,
    "nanometer": 1e-6,
    "nanometre": 1e-6,
    "um": 1e-3,
    "\u00b5m": 1e-3,
    "\u03bcm": 1e-3,
    "micron": 1e-3,
    "micrometer": 1e-3,
    "micrometre": 1e-3,
    "microm": 1e-3,
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "cm": 10.0,
    "centimeter": 10.0,
    "centimetre": 10.0,
    "dm": 100.0,
    "decimeter": 100.0,
    "decimetre": 100.0,
    "m": 1000.0,
    "meter": 1000.0,
    "metre": 1000.0,
    "km": 1e6,
    "kilometer": 1e6,
    "kilometre": 1e6,
    "pm": 1e-9,
    "picometer": 1e-9,
    "picometre": 1e-9,
    "\u00e5": 1e-7,
    "a\u030a": 1e-7,
    "angstrom": 1e-7,
    "\u00e5ngstr\u00f6m": 1e-7,
    "in": 25.4,
    "inch": 25.4,
    "inche": 25.4,
    "ft": 304.8,
    "foot": 304.8,
    "feet": 304.8,
    "yd": 914.4,
    "yard": 914.4,
}
"""Millimetres of each unit, by its name in lower case and singular."""
_NO_LENGTHS = frozenset(
    [
        *(
            "s",
            "sec",
            "second",
            "ms",
            "msec",
            "millisecond",
            "us",
            "\u00b5s",
            "\u03bcs",
            "microsecond",
            "ns",
        ),
        *(
            "min",
            "minute",
            "h",
            "hour",
            "hz",
            "khz",
            "mhz",
            "ghz",
            "hertz",
            "rad",
            "radian",
            "mrad",
        ),
        *("deg", "degree", "\u00b0", "ppm", "kg", "g", "gram", "k", "kelvin"),
    ]
)
"""Units of what is no length, as those of lengths."""
_UNSAID = ("", "?", "???", "none", "unknown")
_PATIENT_SPACES = {
    "rightanteriorsuperior": (1, 1),
    "ras": (1, 1),
    "leftanteriorsuperior": (-1, 1),
    "las": (-1, 1),
    "leftposteriorsuperior": (-1, -1),
    "lps": (-1, -1),
}
"""Signs that take the first two axes of a space to RAS."""


@dataclass(frozen=True, slots=True, eq=False)
class TextHeader:
    """The fields of a header.

    Parameters
    ----------
    kind : {"nrrd", "meta"}
        The format.
    fields : dict of str to str
        NRRD: by name in lower case without blanks ("spaceunits"); MetaImage: by name in
        lower case.
    keys : dict of str to str
        NRRD's ``key:=value`` pairs.
    """

    kind: str
    fields: Mapping[str, str]
    keys: Mapping[str, str]

    @property
    def has_segments(self) -> bool:
        """Whether 3D Slicer's fields of segments are among the keys."""
        return any(re.fullmatch(r"Segment\d+_ID", key) for key in self.keys)

    @property
    def directions(self) -> list[list[float] | None] | None:
        """NRRD's direction of every axis, None for axes that have none.

        The whole value is None if the header has no directions or they are damaged.
        """
        try:
            found = [
                _numbers(one) for one in _VECTOR.findall(self.fields["spacedirections"])
            ]
        except (KeyError, ValueError):
            return None
        return [one if one and all(map(math.isfinite, one)) else None for one in found]

    @property
    def is_colour(self) -> bool:
        """Whether NRRD calls the values of a voxel a colour."""
        return "color" in self.fields.get("kinds", "").lower()


def read_text_header(path: Path, suffix: str) -> TextHeader:
    """Read the header of an NRRD or MetaImage file; what is no header gives no fields."""
    nrrd = suffix in NRRD
    with path.open("rb") as file:
        raw = file.read(_LONGEST_HEADER if nrrd else _LONGEST_META_HEADER)
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    for line in raw.split(b"\n"):
        text = _text(line.rstrip(b"\r"))
        if nrrd and not text:  # the end of the header
            break
        mark = (":=" if re.match(r"[^:]*:=", text) else ":") if nrrd else "="
        if not nrrd and (first := re.search("[=:]", text)):  # ITK takes either
            mark = first[0]
        name, found, value = text.partition(mark)
        if (nrrd and text.startswith("#")) or not found:
            continue
        if mark == ":=":
            keys[name.strip()] = _ESCAPED.sub(
                lambda mark: "\n" if mark[0] == "\\n" else "\\", value.strip()
            )
        elif nrrd:
            fields[name.replace(" ", "").lower()] = value.strip()
        else:
            fields[name.strip().lower()] = value.strip()
            # the last field; voxels may follow
            if name.strip().lower() == "elementdatafile":
                break
    return TextHeader("nrrd" if nrrd else "meta", fields, keys)


def placed(
    header: TextHeader, affine: NDArray[np.float64], source: str
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Correct the affine that ITK gives by what the header says besides, and give notes on it.

    Parameters
    ----------
    header : TextHeader
        The file's header.
    affine : (4, 4) float64 array
        Index (i, j, k) -> RAS+ as ITK reads it, which knows neither units nor spaces
        with time.
    source : str
        Names the file in messages.

    Raises
    ------
    GeometryError
        If an axis of space has a unit that is none of length, such as seconds.
    """
    if header.kind == "meta":
        units = [header.fields.get("distanceunits", "")] * 3
        return _in_mm(
            affine, units, source, world=True, notes=_meta_notes(header, affine)
        )
    fields = header.fields
    notes = _nrrd_notes(fields)
    space = fields.get("space", "").replace("-", "").lower()
    if space.endswith(("time", "st")) and (
        signs := _PATIENT_SPACES.get(_without_time(space))
    ):
        affine = _nrrd_affine(header, signs, affine)
    if "spacedirections" in fields:
        return _in_mm(
            affine,
            _items(fields.get("spaceunits", "")),
            source,
            world=True,
            notes=notes,
        )
    kinds = _items(fields.get("kinds", ""))
    units = _items(fields.get("units", ""))
    if len(kinds) == len(units) > 3:  # the axis of values has no length
        units = [
            unit
            for unit, kind in zip(units, kinds, strict=True)
            if kind.lower() in ("domain", "space")
        ]
    return _in_mm(affine, units, source, world=False, notes=notes)


def millimetres(unit: str) -> float | None:
    """Return the length of a unit in mm; None if it is no unit of length."""
    name = _unit_name(unit)
    if name in _NO_LENGTHS:  # "ms" are no metres
        return None
    known = _MM.get(name)
    return known if known is not None else _MM.get(name.removesuffix("s"))


def _unit_name(unit: str) -> str:
    return unit.strip().strip("'\"").strip().lower()


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _items(value: str) -> list[str]:
    return [quoted if bare == "" else bare for quoted, bare in _ITEM.findall(value)]


def _without_time(space: str) -> str:
    return (
        space.removesuffix("time")
        if space.endswith("time")
        else space.removesuffix("t")
    )


def _nrrd_affine(
    header: TextHeader, signs: tuple[int, int], affine: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the affine of a space with time, whose first two axes ITK does not flip.

    Unchanged if the header is unusual.
    """
    vectors = [vector for vector in header.directions or [] if vector is not None][:3]
    try:
        origin = _numbers(header.fields.get("spaceorigin", "(0,0,0)"))
    except ValueError:
        return affine
    if len(vectors) < 3 or min(len(one) for one in (origin, *vectors)) < 3:
        return affine
    found = np.eye(4)
    found[:3, :3] = np.array([vector[:3] for vector in vectors]).T
    found[:3, 3] = origin[:3]
    return np.diag([*signs, 1.0, 1.0]) @ found + 0.0


def _numbers(vector: str) -> list[float]:
    """Read a vector; no number for "none"."""
    return (
        []
        if vector.lower() == "none"
        else [float(part) for part in vector.strip("() ").split(",")]
    )


def _in_mm(
    affine: NDArray[np.float64],
    units: list[str],
    source: str,
    *,
    world: bool,
    notes: tuple[str, ...],
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Scale the affine to mm.

    Units of the world's axes scale its rows; units of the file's axes scale its columns.
    """
    factors = np.ones(3)
    for axis, unit in enumerate(units[:3]):
        found = millimetres(unit)
        if found is not None:
            factors[axis] = found
        elif {_unit_name(unit), _unit_name(unit).removesuffix("s")} & _NO_LENGTHS:
            raise GeometryError(
                f'{source} has an axis in "{unit}", which is no length. Repair the'
                " units in its header."
            )
        elif unit.strip().lower() not in _UNSAID:
            notes += (
                (
                    f'The header gives lengths in "{unit}", which is no unit of length'
                    " that Strata knows; they were taken for mm."
                ),
            )
    notes = tuple(dict.fromkeys(notes))
    if (factors == 1).all():
        return affine, notes
    said = (
        ", ".join(f"{one:g}" for one in factors)
        if np.ptp(factors)
        else f"{factors[0]:g}"
    )
    notes += (
        f"The header gives lengths in units of {said} mm; they were turned into mm.",
    )
    if world:
        return np.diag([*factors, 1.0]) @ affine, notes
    # spacings without directions: the origin has the units of its own axis
    scaled = affine.copy()
    scaled[:3, :3] = affine[:3, :3] * factors
    scaled[:3, 3] = affine[:3, 3] * factors
    return scaled, notes


def _nrrd_notes(fields: Mapping[str, str]) -> tuple[str, ...]:
    notes = []
    space = fields.get("space", "").replace("-", "").lower()
    if not space:
        notes.append(
            "The header does not say how the patient lies (no NRRD space): left and"
            " right are a guess."
        )
    elif space not in _PATIENT_SPACES and _without_time(space) not in _PATIENT_SPACES:
        notes.append(
            "The header does not say how the patient lies (NRRD space"
            f" {fields['space']}): left and right are a guess."
        )
    directions, spacings = fields.get("spacedirections"), fields.get("spacings")
    sizes = [
        one
        for one in (spacings or "").split()
        if one.lower().lstrip("-+") not in ("nan", "0")
    ]
    if directions is None and len(sizes) < 3:
        notes.append(
            "The header does not give the voxel size along every axis: 1 mm is taken,"
            " which is a guess."
        )
    origin = fields.get("spaceorigin", "none").strip(" ()").lower()
    if directions is not None and (origin == "none" or "nan" in origin):
        notes.append(
            "The header does not say where the scan lies (no NRRD space origin): 0 0 0"
            " is taken, which is a guess."
        )
    if "oldmin" in fields or "oldmax" in fields:
        low, high = fields.get("oldmin", "?"), fields.get("oldmax", "?")
        notes.append(
            f"The values were quantized from {low} .. {high} (old min, old max); they"
            " are taken as they are stored."
        )
    return tuple(notes)


def _meta_notes(header: TextHeader, affine: NDArray[np.float64]) -> tuple[str, ...]:
    fields = header.fields
    notes = []
    if "elementspacing" not in fields and "elementsize" not in fields:
        notes.append(
            "The header does not give a voxel size (no ElementSpacing): 1 mm is taken,"
            " which is a guess."
        )
    # all three have a default; where a part is said, the rest was left out or lost
    is_turned = bool(fields.keys() & {"transformmatrix", "rotation", "orientation"})
    is_moved = bool(fields.keys() & {"offset", "origin", "position"})
    if is_moved and not is_turned:
        notes.append(
            "The header does not say how the patient lies (an Offset, and no"
            " TransformMatrix): left and right are a guess."
        )
    if is_turned and not is_moved:
        notes.append(
            "The header does not say where the scan lies (a TransformMatrix, and no"
            " Offset): 0 0 0 is taken, which is a guess."
        )
    ordered = fields.keys() & {"binarydatabyteordermsb", "elementbyteordermsb"}
    one_byte = fields.get("elementtype", "").upper() in ("MET_CHAR", "MET_UCHAR")
    if "binarydata" in fields and not ordered and not one_byte:
        notes.append(
            "The header does not give the order of bytes (BinaryDataByteOrderMSB):"
            " little-endian is taken, which is a guess."
        )
    slope = fields.get("elementtointensityfunctionslope", "1")
    offset = fields.get("elementtointensityfunctionoffset", "0")
    if (_number(slope), _number(offset)) != (1.0, 0.0):
        notes.append(
            "The header has a scale of intensities (ElementToIntensityFunctionSlope"
            f" {slope}, Offset {offset}), which is not applied: values are taken as"
            " they are stored."
        )
    said = fields.get("anatomicalorientation", "").upper()
    if sorted(_AXIS_OF.get(letter, 3) for letter in said) == [0, 1, 2] and said != (
        turned := _orientation_code(affine)
    ):
        notes.append(
            f"The header's AnatomicalOrientation ({said}) and its TransformMatrix"
            f" ({turned}) disagree; the matrix is used."
        )
    return tuple(notes)


_AXIS_OF = {"R": 0, "L": 0, "A": 1, "P": 1, "I": 2, "S": 2}


def _orientation_code(affine: NDArray[np.float64]) -> str:
    """Return MetaImage's axis code, which names the side that each axis starts from.

    RAI runs toward left, posterior, superior.
    """
    code = ""
    for column in affine[:3, :3].T:
        axis = int(np.abs(column).argmax())
        code += ("LR", "PA", "IS")[axis][int(column[axis] < 0)]
    return code


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
