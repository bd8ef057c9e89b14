"""DICOM files as lists of elements, so that one can be damaged and the rest stays whole.

Nothing is judged here.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

_LONG = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UT", b"UN", b"UC", b"UR")
_ENDLESS = 0xFFFFFFFF
_ITEM, _END = 0xFFFEE000, (0xFFFEE00D, 0xFFFEE0DD)


@dataclass
class Element:
    """One element; `length` overrides what the value's own length would be written as."""

    tag: int
    vr: str
    value: bytes | list[list[Element]]
    length: int | None = None


@dataclass
class File:
    """A parsed file: what stands before the elements, the elements of its head, the others.

    How those are written.
    """

    preamble: bytes
    meta: list[Element]
    elements: list[Element]
    order: str
    implicit: bool
    deflated: bool
    tail: bytes = b""

    def to_bytes(self) -> bytes:
        """Write it."""
        body = _written(self.elements, self.order, self.implicit) + self.tail
        if self.deflated:
            packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            body = packer.compress(body) + packer.flush()
        return self.preamble + _written(self.meta, "<", False) + body


@dataclass
class _Reader:
    raw: bytes
    order: str
    implicit: bool
    at: int = 0
    found: list[Element] = field(default_factory=list)

    def number(self, kind: str, at: int) -> int:
        return int(struct.unpack_from(self.order + kind, self.raw, at)[0])

    def element(self, nested: bool = True) -> Element | None:
        """Read one element; None where nothing sensible stands."""
        at, raw = self.at, self.raw
        if at + 8 > len(raw):
            return None
        tag = self.number("H", at) << 16 | self.number("H", at + 2)
        if self.implicit:
            vr, start, length = (
                "SQ" if tag in _SEQUENCES else "UN",
                at + 8,
                self.number("I", at + 4),
            )
        else:
            mark = raw[at + 4 : at + 6]
            if not (mark.isalpha() and mark.isupper()):
                return None
            vr = mark.decode()
            if mark in _LONG:
                if at + 12 > len(raw):
                    return None
                start, length = at + 12, self.number("I", at + 8)
            else:
                start, length = at + 8, self.number("H", at + 6)
        if length == _ENDLESS or start + length > len(raw):
            self.at = len(raw)
            return Element(tag, vr, raw[start:], length)
        self.at = start + length
        value = raw[start : self.at]
        if vr == "SQ" and nested:
            items = self._items(value)
            return Element(tag, vr, value if items is None else items)
        return Element(tag, vr, value)

    def _items(self, raw: bytes) -> list[list[Element]] | None:
        items, at = [], 0
        while at + 8 <= len(raw):
            tag, length = (
                struct.unpack_from(self.order + "HH", raw, at),
                struct.unpack_from(self.order + "I", raw, at + 4)[0],
            )
            if (
                tag[0] << 16 | tag[1] != _ITEM
                or length == _ENDLESS
                or at + 8 + length > len(raw)
            ):
                return None
            inner = _Reader(raw[at + 8 : at + 8 + length], self.order, self.implicit)
            items.append(inner.all())
            if inner.at != len(inner.raw):
                return None
            at += 8 + length
        return items if at == len(raw) else None

    def all(self) -> list[Element]:
        while (one := self.element()) is not None:
            self.found.append(one)
        return self.found


_SEQUENCES = {
    0x00081115,
    0x00081199,
    0x00082218,
    0x00620002,
    0x52009229,
    0x52009230,
    0x00209221,
}


def parse(raw: bytes) -> File | None:
    """Take a file apart; None where it is too damaged for that."""
    start = 132 if raw[128:132] == b"DICM" else 0
    head = _Reader(raw, "<", False, start)
    meta = []
    while raw[head.at : head.at + 2] == b"\2\0" and (one := head.element()) is not None:
        meta.append(one)
    syntax = next(
        (
            bytes(one.value).rstrip(b"\0 ")
            for one in meta
            if one.tag == 0x00020010 and isinstance(one.value, bytes)
        ),
        b"",
    )
    body, order, deflated = raw[head.at :], "<", False
    if syntax == b"1.2.840.10008.1.2.1.99":
        try:
            body, deflated = zlib.decompress(body, -zlib.MAX_WBITS), True
        except zlib.error:
            return None
    elif syntax == b"1.2.840.10008.1.2.2":
        order = ">"
    reader = _Reader(
        body,
        order,
        syntax == b"1.2.840.10008.1.2" or (not syntax and not body[4:6].isalpha()),
    )
    try:
        found = reader.all()
    except struct.error:
        return None
    return File(
        raw[:start], meta, found, order, reader.implicit, deflated, body[reader.at :]
    )


def pick(
    file: File, rng: np.random.Generator, telling: set[int]
) -> tuple[int, list[Element]]:
    """Choose an element: its place, and the list that it stands in.

    Those that decide the picture come more often.
    """
    among = file.meta if file.meta and rng.random() < 0.1 else file.elements
    places = (
        [n for n, one in enumerate(among) if one.tag in telling]
        if rng.random() < 0.65
        else []
    )
    place = int(rng.choice(places)) if places else int(rng.integers(len(among)))
    while (
        isinstance(among[place].value, list)
        and among[place].value
        and rng.random() < 0.8
    ):
        items = among[place].value
        inner = items[int(rng.integers(len(items)))]
        if not isinstance(inner, list) or not inner:
            break
        among, place = inner, int(rng.integers(len(inner)))
    return place, among


def _written(found: list[Element], order: str, implicit: bool) -> bytes:
    return b"".join(_element(one, order, implicit) for one in found)


def _element(one: Element, order: str, implicit: bool) -> bytes:
    if isinstance(one.value, list):
        parts = [_written(item, order, implicit) for item in one.value]
        value = b"".join(
            struct.pack(order + "HHI", 0xFFFE, 0xE000, len(part)) + part
            for part in parts
        )
    else:
        value = one.value
    length = len(value) if one.length is None else one.length
    tag = struct.pack(order + "HH", one.tag >> 16, one.tag & 0xFFFF)
    if implicit:
        return tag + struct.pack(order + "I", length) + value
    mark = one.vr.encode()
    if mark in _LONG:
        return tag + mark + bytes(2) + struct.pack(order + "I", length) + value
    return tag + mark + struct.pack(order + "H", length & 0xFFFF) + value
