"""Lists of scans (CSV): one row per scan, with what its path does not tell."""

from __future__ import annotations

import csv
import difflib
from dataclasses import dataclass
from pathlib import Path

from napari_strata.errors import ReadError
from napari_strata.filenames import from_printable, is_text
from napari_strata.volume import Modality

LIST_SUFFIXES = (".csv", ".tsv")
_PATH_COLUMNS = ("path", "reference", "codebook", "replay")
COLUMNS = (
    "id",
    "path",
    "series",
    "index",
    "modality",
    "reference",
    "codebook",
    "replay",
    "subject",
    "session",
)


@dataclass(frozen=True, slots=True)
class ListRow:
    """One row of a list; None or "" for an empty cell. Paths are absolute."""

    id: str
    path: Path
    series: str | None
    index: int | None
    modality: Modality | None
    reference: Path | None
    codebook: Path | None
    replay: Path | None
    subject: str
    session: str


def read_list(path: Path) -> tuple[ListRow, ...]:
    """Read a list of scans.

    Parameters
    ----------
    path : Path
        CSV with commas, semicolons or tabs and a header line. `path` is needed; `id`,
        `series`, `index`, `modality`, `reference`, `codebook`, `replay`, `subject` and
        `session` are optional; other columns are ignored. Paths are relative to the
        list's folder; one that is not UTF-8 may be written as its bytes, or as the
        tables of a batch show it. A missing scan is no error here: it fails in the
        batch, with its reason.

    Raises
    ------
    ReadError
        If the list cannot be read, has no column `path`, a misspelt column, an id twice
        or a bad cell.
    """
    try:
        with open(
            path, newline="", encoding="utf-8-sig", errors="surrogateescape"
        ) as file:
            head = file.readline()
            delimiter = max("\t;,", key=head.count)
            file.seek(0)
            table = csv.DictReader(file, delimiter=delimiter)
            names = [str(name).strip().lower() for name in table.fieldnames or ()]
            cells = [
                {
                    key: str(value or "").strip()
                    for key, value in zip(names, row.values(), strict=False)
                }
                for row in table
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise ReadError(
            f"Cannot read the list {path}: {err}. Give a CSV file (UTF-8) with a header"
            " line."
        ) from err
    _check_text(path, cells)
    _check_columns(path, names)
    rows = tuple(
        _row(path, number, row)
        for number, row in enumerate(cells, 2)
        if any(row.values())
    )
    if not rows:
        raise ReadError(
            f"The list {path} has no rows. Write one scan per line under the header."
        )
    _check_ids(path, rows)
    return rows


def _check_columns(path: Path, names: list[str]) -> None:
    if "path" not in names:
        raise ReadError(
            f"The list {path} has no column `path`; it has"
            f" {', '.join(names) or 'none'}. Give the column of the scans this name."
        )
    for name in set(names) - set(COLUMNS):
        near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.8)
        if near:
            raise ReadError(
                f"The list {path} has a column `{name}`. If it means `{near[0]}`,"
                f" rename it to that; else choose another name."
            )


def _row(path: Path, number: int, cells: dict[str, str]) -> ListRow:
    def place(name: str) -> Path | None:
        text = cells.get(name, "")
        return _place(path, text) if text else None

    scan, modality, index = (
        place("path"),
        cells.get("modality", "").lower(),
        cells.get("index", ""),
    )
    if scan is None:
        raise ReadError(
            f"Line {number} of {path} has no path. Fill it in, or take the line out."
        )
    if modality not in ("", "ct", "mr"):
        raise ReadError(
            f"Line {number} of {path} has the modality {modality!r}. Write ct or mr, or"
            " leave it empty."
        )
    if index and not index.isdecimal():
        raise ReadError(
            f"Line {number} of {path} has the index {index!r}. Write a whole number"
            " from 0, or leave it empty."
        )
    return ListRow(
        id=cells.get("id", ""),
        path=scan,
        series=cells.get("series") or None,
        index=int(index) if index else None,
        modality=modality or None,  # type: ignore[arg-type]
        reference=place("reference"),
        codebook=place("codebook"),
        replay=place("replay"),
        subject=cells.get("subject", ""),
        session=cells.get("session", ""),
    )


def _place(path: Path, text: str) -> Path:
    r"""Return the absolute path of a cell.

    If there is no such file, `\xe9` may stand for a byte, as in the tables of a batch.
    """
    as_written, unescaped = (
        (path.parent / Path(name).expanduser()).absolute()
        for name in (text, from_printable(text))
    )
    return unescaped if not as_written.exists() and unescaped.exists() else as_written


def _check_text(path: Path, cells: list[dict[str, str]]) -> None:
    """Refuse text that is not UTF-8, except paths of files that have these bytes."""
    for number, row in enumerate(cells, 2):
        for name, text in row.items():
            if (
                name in COLUMNS
                and not is_text(text)
                and (name not in _PATH_COLUMNS or not (path.parent / text).exists())
            ):
                raise ReadError(
                    f"Line {number} of the list {path} is not UTF-8 text: {text}. Save"
                    " the list as CSV (UTF-8)."
                )


def _check_ids(path: Path, rows: tuple[ListRow, ...]) -> None:
    taken: set[str] = set()
    for row in rows:
        name = row.id.casefold()
        if name and name in taken:
            raise ReadError(
                f"The list {path} has the id {row.id} twice. Give each scan an id of"
                " its own."
            )
        taken.add(name)
