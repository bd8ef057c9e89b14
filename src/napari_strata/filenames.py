r"""File names: endings of scans and of Strata's own files, and names as printable text.

Endings of exports are in `export/formats.py`.

On Linux a file name is bytes, and need not be text at all. Python keeps a byte that it
cannot decode as a lone surrogate. No UTF-8 file, terminal, C++ library or window accepts
such a character. The rules are:

- **Files are opened by their exact bytes**: paths stay `Path` or `str` as Python
  returns them, surrogates included.
- **C++ and Rust libraries get the name of a link** if the bytes are not UTF-8
  (`plain_name`).
- **People read** `printable(path)`: a byte that is not text as `\xe9`, a line break as
  `\n`, other control characters likewise.
- **JSON keeps the path itself** (`json_text`): the surrogate as `\udce9`, so that the
  same path is read back.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import secrets
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr", ".img")
MGH_SUFFIXES = (".mgh", ".mgz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
SCAN_SUFFIXES = (*NIFTI_SUFFIXES, *MGH_SUFFIXES, *ITK_SUFFIXES)
"""Endings of scan files, in lower case; DICOM files are known by their contents."""
CASE_SUFFIX = ".strata"
"""Ending of a case: a proposal with a person's edits."""
CODEBOOK_SUFFIX = ".strata-codebook"
"""Ending of a codebook."""
TEACHING_SUFFIX = ".strata-teaching"
"""Ending of a teaching."""
JOURNAL_SUFFIX = ".strata-journal"
"""Ending of the journal of unfinished work, kept by autosave."""
WEIGHTS_SUFFIX = ".safetensors"
"""Ending of encoder weights."""
MODEL_SUFFIX = ".xml"
"""Ending of an encoder exported to OpenVINO; a .bin file lies beside it."""

ESCAPED = "strata-escaped"
"""Name of the error handler of text files and streams.

It writes what the encoding lacks as `printable` does.
"""

_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_BYTES = re.compile(r"(?:\\x[89a-f][0-9a-f])+")


def printable(text: object) -> str:
    r"""Return a path, or a message with paths, as one line of printable text.

    Parameters
    ----------
    text : object
        Turned into a string first.

    Returns
    -------
    str
        Bytes that are not text as `\xe9`; line breaks, tabs and other control characters
        escaped as Python writes them.
    """
    shown = _UNSHOWN.sub(lambda found: _escape(found[0]), str(text))
    if shown.isascii():
        return shown
    return "".join(
        _escape(letter) if unicodedata.category(letter) == "Cn" else letter
        for letter in shown
    )


def is_text(name: str) -> bool:
    """Return whether a name is text, without bytes that could not be decoded."""
    return _SURROGATE.search(name) is None


def from_printable(text: str) -> str:
    r"""Return a path from a message or a table with `\xe9` turned back into the byte."""
    return _BYTES.sub(
        lambda found: bytes.fromhex(found[0].replace(r"\x", "")).decode(
            "utf-8", "surrogateescape"
        ),
        text,
    )


def json_text(
    document: Any,
    *,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
) -> str:
    """Return JSON as valid UTF-8 with readable letters.

    File names in it are read back unchanged, whatever their bytes.
    """
    text = json.dumps(
        document, indent=indent, separators=separators, ensure_ascii=False
    )
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def name_bytes(text: str) -> bytes:
    """Return the bytes to hash a path by: UTF-8, with surrogates kept."""
    return text.encode("utf-8", "surrogatepass")


@contextmanager
def plain_name(path: Path, *, beside: bool = False) -> Iterator[str]:
    """Yield a UTF-8 name of a file, for libraries that accept no other.

    ITK aborts the process if a name is not UTF-8. If the path has other bytes, the name
    is a link in a private folder, removed at the end.

    Parameters
    ----------
    path : Path
        An existing file, or one to be made whose own name is UTF-8.
    beside : bool
        Whether to link the other files of the folder too, because the library looks
        for them: the voxels of a header, for example.

    Raises
    ------
    OSError
        If the links cannot be made.
    """
    if _is_plain(path):
        yield str(path)
        return
    place = (
        None
        if _is_plain(Path(tempfile.gettempdir()))
        else os.path.abspath(os.sep + "tmp")
    )
    with tempfile.TemporaryDirectory(prefix="strata-", dir=place) as made:
        folder = Path(made, "folder")
        if _is_plain(Path(path.name)):
            folder.symlink_to(path.parent.absolute(), target_is_directory=True)
            yield str(folder / path.name)
            return
        folder.mkdir()
        alias = (
            folder
            / f"scan-{secrets.token_hex(6)}{path.suffix if path.suffix.isascii() else ''}"
        )
        alias.symlink_to(path.absolute())
        for name in os.listdir(path.parent) if beside else ():
            (folder / name).symlink_to(path.parent.absolute() / name)
        yield str(alias)


def _is_plain(path: Path) -> bool:
    """Return whether the bytes of a name are the UTF-8 of its text."""
    try:
        return os.fsencode(path) == str(path).encode("utf-8")
    except UnicodeEncodeError:  # a byte that is no text
        return False


def escape_streams() -> None:
    """Make stdout and stderr accept every character.

    What their encoding lacks is written as `printable` does.
    """
    for stream in (sys.stdout, sys.stderr):
        # None for the replacement streams of tests and notebooks
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=ESCAPED)


def _escape(letter: str) -> str:
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return _SHORT.get(letter) or (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


def _escaped(err: UnicodeError) -> tuple[str, int]:
    if not isinstance(err, UnicodeEncodeError):
        raise err
    return (
        "".join(_escape(letter) for letter in err.object[err.start : err.end]),
        err.end,
    )


codecs.register_error(ESCAPED, _escaped)
