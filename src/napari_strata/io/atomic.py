"""Atomic writes: files are written under temporary names and then renamed.

A final name never holds a half-written file.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from napari_strata.errors import WriteError

_REASONS = {
    errno.ENOSPC: "the disk is full. Free some space or choose another folder",
    errno.EDQUOT: "the disk quota is used up. Free some space or choose another folder",
    errno.EFBIG: "the file would be larger than allowed there. Choose another folder",
    errno.EROFS: "the disk is read-only. Choose another folder",
    errno.EACCES: "permission was denied. Choose a folder that you may write to",
    errno.EPERM: "permission was denied. Choose a folder that you may write to",
    errno.ENAMETOOLONG: "the name is too long. Choose a shorter one",
}


def file_suffix(path: str | Path) -> str:
    """Return the suffix in lower case, compound suffixes included.

    "a.b.NII.GZ" has ".nii.gz", "a.seg.nrrd" has ".seg.nrrd".
    """
    suffixes = [part.lower() for part in Path(path).suffixes]
    if suffixes[-1:] == [".gz"] or suffixes[-2:] == [".seg", ".nrrd"]:
        return "".join(suffixes[-2:])
    return suffixes[-1] if suffixes else ""


def half_of_pair(path: Path, suffix: str) -> Path:
    """Return the other file of a .hdr and .img pair, also for suffixes in capitals.

    "A.HDR" belongs to "A.IMG".
    """
    plain, capitals = path.with_suffix(suffix), path.with_suffix(suffix.upper())
    return capitals if not plain.exists() and capitals.exists() else plain


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` when the block succeeds.

    The block should only write that one file: an OSError inside it is reported as a
    problem with the output.

    Parameters
    ----------
    path : str or Path
        The final name. An existing file is replaced, in one step, only when the block
        has succeeded. A link stays a link: the file that it leads to is replaced, or
        made.

    Yields
    ------
    Path
        A name in the folder of the final file, with the same suffix, that does not
        exist yet.

    Raises
    ------
    WriteError
        If the folder does not exist, the output cannot be written, or the disk is full.
        The temporary file is gone.
    """
    target = Path(path)
    temporary = _temporary(target)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, link_end(target))
    except OSError as err:
        raise WriteError(f"Cannot write {target}: {_reason(err)}.") from err
    finally:
        _discard(temporary)


def link_end(path: Path) -> Path:
    """Return the target of a symbolic link, even if it does not exist; other paths as they are.

    Raises
    ------
    WriteError
        If the link leads to itself.
    """
    if not path.is_symlink():
        return path
    end = Path(os.path.realpath(path))
    if end.is_symlink():
        raise WriteError(
            f"Cannot write {path}: it is a link that leads to itself. Remove it, or"
            " choose another name."
        )
    return end


class Together:
    """Several files that get their final names together, or none of them.

    All are flushed to disk before the first is renamed. If a rename fails, the earlier
    ones are undone and the previous files restored. Only a crash between two renames
    can leave some of them.
    """

    def __init__(self) -> None:
        self._files: list[tuple[Path, Path]] = []

    def __enter__(self) -> Self:
        """Begin with no files."""
        return self

    def file(self, path: str | Path) -> Path:
        """Return a temporary path that gets its final name when the block succeeds.

        See `atomic_path`.

        Raises
        ------
        WriteError
            If the folder does not exist or nothing can be written there.
        """
        temporary = _temporary(Path(path))
        self._files.append((temporary, Path(path)))
        return temporary

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Flush every file, then rename them.

        If either fails, no file keeps a new final name.
        """
        try:
            if kind is None:
                self._flush()
                self._rename()
            elif isinstance(error, OSError):
                raise WriteError(
                    f"Cannot write {self._last()}: {_reason(error)}."
                ) from error
        finally:
            for temporary, _ in self._files:
                _discard(temporary)

    def _last(self) -> Path | str:
        return self._files[-1][1] if self._files else "the files"

    def _flush(self) -> None:
        for temporary, target in self._files:
            try:
                flush(temporary)
            except OSError as err:
                raise WriteError(f"Cannot write {target}: {_reason(err)}.") from err

    def _rename(self) -> None:
        renamed: list[tuple[Path, Path | None]] = []
        try:
            for number, (temporary, target) in enumerate(self._files, 1):
                try:
                    end = link_end(target)
                    kept = _kept_aside(end) if number < len(self._files) else None
                    if kept is not None:
                        renamed.append((end, kept))
                    os.replace(temporary, end)
                    if kept is None:
                        renamed.append((end, None))
                except OSError as err:
                    left = _taken_back(renamed)
                    said = (
                        f"Only {', '.join(map(str, left))} could not be put back"
                        if left
                        else "Nothing was replaced"
                    )
                    raise WriteError(
                        f"Cannot write {target}: {_reason(err)}. {said}."
                    ) from err
        finally:
            for _, kept in renamed:
                if kept is not None:
                    _discard(kept)


def _kept_aside(target: Path) -> Path | None:
    """Keep an existing file under a second name, so that it can be restored.

    Return None if there is no file.

    Raises
    ------
    OSError
        If it cannot be kept; it is not replaced then.
    """
    if not target.exists():
        return None
    kept = target.with_name(f".strata-{secrets.token_hex(6)}.before")
    try:
        os.link(target, kept)
    except OSError:  # a disk without hard links
        shutil.copy2(target, kept)
    return kept


def _taken_back(renamed: list[tuple[Path, Path | None]]) -> list[Path]:
    """Restore replaced files and remove new ones.

    Return the files for which this failed.
    """
    left = []
    for target, kept in reversed(renamed):
        try:
            if kept is not None:
                os.replace(kept, target)
                # two names of one file: nothing was renamed
                kept.unlink(missing_ok=True)
            else:
                target.unlink()
        except OSError:
            left.append(target)
    renamed.clear()
    return left


def _temporary(target: Path) -> Path:
    """Return an unused temporary path beside a file, or beside a link's target.

    It has the same suffix.

    Raises
    ------
    WriteError
        If nothing can be written there.
    """
    end = link_end(target)
    try:
        _check_target(target, end)
    except OSError as err:
        raise WriteError(f"Cannot write {target}: {_reason(err)}.") from err
    suffix = (
        target.name[len(target.name) - len(file_suffix(target)) :]
        if file_suffix(target)
        else ""
    )
    return end.with_name(f".strata-{secrets.token_hex(6)}{suffix}")


def same_file(one: str | Path, other: str | Path) -> bool:
    """Return whether two paths are one file, through links and on any file system.

    File systems that ignore capitals are taken into account.
    """
    try:
        return os.path.samefile(one, other)
    except OSError:  # one of them does not exist yet
        return os.path.realpath(one) == os.path.realpath(other)


def _check_target(target: Path, end: Path) -> None:
    folder = end.parent
    if not folder.exists():
        if end != target:
            raise WriteError(
                f"Cannot write {target}: it is a link to {end}, where there is no"
                " folder. Remove it, or choose another name."
            )
        raise WriteError(
            f"Cannot write {target}: the folder {folder} does not exist. Create it"
            " first."
        )
    if not folder.is_dir():
        raise WriteError(
            f"Cannot write {target}: {folder} is a file, not a folder. Choose another"
            " place."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(
            f"Cannot write {target}: no permission to write in {folder}. Choose another"
            " folder."
        )
    if end.is_dir():
        raise WriteError(
            f"Cannot write {target}: a folder has this name. Choose another name."
        )
    if end.exists() and not os.access(end, os.W_OK):
        raise WriteError(
            f"Cannot write {target}: the file is there and is read-only. Choose another"
            " name."
        )


def flush(temporary: Path) -> None:
    """Flush a file to disk.

    A full network disk may only report the error then, which has to be before the
    rename.

    Raises
    ------
    OSError
        If the disk does not take it.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())


def _reason(err: OSError) -> str:
    if err.errno in _REASONS:
        return _REASONS[err.errno]
    return f"{err.strerror or err}. Check the space on the disk and the name"


def _discard(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError as err:
        raise WriteError(
            f"Cannot remove the unfinished file {temporary}: {_reason(err)}."
        ) from err
