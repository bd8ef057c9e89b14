"""Mixed scans, some broken, on workers, against single scans of the same kinds.

Results, reasons, throughput and memory.

    python -m benchmarks.batch.mixed -o out/mixed

are 190 scans of four sizes, six formats and three contrasts, and 10 broken in 10 ways,
on two workers: about a quarter of an hour on two cores that do nothing else. `--scans
16 --broken 3` shows in a minute or two that it works.

Throughput is the seconds of all scans one after another, shared among the workers, over
the seconds of the run on workers without the start of its processes. One scan of each
size and contrast is run alone for it, reading and writing included: half of them before
the run on workers, half after, so that a machine that slows down is noticed. On a
machine that others use, too, seconds of several runs cannot be compared: go by
`processor_s` and `workers_busy` (the share of the workers' time that a scan was in
work). Memory is that of the command and all processes below it, their shared pages
counted once (PSS; Linux), looked at five times a second.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import mean

import psutil
from benchmarks.batch.phantoms import CONTRASTS, Kind, kind_of, write_phantoms

from napari_strata.batch.log import read_log


class Memory(threading.Thread):
    """Watches the memory and the processor time of a process and of all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak_gb, self.processor_s = (
            psutil.Process(pid),
            0.0,
            dict[int, float](),
        )

    def run(self) -> None:
        while self.root.is_running() and self.root.status() != psutil.STATUS_ZOMBIE:
            used = 0
            try:
                for one in (self.root, *self.root.children(recursive=True)):
                    used += one.memory_full_info().pss
                    times = one.cpu_times()
                    self.processor_s[one.pid] = times.user + times.system
            except psutil.Error:
                continue
            self.peak_gb = max(self.peak_gb, used / 1e9)
            time.sleep(0.2)


def batch(scans: Path, out: Path, *more: str) -> dict[str, object]:
    """Run a batch; give what its log says, seconds of the work and of all, and peak memory."""
    words = [
        sys.executable,
        "-m",
        "napari_strata.cli.command_line",
        "batch",
        str(scans),
        "-o",
        str(out),
        "--quiet",
        *more,
    ]
    begun = time.perf_counter()
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory = Memory(run.pid)
    memory.start()
    code = run.wait()
    wall = time.perf_counter() - begun
    log = read_log(out)
    (engine,) = [line for line in log if line["event"] == "engine"]
    made = [line for line in log if line["event"] in ("done", "failed")]
    times = [
        datetime.fromisoformat(line["time"]).timestamp() for line in (engine, *made)
    ]
    busy = sum(line.get("seconds", 0) for line in made) / (
        engine["workers"] or 1 if "workers" in engine else 1
    )
    return {
        "exit_code": code,
        "done": sum(line["event"] == "done" for line in made),
        "failed": sum(line["event"] == "failed" for line in made),
        "scan_s": round(sum(line.get("seconds", 0) for line in made), 1),
        "work_s": round(max(times) - times[0], 1),
        "wall_s": round(wall, 1),
        "processor_s": round(sum(memory.processor_s.values()), 1),
        "workers_busy": round(busy / (max(times) - times[0]), 3),
        "peak_gb": round(memory.peak_gb, 2),
        "largest_scan_gb": max(line.get("peak_gb", 0) for line in made),
    }


def sampled(count: int, sides: tuple[int, ...]) -> list[int]:
    """Choose one scan of every side and contrast, from different places of the batch."""
    chosen: dict[tuple[int, str], list[int]] = {}
    for k in range(count):
        kind = kind_of(k, sides)
        chosen.setdefault(
            (kind.side, kind.contrast + str(k % len(CONTRASTS))), []
        ).append(k)
    return sorted(one[number % len(one)] for number, one in enumerate(chosen.values()))


def expected_s(count: int, sides: tuple[int, ...], seconds: dict[str, float]) -> float:
    """Give the seconds of all scans one after another, from those of the sample.

    The mean of its scans of the same side and contrast.
    """
    known: dict[Kind, list[float]] = {}
    for name, took in seconds.items():
        kind = kind_of(int(name[-3:]), sides)
        known.setdefault(Kind(kind.side, kind.contrast, ""), []).append(took)
    return sum(mean(known[replace(kind_of(k, sides), format="")]) for k in range(count))


def write_list(path: Path, scans: list[Path]) -> Path:
    """Write a list of scans."""
    path.write_text("path\n" + "".join(f"{scan}\n" for scan in scans), encoding="utf-8")
    return path


def single(
    folder: Path, out: Path, scans: list[Path], *same: str
) -> tuple[dict[str, object], dict[str, float]]:
    """Run scans one after another in one process.

    Give the figures, and the seconds of each scan.
    """
    figures = batch(
        write_list(folder / f"{out.name}.csv", scans), out, *same, "--workers", "1"
    )
    return figures, {
        line["scan"]: line["seconds"]
        for line in read_log(out)
        if line["event"] == "done"
    }


def main() -> None:
    """Print the figures as JSON, and write them to figures.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="an empty folder"
    )
    parser.add_argument("--scans", type=int, default=190)
    parser.add_argument("--broken", type=int, default=10)
    parser.add_argument(
        "--sides",
        type=int,
        nargs="+",
        default=[48, 64, 96, 128],
        help="voxels along the longest side, in turn",
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--budget-gb", type=float, default=4.0)
    parser.add_argument("--method", default="strata")
    arguments = parser.parse_args()
    begun, folder, sides = (
        time.perf_counter(),
        arguments.output.absolute(),
        tuple(arguments.sides),
    )
    load = os.getloadavg()[0]
    scans = write_phantoms(
        folder / "scans", arguments.scans, broken=arguments.broken, sides=sides
    )
    same = (
        "--tissues",
        "8",
        "--method",
        arguments.method,
        "--threads",
        "1",
        "--budget-gb",
        str(arguments.budget_gb),
    )
    chosen = [scans[k] for k in sampled(arguments.scans, sides)]
    before, first = single(folder, folder / "single-before", chosen[::2], *same)
    together = batch(
        folder / "scans",
        folder / "together",
        *same,
        "--workers",
        str(arguments.workers),
    )
    after, second = single(folder, folder / "single-after", chosen[1::2], *same)
    whole_s = expected_s(arguments.scans, sides, first | second)
    throughput = whole_s / arguments.workers / float(str(together["work_s"]))
    reasons = read_reasons(folder / "together" / "failures.tsv")
    labels = [
        path
        for name in ("single-before", "single-after")
        for path in (folder / name).glob("*_labels.nii.gz")
    ]
    differ = [
        path.name
        for path in labels
        if path.read_bytes() != (folder / "together" / path.name).read_bytes()
    ]
    met = {
        f"{arguments.scans} results": together["done"] == arguments.scans,
        f"{arguments.broken} different reasons": (
            len(reasons) == len(set(reasons.values())) == arguments.broken
        ),
        "throughput at least 0.85": throughput >= 0.85,
        "memory under the budget": (
            float(str(together["peak_gb"])) <= arguments.budget_gb
        ),
        "labels as of the scans alone": not differ,
    }
    figures = {
        "met": met,
        "throughput": round(throughput, 3),
        "one_after_another_s": round(whole_s, 1),
        "budget_gb": arguments.budget_gb,
        "on_workers": together,
        "single_before": before,
        "single_after": after,
        "labels_compared": len(labels),
        "labels_that_differ": differ,
        "reasons": reasons,
        "all_s": round(time.perf_counter() - begun, 1),
        "load_before": round(load, 2),
        "cores": psutil.cpu_count(),
    }
    text = json.dumps(figures, indent=1, ensure_ascii=False)
    (folder / "figures.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def read_reasons(path: Path) -> dict[str, str]:
    """Give why each scan failed; paths are left out, so that equal reasons are equal."""
    with open(path, newline="", encoding="utf-8") as file:
        return {
            row["scan"]: row["reason"].replace(row["path"], "SCAN")
            for row in csv.DictReader(file, delimiter="\t")
        }


if __name__ == "__main__":
    main()
