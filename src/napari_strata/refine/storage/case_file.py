"""Case files: one zip archive with a whole case, except for the scan.

A case opens without the scan, the encoder and its weights. Nothing in it is pickled.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_strata._version import __version__
from napari_strata.errors import CaseError, GeometryError, StrataError, WriteError
from napari_strata.filenames import CASE_SUFFIX
from napari_strata.io.atomic import atomic_path
from napari_strata.proposal.cut_confidence import CutConfidence
from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.proposal import Proposal, TreeName
from napari_strata.refine.history.initial_state import InitialState
from napari_strata.refine.history.journal import Journal, JournalStep
from napari_strata.refine.history.snapshot import state_arrays, state_from, state_values
from napari_strata.refine.state.assignment import State
from napari_strata.refine.storage.lazy_scan import LazyScan
from napari_strata.volume import FileGrid, Geometry, Volume

SUFFIX = CASE_SUFFIX
FORMAT = 2
"""Version of the case file's layout."""

_PASS_IT = "Read the scan and pass it: Refinement.load(case, volume=...)."
_DAMAGE = (
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    RuntimeError,
)
_ARCHIVE_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error)


@dataclass(frozen=True, slots=True, eq=False)
class CaseContents:
    """Contents of a case file.

    Parameters
    ----------
    proposal : Proposal
        The proposal.
    start : InitialState
        The initial state.
    state : State
        The current state.
    journal : Journal
        All steps, done and undone.
    """

    proposal: Proposal
    start: InitialState
    state: State
    journal: Journal


def write_case(path: str | Path, contents: CaseContents) -> None:
    """Write a case file under a temporary name, then rename it.

    Raises
    ------
    WriteError
        If it cannot be written, or its name does not end in .strata, so that no scan is
        replaced by mistake.
    """
    if Path(path).suffix.lower() != SUFFIX:
        raise WriteError(
            f"Cannot write the case to {path}: the name of a case ends in {SUFFIX}."
            " Labels are written by strata.write."
        )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write_archive(file, contents)


def write_archive(file: IO[bytes], contents: CaseContents) -> None:
    """Write a case into an open file.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    proposal, state, journal = contents.proposal, contents.state, contents.journal
    arrays = _proposal_arrays(proposal) | {
        f"state {name}": array for name, array in state_arrays(state).items()
    }
    manifest = {
        "format": FORMAT,
        "napari_strata": __version__,
        "volume": _volume_record(proposal.volume),
        "descriptor_names": proposal.descriptor_names,
        "confidence_cuts": (
            proposal.cut_confidence.cuts if proposal.cut_confidence else ()
        ),
        "provenance": proposal.provenance,
        "start": [contents.start.tree, contents.start.n],
        "state": state_values(state),
        "done": len(journal.done),
        "undone": len(journal.undone),
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=3) as archive:
        archive.writestr("case.json", json.dumps(manifest, default=str, indent=1))
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", _npy(array))
        packed = {
            f"journal/{i:06d}.bin": step.packed
            for i, step in enumerate([*journal.done, *reversed(journal.undone)])
        }
        packed |= {
            f"snapshots/{count}.bin": data for count, data in journal.snapshots.items()
        }
        if contents.start.labels is not None:
            packed["start.bin"] = contents.start.labels
        for name, data in packed.items():
            archive.writestr(name, data, compress_type=zipfile.ZIP_STORED)


@dataclass(frozen=True, slots=True, eq=False)
class ScanOfCase:
    """The scan of a case: its path and part ("" and None if unknown), grid and hash."""

    path: str
    index: int | None
    series: str | None
    geometry: Geometry
    scan_hash: str

    def is_like(self, volume: Volume) -> bool:
        """Return whether a scan has the same grid and intensities."""
        return not _difference(volume, self.geometry, self.scan_hash)


def scan_of_case(path: str | Path) -> ScanOfCase:
    """Return the scan of a case, without reading the rest of the file.

    Raises
    ------
    CaseError
        If it is not a case that this version can read.
    """
    with _opened(path) as (_, manifest):
        record = manifest["volume"]
        geometry = Geometry(
            tuple(record["shape"]), np.array(record["affine"], np.float64)
        )
        return ScanOfCase(
            str(record["path"]),
            record.get("index"),
            record.get("series"),
            geometry,
            str(record["hash"]),
        )


def steps_in(path: str | Path) -> tuple[bytes, ...]:
    """Return the packed steps of a case file: done, then undone in the order of redoing.

    Raises
    ------
    CaseError
        If it is not a case that this version can read.
    """
    with _opened(path) as (archive, manifest):
        return tuple(
            archive.read(f"journal/{i:06d}.bin")
            for i in range(manifest["done"] + manifest["undone"])
        )


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, Any]]]:
    """Open a case file, and yield the archive and its manifest.

    Errors inside the block are reported as damage of the file.

    Raises
    ------
    CaseError
        If it is not a case that this version can read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read("case.json"))
            _check_format(path, int(manifest["format"]))
            yield archive, manifest
    except OSError as err:
        raise CaseError(
            f"Cannot open the case {path}: {err.strerror or err}. Check the path."
        ) from err
    except (*_DAMAGE, *_ARCHIVE_DAMAGE, GeometryError) as err:
        raise CaseError(
            f"{path} is not a whole Strata case: it is damaged or another kind of file."
            " Use a backup."
        ) from err


def check_replaceable(path: str | Path, steps: tuple[bytes, ...] = ()) -> None:
    """Check that no edits are lost if a case with some steps is written under a name.

    An existing case file must not contain other steps.

    Raises
    ------
    WriteError
        If edits would be lost, or the existing file cannot be read.
    """
    if not Path(path).exists():
        return
    try:
        found = steps_in(path)
    except CaseError as err:
        raise WriteError(
            f"{path} exists and cannot be read as a case. Choose another name, or move"
            " it away."
        ) from err
    if found != steps[: len(found)]:
        last = JournalStep.from_bytes(found[-1]).name
        raise WriteError(
            f"{path} holds {len(found)} edits that would be lost (the last one:"
            f" {last}). Choose another name, or move it away."
        )


def read_case(path: str | Path, volume: Volume | None = None) -> CaseContents:
    """Read a case file.

    Parameters
    ----------
    path : str or Path
        The case file.
    volume : Volume, optional
        The scan. By default it is read from its recorded path when its voxels are first
        used.

    Raises
    ------
    CaseError
        If the file is missing, damaged, made by a newer version, or `volume` is another
        scan.
    """
    with _opened(path) as (archive, manifest):
        names = archive.namelist()
        arrays = {
            Path(n).stem: _from_npy(archive.read(n))
            for n in names
            if n.endswith(".npy")
        }
        journal = _journal(archive, manifest["done"], manifest["undone"])
        labels = archive.read("start.bin") if "start.bin" in names else None
        scan = _volume(manifest["volume"], volume, Path(path).absolute().parent)
        proposal = _proposal(manifest, arrays, scan)
        kept = {
            name.removeprefix("state "): array
            for name, array in arrays.items()
            if name.startswith("state ")
        }
        state = state_from(kept, manifest["state"])
        tree, n = manifest["start"]
        start = InitialState(tree, int(n), labels)
    return CaseContents(proposal, start, state, journal)


def _check_format(path: str | Path, found: int) -> None:
    if found > FORMAT:
        raise CaseError(
            f"{path} was made by a newer version of Strata. Update napari-strata to"
            " open it."
        )
    if found < FORMAT:
        raise CaseError(
            f"{path} was made by a version of Strata before its first release, and"
            " cannot be opened. Export its labels with that version and start from"
            " them (strata refine SCAN --from-labels LABELS), or propose the scan"
            " again."
        )


def _journal(archive: zipfile.ZipFile, done: int, undone: int) -> Journal:
    steps = [
        JournalStep.from_bytes(archive.read(f"journal/{i:06d}.bin"))
        for i in range(done + undone)
    ]
    kept = [name for name in archive.namelist() if name.startswith("snapshots/")]
    return Journal(
        steps[:done],
        steps[done:][::-1],
        {int(Path(name).stem): archive.read(name) for name in kept},
    )


def _npy(array: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _from_npy(data: bytes) -> NDArray[Any]:
    return cast(NDArray[Any], np.load(BytesIO(data), allow_pickle=False))


def _proposal_arrays(proposal: Proposal) -> dict[str, NDArray[Any]]:
    # Neighbours mostly share a supervoxel, so differences along the row are mostly 0 and
    # compress 5 times better.
    arrays: dict[str, NDArray[Any]] = {
        "supervoxels": (
            np.diff(proposal.supervoxels.ravel(), prepend=np.int32(0)).astype(np.int32)
        )
    }
    arrays |= {
        name: getattr(proposal, name) for name in ("descriptors", "confidence", "edges")
    }
    if proposal.descriptor_scale is not None:
        arrays["descriptor_scale"] = proposal.descriptor_scale
    if proposal.cut_confidence is not None:
        arrays["cut_confidence"] = proposal.cut_confidence.values
    names: tuple[TreeName, ...] = ("regions", "tissues")
    for tree in names:
        hierarchy = proposal.tree(tree)
        arrays |= {
            f"tree {tree} {attribute.name}": np.asarray(
                getattr(hierarchy, attribute.name)
            )
            for attribute in fields(Hierarchy)
        }
    return arrays


def _proposal(
    manifest: dict[str, Any], arrays: dict[str, NDArray[Any]], volume: Volume
) -> Proposal:
    supervoxels = np.cumsum(arrays["supervoxels"], dtype=np.int32).reshape(
        volume.geometry.shape_zyx
    )
    if supervoxels.min() != 0 or supervoxels.max() + 1 != len(arrays["descriptors"]):
        raise ValueError("supervoxels and descriptors do not match")
    return Proposal(
        volume=volume,
        supervoxels=supervoxels,
        descriptors=arrays["descriptors"],
        descriptor_names=tuple(manifest["descriptor_names"]),
        region_tree=_tree(arrays, "regions"),
        tissue_tree=_tree(arrays, "tissues"),
        confidence=arrays["confidence"],
        edges=arrays["edges"],
        provenance=manifest["provenance"],
        descriptor_scale=arrays.get("descriptor_scale"),
        cut_confidence=_cut_confidence(manifest, arrays),
    )


def _cut_confidence(
    manifest: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> CutConfidence | None:
    """Return the confidence per cut; None in cases of earlier versions."""
    if "cut_confidence" not in arrays:
        return None
    cuts = tuple((str(tree), int(n)) for tree, n in manifest["confidence_cuts"])
    return CutConfidence(cuts, arrays["cut_confidence"])


def _tree(arrays: dict[str, NDArray[Any]], name: TreeName) -> Hierarchy:
    values: dict[str, Any] = {
        attribute.name: arrays[f"tree {name} {attribute.name}"]
        for attribute in fields(Hierarchy)
    }
    return Hierarchy(**values | {"n_background": int(values["n_background"])})


def _volume_record(volume: Volume) -> dict[str, Any]:
    data = cast(Any, volume.data)
    file = volume.geometry.file
    return {
        "shape": volume.geometry.shape_zyx,
        "affine": volume.geometry.affine.tolist(),
        "file": (
            None
            if file is None
            else {
                attribute.name: _plain(getattr(file, attribute.name))
                for attribute in fields(FileGrid)
            }
        ),
        "modality": volume.modality,
        "name": volume.name,
        "path": str(Path(volume.path).absolute()) if volume.path else "",
        "notes": volume.notes,
        "index": volume.index,
        "series": volume.series,
        "dtype": data.dtype.str,
        "hash": known_hash(volume),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist()}
    return (
        {"base64": base64.b64encode(value).decode()}
        if isinstance(value, bytes)
        else value
    )


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict) and "array" in value:
        return np.array(value["array"], np.float64)
    if isinstance(value, dict) and "base64" in value:
        return base64.b64decode(value["base64"])
    return tuple(value) if isinstance(value, list) else value


def known_hash(volume: Volume) -> str:
    """Return a scan's hash; a `LazyScan` is not read for it."""
    data = cast(Any, volume.data)
    return data.scan_hash if isinstance(data, LazyScan) else scan_hash(volume.data)


def scan_hash(data: NDArray[np.generic]) -> str:
    """Return the SHA-256 of a scan's shape, type and intensities."""
    digest = hashlib.sha256(f"{data.shape} {data.dtype.str}".encode())
    digest.update(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _volume(record: dict[str, Any], given: Volume | None, folder: Path) -> Volume:
    file = (
        None
        if record["file"] is None
        else FileGrid(
            **{key: _from_plain(value) for key, value in record["file"].items()}
        )
    )
    geometry = Geometry(
        tuple(record["shape"]), np.array(record["affine"], np.float64), file
    )
    if given is not None:
        _check_same_scan(record, given, geometry)
        return given
    scan = LazyScan(
        _reader(record, folder),
        geometry.shape_zyx,
        np.dtype(record["dtype"]),
        record["hash"],
    )
    return Volume(
        data=cast(NDArray[np.generic], scan),
        geometry=geometry,
        modality=record["modality"],
        name=record["name"],
        path=record["path"],
        notes=tuple(record["notes"]),
        index=record.get("index"),
        series=record.get("series"),
    )


def _check_same_scan(
    record: dict[str, Any], volume: Volume, geometry: Geometry
) -> None:
    what = _difference(volume, geometry, record["hash"])
    if not what:
        return
    given, made_on = (
        str(path or name)
        for path, name in ((volume.path, volume.name), (record["path"], record["name"]))
    )
    raise CaseError(
        f"{given} is not the scan of this case, which was made on {made_on}: {what}."
        " Give the scan as it was then; labels can be had without it, by"
        " Refinement.load(case).segmentation."
    )


def _difference(volume: Volume, geometry: Geometry, known: str) -> str:
    """Return how a scan differs from that of a case, "" if it does not."""
    if volume.geometry.shape_zyx != geometry.shape_zyx or not np.allclose(
        volume.geometry.affine, geometry.affine, atol=1e-3
    ):
        return "it lies on another grid"
    return "" if scan_hash(volume.data) == known else "its voxels differ"


def _reader(record: dict[str, Any], folder: Path) -> Any:
    """Return a function that reads the case's scan.

    It reads from the recorded path, or from the case's folder if both were moved.
    """

    def read_scan() -> NDArray[np.generic]:
        if not record["path"]:
            raise CaseError(
                f"The scan of this case ({record['name']}) was made in memory and is"
                f" not in the case file. {_PASS_IT}"
            )
        problems: list[CaseError] = []
        for place in dict.fromkeys(
            (record["path"], str(folder / file_name(record["path"])))
        ):
            try:
                return _same_scan(record, place)
            except CaseError as err:
                problems.append(err)
        raise problems[0]

    return read_scan


def _same_scan(record: dict[str, Any], place: str) -> NDArray[np.generic]:
    from napari_strata.io.files import read

    try:
        volume = read(
            place,
            index=record.get("index"),
            series=record.get("series"),
            modality=record["modality"],
        )
    except StrataError as err:
        raise CaseError(
            f"The scan of this case cannot be read from {place}. {_PASS_IT}"
        ) from err
    if (
        volume.data.shape != tuple(record["shape"])
        or scan_hash(volume.data) != record["hash"]
    ):
        raise CaseError(f"{place} is not the scan of this case any more. {_PASS_IT}")
    return volume.data


def file_name(path: str) -> str:
    """Return the last part of a path from any operating system."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]
