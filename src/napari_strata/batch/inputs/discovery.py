"""Search of folders for scans: what is taken, and what is skipped for which reason.

Skipped without a reason are only hidden system files, documents (JSON, text, pictures)
and the batch's own outputs.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from napari_strata.batch.inputs import bids
from napari_strata.export.outputs import outputs_beside, read_sidecar
from napari_strata.filenames import SCAN_SUFFIXES
from napari_strata.io.atomic import file_suffix, half_of_pair
from napari_strata.io.dicom.series import is_dicom

_DICOM_SUFFIXES = (".dcm", ".ima")
_PACKED = (".bz2", ".xz", ".zst", ".z", ".zip", ".7z", ".gz")
_OTHER_IMAGES = (
    *(
        f"{scan}{packed}"
        for scan in (".nii", ".hdr", ".img", ".nrrd", ".mha", ".mhd")
        for packed in _PACKED
    ),
    *(
        ".mnc",
        ".mnc.gz",
        ".minc",
        ".rec",
        ".v",
        ".brik",
        ".brik.gz",
        ".mif",
        ".mif.gz",
        ".gipl",
        ".gipl.gz",
        ".img.bz2",
    ),
    *(".tif", ".tiff", ".vti", ".fdf", ".2dseq", ".isq", ".vol", ".dcm.gz", ".mgh.gz"),
)
"""Endings of images that Strata cannot read, in lower case."""
_RAW_VOXELS = (".raw", ".zraw", ".raw.gz", ".zraw.gz")
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_MOST_MEMBERS = 8
"""Members of an archive that are checked: one may be large."""
_LONGEST_HEADER = 65536
"""Bytes of a header that are searched for the name of its file of voxels."""
_VisitedFolders = dict[tuple[int, int], Path]
"""Folders that were searched, by device and inode."""
_APPLE_DOUBLE = b"\x00\x05\x16\x07"
"""First bytes of an AppleDouble file: macOS metadata of another file."""


@dataclass(frozen=True, slots=True)
class SkippedPath:
    """A file or folder that was found and is not taken.

    Parameters
    ----------
    path : Path
        The file or folder.
    reason : str
        Why it is passed over, and what to do, in a few words.
    may_be_scan : bool
        Whether a person may want to propose on it: then it is named, and the exit code
        is 1. False for other kinds of file (masks, time series, labels of Strata).
    """

    path: Path
    reason: str
    may_be_scan: bool


@dataclass(slots=True)
class Search:
    """Search of folders for scans that keeps what it skips.

    Parameters
    ----------
    outputs : Path or None
        Output folder of the batch, which is not searched.
    skipped : dict
        What the searches skipped, by path.
    """

    outputs: Path | None = None
    skipped: dict[Path, SkippedPath] = field(default_factory=dict)

    def in_folder(
        self, folder: Path, visited: _VisitedFolders | None = None
    ) -> Iterator[Path]:
        """Yield scan files and DICOM folders in a folder and below it, in order of name.

        In a BIDS data set, only structural scans are found. `visited` holds the folders
        that were searched already; new ones are added to it.
        """
        visited = {} if visited is None else visited
        if bids.is_dataset(folder):
            yield from self._in_dataset(folder, visited)
            return
        for file in self.files(folder, visited):
            place = self._place(file)
            if place is not None and place == file and bids.is_phase(file):
                self._skip(
                    file,
                    "a phase image, not the magnitude; name the file to propose on it",
                    may_be_scan=True,
                )
            elif place is not None:
                yield place

    def in_glob(self, pattern: str) -> Iterator[Path]:
        """Yield the scans that a glob finds; folders that it finds are searched."""
        visited: _VisitedFolders = {}
        for match in sorted(
            self._matches(pattern), key=lambda path: (path.is_symlink(), path.parts)
        ):
            if _is_folder(match):
                if not match.is_symlink() or self._leads_on(match, visited):
                    yield from self.in_folder(match, visited)
            elif not self._is_output(match):
                place = self._place(match)
                if place is not None:
                    yield place

    def _matches(self, pattern: str) -> list[Path]:
        """Expand a glob: "*" as the shell does, "**" for all folders below, each once."""
        parts = Path(pattern).parts
        fixed = next(k for k, part in enumerate(parts) if glob.has_magic(part))
        paths = [Path(os.path.abspath(Path(*parts[:fixed])))]
        for number, part in enumerate(parts[fixed:], fixed + 1):
            if part == "**":
                paths = list(
                    dict.fromkeys(
                        folder
                        for path in paths
                        if path.is_dir()
                        for folder, _ in self._listed(path, {})
                    )
                )
                if number == len(parts):
                    paths += [
                        path.joinpath(name)
                        for path in paths
                        for name in _names_in(path)
                        if not _is_hidden(name)
                    ]
            elif glob.has_magic(part):
                matching = [
                    path / name
                    for path in paths
                    for name in _names_in(path)
                    if name == part or fnmatch.fnmatch(name, part)
                ]
                paths = [
                    path
                    for path in matching
                    if part.startswith(".") or not _is_hidden(path.name)
                ]
            else:
                paths = [path / part for path in paths if os.path.lexists(path / part)]
        return paths

    def _in_dataset(self, root: Path, visited: _VisitedFolders) -> Iterator[Path]:
        """Yield the structural scans of a BIDS data set; its other images are skipped."""
        for file in self.files(root, visited):
            folders = file.relative_to(root).parts[:-1]
            if (
                folders
                and not bids.is_subject(folders[0])
                and folders[0].lower() in bids.NO_RAW_DATA
            ):
                if _has_image_ending(file) and not file.name.startswith("."):
                    where = (
                        f"it lies in {folders[0]}, where a BIDS data set keeps no"
                        " scans; name the folder to search it"
                    )
                    self._skip(_one_for_series(file), where, may_be_scan=False)
                continue
            place = self._place(file)
            if place is None:
                continue
            if place != file and place.is_dir():
                self._skip(
                    place,
                    "DICOM in a BIDS data set; name the folder itself to propose on it",
                    may_be_scan=True,
                )
                continue
            skip = bids.skip_reason(place.relative_to(root))
            if skip is None:
                yield place
            else:
                self._skip(place, skip.reason, may_be_scan=skip.may_be_scan)

    def files(
        self, folder: Path, visited: _VisitedFolders | None = None
    ) -> Iterator[Path]:
        """Yield all files in a folder and below it, in order of name, each folder once."""
        visited = {} if visited is None else visited
        for path, names in self._listed(folder, visited):
            yield from (path / name for name in names)

    def _listed(self, top: Path, seen: _VisitedFolders) -> list[tuple[Path, list[str]]]:
        """Return a folder and all below it with the names of their files, each once.

        They are in order of name. Links are followed if they lead to folders that were not seen.
        """
        links: list[Path] = []
        folders = list(self._real_folders(top, seen, links))
        while links:
            link = links.pop(0)
            if self._leads_on(link, seen) and not _leads_up(link, top):
                folders += self._real_folders(link, seen, links)
        return sorted(folders, key=lambda one: one[0].parts)

    def _leads_on(self, link: Path, visited: _VisitedFolders) -> bool:
        """Return whether a link leads to a folder that has not been searched."""
        earlier = visited.get(_identity(link))
        if _leads_up(link, link.parent):
            self._skip(
                link, "a link to a folder that it lies in itself", may_be_scan=False
            )
        elif earlier is not None and earlier != link:
            self._skip(
                link,
                f"a link to a folder that is searched already, as {earlier}",
                may_be_scan=False,
            )
        return earlier is None and not _leads_up(link, link.parent)

    def _real_folders(
        self, top: Path, visited: _VisitedFolders, links: list[Path]
    ) -> Iterator[tuple[Path, list[str]]]:
        """Yield a folder and those below it with their files; links go to `links`."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            if self._is_output(folder) or _identity(folder) in visited:
                continue
            visited[_identity(folder)] = folder
            try:
                with os.scandir(folder) as entries:
                    listed = sorted(
                        (entry.name, _is_folder(entry), entry.is_symlink())
                        for entry in entries
                    )
            except OSError as err:
                self._skip(
                    folder,
                    f"the folder cannot be opened: {err.strerror}; check that you may"
                    " read it",
                    may_be_scan=True,
                )
                continue
            if file_suffix(folder) in SCAN_SUFFIXES and not listed:
                self._skip(
                    folder, "an empty folder under a scan's name", may_be_scan=True
                )
            yield folder, [name for name, is_folder, _ in listed if not is_folder]
            for name, _, is_link in (entry for entry in listed if entry[1]):
                if _is_hidden(name):
                    if any(
                        _has_image_ending(Path(entry))
                        for entry in _names_in(folder / name)
                    ):
                        self._skip(
                            folder / name,
                            "a hidden folder; name it to search it",
                            may_be_scan=False,
                        )
                elif is_link:
                    links.append(folder / name)
                else:
                    waiting.append(folder / name)

    def _place(self, file: Path) -> Path | None:
        """Return where the scan of a file is, or None if it is no scan.

        The folder of a DICOM slice, the header of a pair, else the file itself.
        """
        suffix = file_suffix(file)
        if _is_hidden(file.name):
            if (
                suffix in (*SCAN_SUFFIXES, *_DICOM_SUFFIXES)
                and not file.name.startswith(".strata-")
                and not _is_apple_double(file)
            ):
                self._skip(
                    file,
                    "a hidden file; name it to propose on it",
                    may_be_scan=False,
                )
            return None
        try:
            mode = file.stat().st_mode
        # a broken link, as in a data set that was downloaded in part
        except FileNotFoundError:
            if suffix in (*SCAN_SUFFIXES, *_DICOM_SUFFIXES):
                return file  # fails, with its reason
            if not suffix or _has_image_ending(file):
                self._skip(file, "a link to nowhere", may_be_scan=True)
            return None
        except OSError as err:
            if not suffix or _has_image_ending(file):
                self._skip(file, f"it cannot be read: {err.strerror}", may_be_scan=True)
            return None
        if not stat.S_ISREG(mode):
            self._skip(file, "a pipe, a socket or a device", may_be_scan=False)
            return None
        return self._place_of_file(file, suffix)

    def _place_of_file(self, file: Path, suffix: str) -> Path | None:
        if suffix in SCAN_SUFFIXES and _is_ours(file):
            self._skip(file, "labels that Strata wrote", may_be_scan=False)
            return None
        if suffix in SCAN_SUFFIXES or _is_slice(file, suffix):
            return place_of(file)
        skip = _skip_reason_of_file(file)
        if skip is not None:
            self._skip(file, skip.reason, may_be_scan=skip.may_be_scan)
        return None

    def _skip(self, path: Path, reason: str, *, may_be_scan: bool) -> None:
        self.skipped.setdefault(path, SkippedPath(path, reason, may_be_scan))

    def _is_output(self, path: Path) -> bool:
        if self.outputs is None:
            return False
        return path.is_relative_to(self.outputs) or Path(
            os.path.realpath(path)
        ).is_relative_to(os.path.realpath(self.outputs))


def place_of(file: Path) -> Path:
    """Return where the scan of a file is that a person named.

    The folder of a DICOM slice, the header of a pair, else the file itself.
    """
    suffix = file_suffix(file)
    if suffix == ".img":
        header = half_of_pair(file, ".hdr")
        return header if header.exists() else file
    return file.parent if _is_slice(file, suffix) else file


def _is_slice(file: Path, suffix: str) -> bool:
    """Return whether a file is part of a DICOM series.

    A DICOMDIR (table of contents) has the DICOM mark but is no slice.
    """
    if file.name.upper() == "DICOMDIR" or suffix in SCAN_SUFFIXES:
        return False
    return suffix in _DICOM_SUFFIXES or is_dicom(file)


def _skip_reason_of_file(file: Path) -> bids.SkipReason | None:
    """Return why a file that may be an image is skipped; None for a document."""
    name = file.name.lower()
    if name.endswith(".seg.nrrd"):
        return bids.SkipReason(
            "a segmentation of 3D Slicer, not a scan", may_be_scan=False
        )
    if name.endswith(".par") and half_of_pair(file, ".rec").exists():
        return bids.SkipReason(
            "of a format that Strata does not read (.par/.rec); convert it to NIfTI",
            may_be_scan=True,
        )
    if name.endswith(".rec") and half_of_pair(file, ".par").exists():
        return None  # named with its header
    ending = next((one for one in _OTHER_IMAGES if name.endswith(one)), None)
    if ending is not None or name == "2dseq":
        what = (
            "unpack it"
            if ending and ending.endswith(_PACKED[:-1])
            else "convert it to NIfTI"
        )
        return bids.SkipReason(
            f"of a format that Strata does not read ({ending or '2dseq'}); {what}",
            may_be_scan=True,
        )
    if name.endswith(_RAW_VOXELS):
        return (
            None
            if _has_header(file)
            else bids.SkipReason(
                "voxels without a header; export the scan again", may_be_scan=True
            )
        )
    if name.endswith(_ARCHIVES):
        return (
            bids.SkipReason(
                "an archive that may hold scans; unpack it", may_be_scan=True
            )
            if _may_hold_scans(file)
            else None
        )
    stripped = Path(file.name.rstrip(" ."))
    if stripped.name != file.name and file_suffix(stripped) in SCAN_SUFFIXES:
        return bids.SkipReason(
            "its name ends in a space or a dot; rename it", may_be_scan=True
        )
    if not os.access(file, os.R_OK):
        return bids.SkipReason("it cannot be read: permission denied", may_be_scan=True)
    return None


def _has_header(voxels: Path) -> bool:
    """Return whether a file of voxels has a header beside it.

    One with the same stem, or one that names the file.
    """
    headers = [
        voxels.with_name(one)
        for one in _names_in(voxels.parent)
        if file_suffix(one) in (".mhd", ".nhdr")
    ]
    stem = voxels.name.split(".")[0]
    if any(one.name.split(".")[0] == stem for one in headers):
        return True
    return any(os.fsencode(voxels.name) in _start_of(one) for one in headers)


def _start_of(file: Path) -> bytes:
    """Return the first bytes of a regular file; nothing if it cannot be read.

    Other files, such as pipes, might never answer.
    """
    try:
        if not file.is_file():
            return b""
        with file.open("rb") as opened:
            return opened.read(_LONGEST_HEADER)
    except OSError:
        return b""


def _may_hold_scans(archive: Path) -> bool:
    """Return whether an archive may hold scans, by the names of its first members.

    True if they cannot be read.
    """
    try:
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as opened:
                names = [one for one in opened.namelist() if not one.endswith("/")]
        elif archive.suffix.lower() in (".7z", ".rar"):
            return True
        else:
            with tarfile.open(archive) as packed:
                names = [
                    one.name
                    for _, one in zip(range(_MOST_MEMBERS), packed, strict=False)
                    if one.isfile()
                ]
    except (OSError, EOFError, ValueError, tarfile.TarError, zipfile.BadZipFile):
        return True
    return any(not Path(name).suffix or _has_image_ending(Path(name)) for name in names)


def _has_image_ending(path: Path) -> bool:
    suffix = file_suffix(path)
    return suffix in (
        *SCAN_SUFFIXES,
        *_DICOM_SUFFIXES,
        ".seg.nrrd",
    ) or path.name.lower().endswith(_OTHER_IMAGES)


def _one_for_series(file: Path) -> Path:
    """Return the folder of a DICOM slice, which stands for all; else the file itself."""
    return file.parent if file_suffix(file) in _DICOM_SUFFIXES else file


def _is_folder(entry: Path | os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    # a link to itself, or into a folder without permission
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int]:
    """Return device and inode of a folder, which are the same through links."""
    try:
        status = path.stat()
    except OSError:
        return hash(path), 0
    return status.st_dev, status.st_ino


def _leads_up(link: Path, folder: Path) -> bool:
    """Return whether a link leads to a folder or one above it: an endless circle."""
    return Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(link))


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_apple_double(file: Path) -> bool:
    """Return whether a file is macOS metadata (AppleDouble) of another file.

    True if it cannot be read.
    """
    if not file.name.startswith("._"):
        return False
    try:
        with file.open("rb") as opened:
            return opened.read(4) == _APPLE_DOUBLE
    except OSError:
        return True


def _is_ours(path: Path) -> bool:
    """Return whether a file is labels that Strata wrote."""
    document = read_sidecar(outputs_beside(path).sidecar)
    return document is not None and document.get("labels") == path.name
