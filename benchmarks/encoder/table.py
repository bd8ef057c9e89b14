"""The bench's rows on disk: a TSV that grows, and the same as Markdown tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FIELDS = ("features", "scan", "measure", "value", "spread")


@dataclass(frozen=True, slots=True)
class Row:
    """A figure: mean and standard deviation over seeds (spread 0 where there is one only)."""

    features: str
    scan: str
    measure: str
    value: float
    spread: float = 0.0


def read_rows(path: Path) -> list[Row]:
    """Read the rows of an earlier run; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as lines:
        return [
            Row(
                line["features"],
                line["scan"],
                line["measure"],
                float(line["value"]),
                float(line["spread"]),
            )
            for line in csv.DictReader(lines, delimiter="\t")
        ]


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """Put rows together; a new row takes the place of the old one for the same features.

    Scan and measure.
    """
    rows = {(row.features, row.scan, row.measure): row for row in (*old, *new)}
    return list(rows.values())


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write rows as tab-separated values with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, delimiter="\t", lineterminator="\n")
        writer.writerow(FIELDS)
        writer.writerows(
            (
                row.features,
                row.scan,
                row.measure,
                f"{row.value:.4f}",
                f"{row.spread:.4f}",
            )
            for row in rows
        )


def markdown(rows: list[Row]) -> str:
    """Give one table per measure.

    A line per feature set, a column per scan and their mean, the best figure bold.
    """
    found = {(row.measure, row.features, row.scan): row.value for row in rows}
    blocks = []
    for measure in dict.fromkeys(row.measure for row in rows):
        of_measure = [row for row in rows if row.measure == measure]
        scans = list(dict.fromkeys(row.scan for row in of_measure))
        sets = list(dict.fromkeys(row.features for row in of_measure))
        best = {
            scan: max(round(row.value, 3) for row in of_measure if row.scan == scan)
            for scan in scans
        }
        lines = [
            f"### {measure}",
            "",
            f"| features | {' | '.join(scans)} | mean |",
            "|---" * (len(scans) + 2) + "|",
        ]
        for features in sets:
            values = [found.get((measure, features, scan)) for scan in scans]
            cells = [
                _cell(value, best[scan])
                for value, scan in zip(values, scans, strict=True)
            ]
            known = [value for value in values if value is not None]
            mean = f"{sum(known) / len(known):.3f}" if len(known) == len(scans) else ""
            lines.append(f"| {features} | {' | '.join(cells)} | {mean} |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _cell(value: float | None, best: float) -> str:
    if value is None:
        return ""
    return f"**{value:.3f}**" if round(value, 3) == best else f"{value:.3f}"
