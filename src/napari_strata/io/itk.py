"""NRRD and MetaImage files through SimpleITK, and functions shared with DICOM."""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_strata.errors import GeometryError, ReadError
from napari_strata.filenames import plain_name
from napari_strata.io.compressed import more_bytes, unpacked
from napari_strata.io.grid import (
    FileImage,
    check_shape,
    check_voxel_size,
    make_grid,
    pick_volume,
)
from napari_strata.io.text_header import TextHeader, placed, read_text_header
from napari_strata.volume import FileGrid

sitk.ProcessObject.SetGlobalWarningDisplay(False)

_T = TypeVar("_T")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_one_at_a_time = threading.Lock()
_LONGEST_HEADER = 65536
_MOST_FILES = 10_000
_MOST_SHOWN = 60
_WHOLE = re.compile(r"[0-9]{1,18}")
_FINITE = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_TEXT_NUMBER = re.compile(
    rb"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|[-+]?(?:nan|inf(?:inity)?)",
    re.IGNORECASE,
)
_UNKNOWN = ("nan", "-nan", "+nan", "none")
"""NRRD's words for a number that is not known; ITK reads them as such."""
_TYPE = re.compile(r"(\d+)-bit (unsigned int|signed int|float)")
_FORMS = {"unsigned int": "u", "signed int": "i", "float": "f"}
"""numpy's letter for a kind of number as ITK names it ("16-bit unsigned integer")."""
_NUMBERS = {
    "nrrd": {
        "sizes": "whole",
        "spacings": "each",
        "axismins": "each",
        "axismaxs": "each",
        "spacedirections": "vectors",
        "spaceorigin": "vector",
    },
    "meta": {
        "dimsize": "whole",
        "elementspacing": "each",
        "elementsize": "each",
        "offset": "each",
        "origin": "each",
        "position": "each",
        "centerofrotation": "each",
        "transformmatrix": "matrix",
        "rotation": "matrix",
        "orientation": "matrix",
    },
}
"""How the numbers of a header's geometry are written, by name in `TextHeader.fields`."""


_VECTOR = re.compile(r"\([^()]*\)|[^\s()]+")
_MARK = re.compile("([=:])")
_META_NAMES = {
    name.lower(): name
    for name in (
        "NDims",
        "DimSize",
        "ElementSpacing",
        "ElementSize",
        "Offset",
        "Origin",
        "Position",
        "CenterOfRotation",
        "TransformMatrix",
        "Rotation",
        "Orientation",
        "ElementType",
        "ElementDataFile",
        "ElementNumberOfChannels",
        "BinaryData",
        "BinaryDataByteOrderMSB",
        "ElementByteOrderMSB",
        "CompressedData",
        "CompressedDataSize",
        "HeaderSize",
        "AnatomicalOrientation",
        "DistanceUnits",
    )
}
"""The fields that decide what is read, as MetaImage writes them."""
_META_OTHERS = ("ElementNBits", "ElementOrigin", "ElementDirection")
"""Names that look like one of them, and are none."""
_ALIKE = 0.82
"""Similarity (difflib's ratio) above which a name is a misspelt field."""
_SAME_FIELD = {
    "Origin": "Offset",
    "Position": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "ElementByteOrderMSB": "BinaryDataByteOrderMSB",
}
_DATA_FILE = re.compile(
    rb"\s*(ElementDataFile\s*[=:]|data ?file\s*:)(.*)", re.IGNORECASE | re.DOTALL
)
_PACKED_NAME = re.compile(r"\.(gz|zraw|bz2)$", re.IGNORECASE)
_NUMBERED = re.compile(r"%[0-9]*[dixu]")
_SAFELY_NUMBERED = re.compile(r"[^%]*%0?[0-9]?[dixu][^%]*")
"""One number in a pattern of file names; MetaIO and teem give it to C's printf."""


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep ITK's C++ libraries from writing to standard error.

    Their messages are in the exception too.
    """
    with _one_at_a_time, open(os.devnull, "wb") as nowhere:
        try:
            kept = os.dup(2)
        except OSError:  # a windowed program without standard error
            yield
            return
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def read_itk(
    path: Path, index: int | None, *, suffix: str, every: bool = False
) -> FileImage:
    """Read one 3D volume of an NRRD or MetaImage file, or every volume of it.

    Parameters
    ----------
    path : Path
        The file; the header file where there are two.
    index : int or None
        Which volume of a 4D file, or which value of a file with several per voxel.
    suffix : str
        The file's suffix in lower case.
    every : bool
        Give all volumes, as labels need them: voxels are (i, j, k, volume) then, and
        may be one slice.

    Raises
    ------
    ReadError
        If the file is damaged, of another format, or not a 3D scan of real numbers.
    ChoiceError
        If it holds several volumes and `index` does not choose one.
    GeometryError
        If the directions or a voxel size cannot be used.
    """
    _check_voxel_file(path)
    with plain_name(path, beside=True) as name:
        return _read_itk(path, name, index, suffix=suffix, every=every)


def _read_itk(
    path: Path, name: str, index: int | None, *, suffix: str, every: bool
) -> FileImage:
    source = str(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    header = read_text_header(path, suffix)
    _check_numbers(source, header)
    _check_plain(path, header)
    _check_axes(source, header)
    run_itk(reader.ReadImageInformation, source)
    size, values = reader.GetSize(), reader.GetNumberOfComponents()
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    _check_values(
        source,
        kind,
        values,
        is_colour=header.is_colour if every and header.kind == "nrrd" else not every,
    )
    check_shape(source, size[:3], thin=every)
    volume = 0 if every else pick_volume(source, math.prod(size[3:]) * values, index)
    spacing = np.array(reader.GetSpacing()[:3])
    check_voxel_size(source, spacing)
    direction = np.array(reader.GetDirection()).reshape(len(size), len(size))[:3, :3]
    i, j, k = size[:3]
    affine, notes = placed(
        header, affine_ras(np.array(reader.GetOrigin()[:3]), spacing, direction), source
    )
    notes += _surplus(path, header, math.prod(size) * values, kind)
    grid = make_grid(source, "itk", (i, j, k), affine, suffix=suffix)
    if _is_read_here(path, header):
        stored, more = _unpacked_meta(path, header, (*size[::-1], values), kind)
        notes += more
        volumes = _by_volume(stored, (i, j, k))
        return FileImage(volumes if every else volumes[..., volume], grid, None, notes)
    if header.fields.get("encoding", "").lower() in ("gzip", "gz"):
        n_bytes = math.prod(size) * values * _bits(kind) // 8
        notes += _check_gzip(path, header, n_bytes)
    if every:
        return FileImage(
            _volumes(run_itk(reader.Execute, source), (i, j, k)), grid, None, notes
        )
    if len(size) > 3:
        reader.SetExtractSize([i, j, k] + [0] * (len(size) - 3))
        reader.SetExtractIndex(
            [
                0,
                0,
                0,
                *(
                    int(n)
                    for n in np.unravel_index(volume // values, size[3:], order="F")
                ),
            ]
        )
    image = run_itk(reader.Execute, source)
    if values > 1:
        image = sitk.VectorIndexSelectionCast(image, volume % values)
    return FileImage(voxels(image), grid, None, notes)


def itk_shape(path: Path, *, suffix: str) -> tuple[int, ...]:
    """Return the voxels along i, j, k of one volume, from the header alone.

    Raises the errors of `read_itk` for an invalid header.
    """
    _check_voxel_file(path)
    header = read_text_header(path, suffix)
    _check_numbers(str(path), header)
    _check_plain(path, header)
    _check_axes(str(path), header)
    reader = sitk.ImageFileReader()
    with plain_name(path, beside=True) as name:
        reader.SetFileName(name)
        run_itk(reader.ReadImageInformation, str(path))
    return tuple(int(n) for n in reader.GetSize()[:3])


def write_itk(
    path: Path,
    labels: NDArray[np.generic],
    grid: FileGrid,
    *,
    compressed: bool = True,
) -> None:
    """Write labels or a scan as NRRD or MetaImage.

    Parameters
    ----------
    path : Path
        Ends in .nrrd or .mha.
    labels : (i, j, k) array
        In the file's own order.
    grid : FileGrid
        Its affine is stored as spacing, direction and origin in LPS.
    compressed : bool
        Whether the voxels are compressed (gzip).

    Raises
    ------
    OSError
        If ITK cannot write the file; `atomic_path` tells the user.
    """
    write_image(itk_image(labels, grid), path, compressed=compressed)


def itk_image(data: NDArray[np.generic], grid: FileGrid) -> sitk.Image:
    """Return an ITK image, in LPS, of an array (i, j, k) in the file's own order."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.transpose(2, 1, 0)))
    lps = _LPS_TO_RAS @ grid.affine + 0.0
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def write_image(image: sitk.Image, path: Path, *, compressed: bool = True) -> None:
    """Write an ITK image.

    Raises
    ------
    OSError
        If ITK cannot write the file; `atomic_path` tells the user.
    """
    try:
        with plain_name(path) as name, quiet_stderr():
            sitk.WriteImage(image, name, useCompression=compressed)
    except RuntimeError as err:
        raise OSError(f"ITK could not write it ({last_line(err)})") from err


def affine_ras(
    origin_lps_mm: NDArray[np.float64],
    spacing_mm: NDArray[np.float64],
    direction_lps: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the affine (i, j, k) -> RAS+ mm of an ITK image.

    The conversion is exact: only signs differ between LPS and RAS.
    """
    affine = np.eye(4)
    affine[:3, :3] = direction_lps * spacing_mm
    affine[:3, 3] = origin_lps_mm
    return _LPS_TO_RAS @ affine + 0.0


def voxels(image: sitk.Image) -> NDArray[np.generic]:
    """Return an ITK image's voxels as (i, j, k)."""
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0)


def last_line(err: BaseException) -> str:
    """Return the last line of ITK's message, which holds the cause."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[-1].removeprefix("Reason: ").rstrip(".") if lines else "unknown reason"


def run_itk(action: Callable[[], _T], source: str) -> _T:
    """Run an ITK reader without output to standard error.

    Raises
    ------
    ReadError
        If ITK cannot; `source` names the file.
    """
    try:
        with quiet_stderr():
            return action()
    except RuntimeError as err:
        raise ReadError(
            f"{source} cannot be read: it is damaged, cut short or of another format."
            " Copy it again, or check its name."
        ) from err


def holds_its_voxels(path: Path, suffix: str) -> bool:
    """Return whether an NRRD or MetaImage file names no other file for its voxels.

    The file of a stranger must not name files of this machine.
    """
    header = read_text_header(path, suffix)
    if header.kind == "nrrd":
        return "datafile" not in header.fields and not _named_files(path)
    return header.fields.get("elementdatafile") == "LOCAL"


def _check_voxel_file(path: Path) -> None:
    """Refuse a header whose voxels are in another file that is not there.

    Raises
    ------
    ReadError
        If so.
    """
    for name in _named_files(path):
        if not (path.parent / name).exists():
            raise ReadError(
                f"{path} keeps its voxels in {name}, which is not there. Put it"
                " beside, or copy both again."
            )


def _named_files(path: Path) -> list[str]:
    """Return the names of the files with the voxels; none if they follow the header."""
    with path.open("rb") as file:
        head = file.read(_LONGEST_HEADER)
    lines = head.split(b"\n")
    for n, line in enumerate(lines):
        if not line.rstrip(b"\r"):  # the end of an NRRD header
            break
        if found := _DATA_FILE.match(line):
            said = os.fsdecode(found[2].strip())
            is_meta = found[1].lower().startswith(b"element")
            is_pattern = "%" in said and (is_meta or _NUMBERED.search(said))
            if is_pattern and not _SAFELY_NUMBERED.fullmatch(said):
                raise ReadError(
                    f"{path} keeps its voxels in files whose names cannot be made of"
                    f" the pattern {said[:_MOST_SHOWN]!r}. Rename them without"
                    " %, and list them in the header."
                )
            return _voxel_files(said, lines[n + 1 :])
    return []


def _voxel_files(value: str, after: list[bytes]) -> list[str]:
    """Return the files that a header names.

    One file, a LIST of files below, or a pattern with first, last and step of its
    numbers.
    """
    if not value or value.startswith("LOCAL"):
        return []
    if value.startswith("LIST"):
        return [name for line in after if (name := os.fsdecode(line.strip()))]
    if not _NUMBERED.search(value):
        return [value]
    try:
        pattern, first, last, step = value.split()[:4]
        numbers = range(int(first), int(last) + (1 if int(step) > 0 else -1), int(step))
        return [pattern % number for number in numbers[:_MOST_FILES]]
    except (TypeError, ValueError):
        return []


def _is_read_here(path: Path, header: TextHeader) -> bool:
    """Return whether a MetaImage's voxels are compressed, or plain ones in several files.

    ITK leaves out the last file of a LIST that does not end with a line break, and gives
    what lies in memory.
    """
    fields = header.fields
    if header.kind != "meta" or _is_packed(fields):
        return header.kind == "meta"
    is_binary = fields.get("binarydata", "true").lower() in ("true", "t", "1")
    starts_at_0 = fields.get("headersize", "0") == "0"
    return is_binary and starts_at_0 and len(_named_files(path)) > 1


def _unpacked_meta(
    path: Path, header: TextHeader, shape: tuple[int, ...], kind: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Read the voxels of a MetaImage, compressed or in several files, and give notes.

    The axes are in ITK's order.

    ITK compares no checksum, and gives what lies in memory where the stream is damaged.

    Raises
    ------
    ReadError
        If they are damaged, or fewer than the header says.
    """
    named = _TYPE.search(kind)
    if named is None:
        raise ReadError(f"{path} has voxels of an unknown type ({kind}).")
    dtype = np.dtype(f"{_FORMS[named[2]]}{int(named[1]) // 8}")
    names = _named_files(path)
    size = header.fields.get("compresseddatasize", "0")
    limit = None if names or not int(size) else int(size)
    needed = math.prod(shape) * dtype.itemsize
    share = needed // max(len(names), 1)
    found, has, is_packed = bytearray(), 0, _is_packed(header.fields)
    for n, name in enumerate(names or [path.name], 1):
        with _opened(path, name) as file:
            if not names:
                _skip_header(file, header)
            parts = (
                unpacked(file, str(path), limit=limit, zlib_too=True)
                if is_packed
                else [file.read(share)]
            )
            for part in parts:
                has += len(part)
                found += part[: n * share - len(found)]
        if len(found) < n * share:
            break
    if len(found) < needed:
        raise ReadError(
            f"{path} is cut short: its voxels are {len(found):,} bytes, its header asks"
            f" for {needed:,}. Copy it again."
        )
    stored = np.frombuffer(found, dtype.newbyteorder(_meta_order(header.fields)))
    return stored.astype(dtype, copy=False).reshape(shape), more_bytes(has - needed)


def _surplus(path: Path, header: TextHeader, count: int, kind: str) -> tuple[str, ...]:
    """Return a note if plain voxels take more bytes than `count` values of a kind.

    A transfer as text adds bytes to some files.

    Raises
    ------
    ReadError
        If voxels that are written as text are not numbers, or not `count` of them.
    """
    fields = header.fields
    encoding = fields.get("encoding", "raw").lower()
    if fields.get("binarydata", "true").lower() in ("false", "f", "0"):
        encoding = "text"
    plain = not _is_packed(fields) and not fields.keys() & {
        "headersize",
        "byteskip",
        "lineskip",
    }
    # NRRD's kinds of values beside space are not all kept as they are stored
    if not plain or not _bits(kind) or "matrix" in fields.get("kinds", ""):
        return ()
    more = 0
    names = _named_files(path)
    share = count // max(len(names), 1)
    for name in names or [path.name]:
        with _opened(path, name) as file:
            if not names:
                _skip_header(file, header)
            if encoding == "raw":
                behind = file.tell()
                has = file.seek(0, os.SEEK_END) - behind
                more += max(0, has - share * _bits(kind) // 8)
            elif encoding == "hex":
                has = len(b"".join(file.read().split())) // 2
                more += max(0, has - share * _bits(kind) // 8)
            elif encoding in ("text", "txt", "ascii"):
                _check_text(path, file.read(), share)
    return more_bytes(more)


def _check_text(path: Path, text: bytes, count: int) -> None:
    """Refuse voxels written as numbers that are no numbers, or not so many.

    Raises
    ------
    ReadError
        If so.
    """
    words = re.split(rb"[\s,]+", text.strip())
    wrong = next((word for word in words if not _TEXT_NUMBER.fullmatch(word)), None)
    if wrong is not None or len(words) != count:
        what = (
            f"{len(words):,} numbers where its header asks for {count:,}"
            if wrong is None
            else f"{wrong[:_MOST_SHOWN].decode('latin-1')!r} among its voxels"
        )
        raise ReadError(f"{path} has {what}: it is damaged. Copy it again.")


def _bits(kind: str) -> int:
    """Return the bits of a value of a type as ITK names it; 0 if it is unknown."""
    found = _TYPE.search(kind)
    return int(found[1]) if found else 0


def _check_gzip(path: Path, header: TextHeader, n_bytes: int) -> tuple[str, ...]:
    """Read the voxels of a gzip-compressed NRRD to the end of their stream.

    ITK stops at the last voxel, and does not compare the checksum. A note tells where
    there are more than `n_bytes`.

    Raises
    ------
    ReadError
        If they are damaged.
    """
    names = _named_files(path)
    skipped = header.fields.get("lineskip", "0")
    more = 0
    for name in names or [path.name]:
        with _opened(path, name) as file:
            if not names:
                _skip_header(file, header)
            for _ in range(int(skipped) if _WHOLE.fullmatch(skipped) else 0):
                if not file.readline(_LONGEST_HEADER):
                    break
            has = sum(map(len, unpacked(file, str(path))))
        more += max(0, has - n_bytes // max(len(names), 1))
    if "byteskip" in header.fields or "matrix" in header.fields.get("kinds", ""):
        return ()
    return more_bytes(more)


def _opened(path: Path, name: str) -> BinaryIO:
    """Open one of the files with the voxels of a header.

    Raises
    ------
    ReadError
        If it cannot be opened.
    """
    try:
        return (path.parent / name).open("rb")
    except OSError as err:
        raise ReadError(
            f"{path} keeps its voxels in {name}, which cannot be read: {err.strerror}."
        ) from err


def _skip_header(file: BinaryIO, header: TextHeader) -> None:
    """Move to the first byte behind the header, where the voxels begin."""
    while line := file.readline(_LONGEST_HEADER):
        if header.kind == "nrrd" and not line.rstrip(b"\r\n"):
            return
        if (
            header.kind == "meta"
            and re.split(b"[=:]", line, maxsplit=1)[0].strip() == b"ElementDataFile"
        ):
            return


def _check_values(
    source: str, kind: str, values: int, *, is_colour: bool = True
) -> None:
    if "complex" in kind:
        raise ReadError(
            f"{source} has complex voxels. Strata needs real intensities: export the"
            " magnitude image."
        )
    if is_colour and values in (3, 4) and "8-bit unsigned" in kind:
        raise ReadError(
            f"{source} is a colour (RGB) image. Strata needs one intensity per voxel:"
            " export the scan in grey values."
        )


def _check_numbers(source: str, header: TextHeader) -> None:
    """Refuse a header whose sizes or places are no numbers, or too few.

    ITK takes "1,5" for 1, "nan" for 0, or reads on in the next line.

    Raises
    ------
    ReadError
        If so.
    """
    fields = header.fields
    said = fields.get("dimension" if header.kind == "nrrd" else "ndims", "").strip()
    if said and not _WHOLE.fullmatch(said):
        raise ReadError(
            f"{source} says that it has {said[:_MOST_SHOWN]!r} dimensions, which is no"
            " number. Repair its header."
        )
    for name in sorted(fields.keys() & _NUMBERS[header.kind].keys()):
        kind, value = _NUMBERS[header.kind][name], fields[name]
        words = _vector_words(value) if "vector" in kind else value.split()
        known = _WHOLE if kind == "whole" else _FINITE
        good = all(
            known.fullmatch(word)
            or (kind != "whole" and header.kind == "nrrd" and word.lower() in _UNKNOWN)
            for word in words
        )
        wanted = (
            int(said or 3) ** (2 if kind == "matrix" else 1)
            if header.kind == "meta"
            else len(words)
        )
        if not good or len(words) != wanted:
            raise ReadError(
                f"{source} has a header whose {name} is not made of {wanted} numbers"
                f" ({value[:_MOST_SHOWN]!r}), so the place of its voxels is unknown."
                " Repair its header, or export the scan again."
            )

    if header.kind == "meta":
        _check_meta_lines(Path(source))
        _check_storage(source, fields)


def _check_meta_lines(path: Path) -> None:
    """Refuse a MetaImage header with lines that ITK passes over, or reads otherwise.

    It ignores a name whose capitals are wrong, takes the line behind one without "=" for
    its value, and of two lines of one meaning takes either.

    Raises
    ------
    ReadError
        If so.
    """
    with path.open("rb") as file:
        lines = file.read(_LONGEST_HEADER).split(b"\n")
    if not any(_DATA_FILE.match(line) for line in lines):
        raise ReadError(
            f"{path} cannot be read: it is damaged, cut short or of another format."
            " Copy it again, or check its name."
        )
    said: dict[str, tuple[str, str]] = {}
    for line in lines:
        text = line.decode("latin-1").strip()
        name, mark, value = (
            part.strip() for part in [*_MARK.split(text, maxsplit=1), "", ""][:3]
        )
        if text and not (name and mark):
            raise ReadError(
                f"{path} has a line in its header that is no field"
                f" ({text[:_MOST_SHOWN]!r}). Repair it, or export it again."
            )
        known = _META_NAMES.get(name.lower())
        if known is None and name not in _META_OTHERS:
            near = get_close_matches(name, _META_NAMES.values(), n=1, cutoff=_ALIKE)
            known = near[0] if near else None
        if known is not None and name != known:
            raise ReadError(
                f"{path} has a field {name[:_MOST_SHOWN]!r} in its header, which MetaImage"
                f" writes {known}. Repair it, or export it again."
            )
        other = said.setdefault(_SAME_FIELD.get(name, name), (name, value))
        if known is not None and other[1] != value:
            raise ReadError(
                f"{path} says in its header {other[0]} = {other[1][:_MOST_SHOWN]!r} and"
                f" {name} = {value[:_MOST_SHOWN]!r}. Repair it, or export it again."
            )
        if known == "ElementDataFile":
            return


def _vector_words(value: str) -> list[str]:
    """Return the numbers of NRRD vectors, such as "(1,0,0) none"; "" for one left out."""
    words: list[str] = []
    for vector in _VECTOR.findall(value):
        words += [one.strip() for one in vector.strip("()").split(",")]
    return words if not _VECTOR.sub("", value).strip() else [""]


def _check_storage(source: str, fields: Mapping[str, str]) -> None:
    """Refuse a MetaImage that says unclearly how its voxels are stored.

    ITK guesses, or reads the header as voxels.

    Raises
    ------
    ReadError
        If so.
    """
    for name in (
        "binarydata",
        "binarydatabyteordermsb",
        "elementbyteordermsb",
        "compresseddata",
    ):
        said = fields.get(name, "true")
        if said.lower() not in ("true", "false", "t", "f", "1", "0"):
            raise ReadError(
                f"{source} has a header whose {name} is neither True nor False"
                f" ({said[:_MOST_SHOWN]!r}). Repair its header."
            )
    packed, inside = (
        _is_packed(fields),
        fields.get("elementdatafile", "").upper()
        in (
            "LOCAL",
            "",
        ),
    )
    skipped = fields.get("headersize", "0")
    if (skipped not in ("0", "-1") and inside) or (skipped != "0" and packed):
        raise ReadError(
            f"{source} says that its voxels start elsewhere than they do (HeaderSize"
            f" {skipped[:_MOST_SHOWN]!r}). Repair its header."
        )
    size = fields.get("compresseddatasize", "0")
    if packed and not _WHOLE.fullmatch(size):
        raise ReadError(
            f"{source} says that its compressed voxels are {size[:_MOST_SHOWN]!r} bytes"
            " long (CompressedDataSize), which is no number. Repair its header."
        )


def _check_plain(path: Path, header: TextHeader) -> None:
    """Refuse voxels that are compressed, though the header does not say so.

    Raises
    ------
    ReadError
        If the header, or the name of a file, says both.
    """
    fields = header.fields
    size = fields.get("compresseddatasize", "0")
    if header.kind == "meta":
        unclear = not _is_packed(fields) and size != "0"
        plain = not _is_packed(fields)
    else:
        unclear, plain = False, fields.get("encoding", "raw").lower() == "raw"
    if plain and (unclear or any(map(_PACKED_NAME.search, _named_files(path)))):
        raise ReadError(
            f"{path} does not say that its voxels are compressed, which their length or"
            " name does. Repair its header, or copy it again."
        )


def _meta_order(fields: Mapping[str, str]) -> Literal["<", ">"]:
    """Return the byte order of a MetaImage's voxels."""
    names = ("binarydatabyteordermsb", "elementbyteordermsb")
    said = next((fields[name] for name in names if name in fields), "false")
    return ">" if said.lower() in ("true", "t", "1") else "<"


def _is_packed(fields: Mapping[str, str]) -> bool:
    return fields.get("compresseddata", "").lower() not in ("", "false", "f", "0")


def _check_axes(source: str, header: TextHeader) -> None:
    """Refuse NRRD headers that ITK takes for damaged, or fills with a guess.

    Raises
    ------
    ReadError
        If an axis has neither direction nor kind, or units are not written as NRRD asks
        for.
    GeometryError
        If one of the three axes of space has no direction.
    """
    if header.kind != "nrrd":
        return
    vectors = header.directions
    if (
        vectors is not None
        and None in vectors
        and "kinds" not in header.fields
        and len(vectors) > 3
    ):
        raise ReadError(
            f"{source} has an axis without a direction, and does not say what it is."
            ' Add a line of NRRD kinds to its header, for example "kinds: domain'
            ' domain domain list".'
        )
    known = [vector for vector in vectors or [] if vector is not None]
    if (
        vectors is not None
        and len(vectors) > 2
        and len(known) < 3
        and all(len(vector) > 2 for vector in known)
    ):
        raise GeometryError(
            f"{source} gives no direction for every axis of space (NRRD space"
            " directions). Repair its header."
        )
    if header.fields.get("encoding", "").lower() in ("bzip2", "bz2"):
        raise ReadError(
            f"{source} is compressed with bzip2, which Strata does not read. Save it"
            " with gzip or raw encoding."
        )
    units = header.fields.get("spaceunits")
    if units is not None and units.count('"') < 6:
        raise ReadError(
            f"{source} has NRRD space units ({units}) that are not one in quotes for"
            ' each axis, as "um" "um" "um".'
        )


def _volumes(image: sitk.Image, shape: tuple[int, int, int]) -> NDArray[np.generic]:
    """Return an ITK image's voxels as (i, j, k, volume)."""
    data = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() == 1:
        data = data[..., None]
    return _by_volume(data, shape)


def _by_volume(
    data: NDArray[np.generic], shape: tuple[int, int, int]
) -> NDArray[np.generic]:
    """Move (..., k, j, i, value) to (i, j, k, volume).

    In memory, the values of one voxel follow each other.
    """
    moved = np.moveaxis(data, (-2, -3, -4), (0, 1, 2))
    return moved.reshape(*shape, -1)
