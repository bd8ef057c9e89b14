"""Recognise DICOM files by their first bytes, and open files for bounded reads."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from napari_strata.io.dicom import tags

_HEAD = 4096
"""Bytes read to recognise a file: preamble, mark and the first elements."""
_APPLE_DOUBLE_MAGIC = (b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")
_SOP_CLASS_ELEMENT = b"\x02\x00\x02\x00UI"
VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC"
    b" UI UL UN UR US UT UV".split()
)
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_LONGEST_FIRST = 1024
"""Longest leading element, in bytes, of a file that is recognised without a mark."""
LONGEST_TEXT = 256
"""Longest text, in characters, that is kept of a header value."""
_ELEMENTS_OF_PROOF = 3
"""Valid leading elements that a file without a mark needs to count as DICOM."""
_FIRST_TEXTS = (
    0x00020002,
    0x00020003,
    0x00020010,
    tags.CHARACTER_SET,
    0x00080008,
    tags.SOP_CLASS,
    tags.SOP_INSTANCE,
    0x00080020,
    tags.MODALITY,
)


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its mark or its first elements.

    A pipe or a device is never DICOM and is not opened: reading it might block.
    """
    return _is_dicom_head(head_of(path))


def head_of(path: Path) -> bytes:
    """Return the first bytes of a regular file.

    Empty for anything else and for files that cannot be read.
    """
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


class BoundedFile(io.BufferedReader):
    """A file whose reads never allocate more bytes than the file has left.

    Otherwise a damaged length field could ask for 4 GB.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._size = os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, or all that is left."""
        if size is not None and size > _HEAD:
            size = min(size, max(0, self._size - self.tell()))
        return super().read(size)


def open_bounded(path: Path) -> BoundedFile:
    """Open a file for reading bytes.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    return BoundedFile(io.FileIO(path))


def is_system_file(path: Path, head: bytes) -> bool:
    """Return whether a file was left by the operating system.

    AppleDouble files, .DS_Store, Thumbs.db and desktop.ini.
    """
    return head[:4] in _APPLE_DOUBLE_MAGIC or path.name.lower() in (
        ".ds_store",
        "thumbs.db",
        "desktop.ini",
    )


def is_segmentation(path: str | Path) -> bool:
    """Return whether a file is a DICOM segmentation (SEG), by its first bytes."""
    return storage_class(Path(path)).startswith("1.2.840.10008.5.1.4.1.1.66.")


def storage_class(path: Path) -> str:
    """Return the storage class (SOP Class UID) of a file, read from its first bytes.

    Empty if there is none or the file is not DICOM.
    """
    head = head_of(path)
    if head[128:132] == b"DICM":
        _, found, rest = head.partition(_SOP_CLASS_ELEMENT)
        if found:
            return ascii_line(rest[2 : 2 + int.from_bytes(rest[:2], "little")])
    if not _is_dicom_head(head):
        return ""
    start = 132 if head[128:132] == b"DICM" else 0
    return next(
        (
            ascii_line(value)
            for tag, value in _elements(head[start:])
            if tag in (0x00020002, tags.SOP_CLASS)
        ),
        "",
    )


def ascii_line(raw: object) -> str:
    """Return text as one short ASCII line; other characters become question marks."""
    text = (
        raw[:LONGEST_TEXT].decode("ascii", "replace")
        if isinstance(raw, bytes)
        else str(raw or "")
    )
    return "".join(
        letter if " " <= letter <= "~" else "?" for letter in text.strip(" \0\t\r\n")
    )


def _is_dicom_head(head: bytes) -> bool:
    if head[128:132] == b"DICM":
        return True
    if head[:2] not in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08"):
        return False
    found = list(_elements(head))
    texts = [value for tag, value in found if tag in _FIRST_TEXTS]
    return (
        len(found) >= _ELEMENTS_OF_PROOF
        and any(texts)
        and all(text.rstrip(b"\0").isascii() for text in texts)
    )


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and value of the leading elements of a data set without a file head.

    Stops at the first element that is long or invalid.
    """
    order: Literal["little", "big"] = "little" if data[1:2] == b"\0" else "big"
    explicit = data[4:6] in VRS
    at, last = 0, -1
    while at + 8 <= len(data):
        group, number = (
            int.from_bytes(data[at : at + 2], order),
            int.from_bytes(data[at + 2 : at + 4], order),
        )
        tag, vr = group << 16 | number, data[at + 4 : at + 6]
        if tag <= last or (explicit and vr not in VRS):
            return
        width, start = (
            (4, at + 4)
            if not explicit
            else (4, at + 8)
            if vr in LONG_VRS
            else (2, at + 6)
        )
        length = int.from_bytes(data[start : start + width], order)
        at = start + width + length
        if length > _LONGEST_FIRST or length % 2 or at > len(data):
            return
        yield tag, data[start + width : at]
        last = tag
