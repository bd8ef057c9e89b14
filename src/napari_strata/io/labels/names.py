"""Names and colours inside label files.

XML in a NIfTI header's extension, FreeSurfer's colour table behind the voxels of an MGZ
file.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import nibabel as nib
from nibabel.openers import ImageOpener

from napari_strata.volume import BACKGROUND, Region

_LONGEST = 2**24
"""Bytes of names that are read, at most."""
_LABEL = re.compile(r"<Label\b([^>]*)>(.*?)</Label>", re.DOTALL)
_ATTRIBUTE = re.compile(r"""(\w+)\s*=\s*["']([^"']*)["']""")
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_KINDS = {
    2: "DICOM",
    4: "AFNI",
    6: "comment",
    8: "XCEDE",
    30: "Caret",
    32: "CIFTI",
    44: "MATLAB",
}
_MGH_VOXELS = 284
"""Byte at which the voxels of an MGH file begin."""
_MGH_FOOTER = 20
"""Bytes of scan parameters between the voxels and the tags of an MGH file."""
_COLOUR_TABLE = 1
"""FreeSurfer's tag of an old colour table."""
_WITHOUT_LENGTH = (_COLOUR_TABLE, 2, 20)
"""FreeSurfer's old tags, which are not followed by a length."""
_XFORM = 30
"""FreeSurfer's tag of a transform; its length has 4 bytes, that of other tags 8."""
_MOST_ENTRIES = 2**20
"""Largest colour table; a larger count means a damaged file."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names and colours that a label file holds.

    Parameters
    ----------
    regions : tuple of Region
        Of any labels, those that the file does not hold, too.
    notes : tuple of str
        What could not be read.
    """

    regions: tuple[Region, ...] = ()
    notes: tuple[str, ...] = ()


def nifti_names(path: Path, suffix: str) -> Names:
    """Read the names in a NIfTI header's extensions.

    TotalSegmentator and Connectome Workbench write them.
    """
    header = path.with_suffix(".hdr") if suffix == ".img" else path
    blocks = _extensions(header)
    regions: dict[int, Region] = {}
    unread = []
    for code, block in blocks:
        found = _xml_labels(block)
        regions |= {region.id: region for region in found}
        if not found:
            unread.append(_KINDS.get(code, f"code {code}"))
    notes: tuple[str, ...] = ()
    if unread:
        notes = (
            (
                f"The header has an extension ({', '.join(dict.fromkeys(unread))}) that"
                " is not read; names in it, if any, are left out."
            ),
        )
    return Names(tuple(regions.values()), notes)


def mgh_names(path: Path, n_bytes: int) -> Names:
    """Read FreeSurfer's colour table behind the voxels of an MGH file, which take `n_bytes`."""
    try:
        with ImageOpener(str(path), "rb") as file:
            file.seek(_MGH_VOXELS + n_bytes + _MGH_FOOTER)
            raw = file.read(_LONGEST)
    except (OSError, EOFError, zlib.error):
        return Names()
    try:
        return Names(_after_tags(raw))
    except (struct.error, ValueError):
        return Names(
            (),
            (
                (
                    "The file ends with a colour table that cannot be read; names are"
                    " left out."
                ),
            ),
        )


def _extensions(path: Path) -> list[tuple[int, bytes]]:
    """Return code and content of each extension of a NIfTI header."""
    try:
        with ImageOpener(str(path), "rb") as file:
            start = file.read(4)
            order = (
                "<"
                if start in (struct.pack("<i", 348), struct.pack("<i", 540))
                else ">"
            )
            (size,) = struct.unpack(f"{order}i", start)
            head = start + file.read(size - 4)
            kind = nib.Nifti1Header if size == 348 else nib.Nifti2Header
            offset = float(kind(head[:size], order, check=False)["vox_offset"])
            mark = file.read(4)
            single = path.suffix.lower() != ".hdr"
            limit = (
                min(int(offset) - size - 4, _LONGEST)
                if single and math.isfinite(offset)
                else _LONGEST
            )
            if mark[:1] in (b"", b"\0") or limit < 16:
                return []
            raw = file.read(limit)
    except (OSError, EOFError, zlib.error, struct.error, ValueError):
        return []
    found, at = [], 0
    while at + 8 <= len(raw):
        length, code = struct.unpack_from(f"{order}2i", raw, at)
        if length < 8 or at + length > len(raw):
            break
        found.append((code, raw[at + 8 : at + length].rstrip(b"\0")))
        at += length
    return found


def _xml_labels(block: bytes) -> list[Region]:
    """Return the rows of a Caret label table.

    ``<Label Key="1" Red="0.5" ...>name</Label>``.
    """
    regions = []
    for given, text in _LABEL.findall(block.decode("utf-8", "replace")):
        said = dict(_ATTRIBUTE.findall(given))
        cdata = _CDATA.search(text)
        name = (cdata[1] if cdata else unescape(text)).strip()
        try:
            key = int(said["Key"])
            color = tuple(_byte(float(said[part])) for part in ("Red", "Green", "Blue"))
        except (KeyError, ValueError, OverflowError):
            continue
        if key > BACKGROUND and name:
            regions.append(Region(key, name, (color[0], color[1], color[2])))
    return regions


def _byte(part: float) -> int:
    """Return a colour component as a byte.

    Caret's standard has fractions of 1; some programs write bytes.
    """
    return min(max(round(part * 255 if part <= 1 else part), 0), 255)


def _after_tags(raw: bytes) -> tuple[Region, ...]:
    """Find the colour table among FreeSurfer's tags.

    Raises
    ------
    struct.error, ValueError
        If the table is cut short or makes no sense.
    """
    at = 0
    while at + 4 <= len(raw):
        (tag,) = struct.unpack_from(">i", raw, at)
        at += 4
        if tag == _COLOUR_TABLE:
            return _Table(raw, at).regions()
        if tag in _WITHOUT_LENGTH or tag == 0:
            if tag != 2:
                return ()
            at += 4
            continue
        if at + 8 > len(raw):
            return ()
        (length,) = struct.unpack_from(">i" if tag == _XFORM else ">q", raw, at)
        at += (4 if tag == _XFORM else 8) + length
        if length < 0:
            return ()
    return ()


class _Table:
    """FreeSurfer's binary colour table, old (every entry in order) or version 2."""

    def __init__(self, raw: bytes, at: int) -> None:
        self._raw, self._at = raw, at

    def regions(self) -> tuple[Region, ...]:
        """Read the rows.

        Raises
        ------
        struct.error, ValueError
            If they are cut short or make no sense.
        """
        count = self._number()
        if count > 0:
            self._text()
            rows = [
                (n, self._text(), self._color()) for n in range(self._checked(count))
            ]
        else:
            if count != -2:
                raise ValueError(f"colour table of version {-count}")
            self._number()
            self._text()
            rows = [
                (self._number(), self._text(), self._color())
                for _ in range(self._checked(self._number()))
            ]
        return tuple(
            Region(n, name or f"region {n}", color)
            for n, name, color in rows
            if n > BACKGROUND
        )

    def _checked(self, count: int) -> int:
        if not 0 <= count <= _MOST_ENTRIES:
            raise ValueError(f"{count} colours")
        return count

    def _number(self) -> int:
        (value,) = struct.unpack_from(">i", self._raw, self._at)
        self._at += 4
        return int(value)

    def _text(self) -> str:
        length = self._number()
        if not 0 <= length <= len(self._raw) - self._at:
            raise ValueError(f"a name of {length} bytes")
        text = self._raw[self._at : self._at + length].split(b"\0")[0]
        self._at += length
        return text.decode("utf-8", "replace").strip()

    def _color(self) -> tuple[int, int, int]:
        red, green, blue, _ = (self._number() for _ in range(4))
        if not all(0 <= part <= 255 for part in (red, green, blue)):
            raise ValueError(f"colour {red}, {green}, {blue}")
        return red, green, blue
