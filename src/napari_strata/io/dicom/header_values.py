"""Read values of DICOM elements from raw bytes.

An invalid value becomes a fault of the slice and never an exception of the parser.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pydicom import Dataset

from napari_strata.io.dicom import tags
from napari_strata.io.dicom.file_head import LONGEST_TEXT, ascii_line

_MOST_SHOWN = 32
"""Characters of an invalid value that a message shows."""
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings on invalid values; Strata reports those that matter."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.disabled = True
        try:
            yield
        finally:
            log.disabled = before


def element_value(header: Dataset | None, tag: int) -> object:
    """Return an element's raw value (bytes or a sequence); None if missing or empty."""
    if header is None or tag not in header:
        return None
    return header.get_item(tag).value or None


def uid_value(header: Dataset | None, tag: int) -> str:
    """Return a UID; empty if it is missing."""
    return ascii_line(element_value(header, tag))


def first_text(header: Dataset, tag: int) -> str:
    """Return the first value of a text element."""
    return ascii_line(element_value(header, tag)).split("\\")[0].strip()


def count_value(header: Dataset, tag: int) -> int:
    """Return a count, stored as binary or text; 0 if it is missing or not a number."""
    raw = element_value(header, tag)
    if not isinstance(raw, bytes):
        return 0
    vr = header.get_item(tag).VR
    if tag == tags.NUMBER_OF_FRAMES or vr in ("IS", "DS"):
        text = ascii_line(raw)
        return int(text) if text.isdecimal() else 0
    width = 4 if len(raw) >= 4 and vr in ("UL", "SL") else 2
    return int.from_bytes(
        raw[:width], "little" if header.original_encoding[1] else "big"
    )


def decimal_values(
    header: Dataset, tag: int, name: str, count: int, faults: list[str]
) -> NDArray[np.float64]:
    """Return `count` decimal numbers, or an empty array.

    A value that is not `count` finite numbers is added to `faults`; a missing one is
    not.
    """
    text = ascii_line(element_value(header, tag))
    parts = [part.strip(" \0") for part in text.split("\\")]
    if not any(parts):
        return np.array([])
    values = [float(part) if _NUMBER.fullmatch(part) else math.nan for part in parts]
    if len(values) == count and all(math.isfinite(value) for value in values):
        return np.array(values)
    expected = "a number" if count == 1 else f"{count} numbers"
    faults.append(
        f"has a {name} that is not {expected} ({text[:_MOST_SHOWN]!r}). Repair its"
        " header, or export it again"
    )
    return np.array([])


def series_description(header: Dataset) -> str:
    """Return the series description, decoded from its own character set.

    Bytes that cannot be decoded are replaced.
    """
    from pydicom.charset import convert_encodings, decode_bytes

    raw = element_value(header, tags.SERIES_DESCRIPTION)
    if not isinstance(raw, bytes):
        return ""
    charsets = [
        part.strip()
        for part in ascii_line(element_value(header, tags.CHARACTER_SET)).split("\\")
    ]
    try:
        with quiet_pydicom():
            text = decode_bytes(raw, convert_encodings(charsets), {9, 10, 12, 13})
    except (LookupError, ValueError, TypeError, AttributeError):
        text = raw.decode("utf-8", "replace")
    return " ".join(
        "".join(letter if letter.isprintable() else " " for letter in text).split()
    )[:LONGEST_TEXT]
