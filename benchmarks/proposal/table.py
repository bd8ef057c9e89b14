"""The bench's rows on disk: a TSV that grows, and the same as Markdown tables."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FIELDS = ("scan", "part", "subject", "measure", "value")


@dataclass(frozen=True, slots=True)
class Row:
    """A figure: what was measured (`measure`) of what (`subject`.

    A method, a cut, a change), in which part of the bench.
    """

    scan: str
    part: str
    subject: str
    measure: str
    value: float


def read_rows(path: Path) -> list[Row]:
    """Read the rows of an earlier run; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            Row(
                line["scan"],
                line["part"],
                line["subject"],
                line["measure"],
                float(line["value"]),
            )
            for line in csv.DictReader(lines, delimiter="\t")
        ]


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Put rows together; what was measured anew of a scan and a part takes the place of all.

    Was known of it.
    """
    fresh = list(new)
    measured = {(row.scan, row.part) for row in fresh}
    return [row for row in old if (row.scan, row.part) not in measured] + fresh


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows as tab-separated values with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, delimiter="\t", lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(
            (row.scan, row.part, row.subject, row.measure, f"{row.value:.6g}")
            for row in rows
        )


def markdown(rows: list[Row]) -> str:
    """Give a table per part and scan: a line per subject, a column per measure."""
    blocks = []
    for part in dict.fromkeys(row.part for row in rows):
        blocks.append(f"## {part}")
        for scan in dict.fromkeys(row.scan for row in rows if row.part == part):
            shown = [row for row in rows if (row.part, row.scan) == (part, scan)]
            blocks.append(f"### {part}, {scan}\n\n{_one_table(shown)}")
    return "\n\n".join(blocks) + "\n"


def _one_table(rows: list[Row]) -> str:
    found = {(row.subject, row.measure): row.value for row in rows}
    subjects, measures = (
        list(dict.fromkeys(getattr(row, name) for row in rows))
        for name in ("subject", "measure")
    )
    lines = [f"| | {' | '.join(measures)} |", "|---" * (len(measures) + 1) + "|"]
    for subject in subjects:
        cells = [_cell(found.get((subject, measure))) for measure in measures]
        lines.append(f"| {subject} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return (
        f"{value:.0f}"
        if value >= 1000
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.3f}"
    )
