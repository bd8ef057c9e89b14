"""Mixed scans, some broken, one after another and on workers: results, reasons, throughput and memory.

    python -m benchmarks.batch.mixed -o out/mixed [--scans 190] [--broken 10] [--workers 2] [--budget-gb 8] [--method strata]

Throughput is the seconds of the same scans one after another (each scan's own, reading and writing included), shared among the
workers, over the seconds of the run on workers without the start of its processes. Both runs are on one machine, one after the
other. On a machine that others use, too, seconds of the two runs cannot be compared: go by `processor_s` (what the same scans
cost, start and scheduler included) and `workers_busy` (the share of the workers' time that a scan was in work). Memory is that
of the command and all processes below it, their shared pages counted once (PSS; Linux), looked at five times a second.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import psutil
from benchmarks.batch.phantoms import write_phantoms

from napari_strata.batch.log import read_log


class Memory(threading.Thread):
    """Watches the memory and the processor time of a process and of all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.root, self.peak_gb, self.processor_s = psutil.Process(pid), 0.0, dict[int, float]()

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
    words = [sys.executable, "-m", "napari_strata.cli", "batch", str(scans), "-o", str(out), "--quiet", *more]
    begun = time.perf_counter()
    run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    memory = Memory(run.pid)
    memory.start()
    code = run.wait()
    wall = time.perf_counter() - begun
    log = read_log(out)
    (engine,) = [line for line in log if line["event"] == "engine"]
    made = [line for line in log if line["event"] in ("done", "failed")]
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in (engine, *made)]
    busy = sum(line.get("seconds", 0) for line in made) / (engine["workers"] or 1 if "workers" in engine else 1)
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


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=190)
    parser.add_argument("--broken", type=int, default=10)
    parser.add_argument("--sides", type=int, nargs="+", default=[48, 64, 96, 128], help="voxels along the longest side, in turn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--budget-gb", type=float, default=8.0)
    parser.add_argument("--method", default="strata")
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    write_phantoms(folder / "scans", arguments.scans, broken=arguments.broken, sides=tuple(arguments.sides))
    same = ("--tissues", "8", "--method", arguments.method, "--threads", "1", "--budget-gb", str(arguments.budget_gb))
    alone = batch(folder / "scans", folder / "alone", *same, "--workers", "1")
    together = batch(folder / "scans", folder / "together", *same, "--workers", str(arguments.workers))
    with open(folder / "together" / "failures.tsv", newline="", encoding="utf-8") as file:
        reasons = {row["scan"]: row["reason"] for row in csv.DictReader(file, delimiter="\t")}
    labels = [path.name for path in (folder / "alone").glob("*_labels.nii.gz")]
    differ = [name for name in labels if (folder / "alone" / name).read_bytes() != (folder / "together" / name).read_bytes()]
    figures = {
        "one_after_another": alone,
        "on_workers": together,
        "throughput": round(float(str(alone["scan_s"])) / arguments.workers / float(str(together["work_s"])), 3),
        "budget_gb": arguments.budget_gb,
        "labels_that_differ": differ,
        "reasons": reasons,
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
