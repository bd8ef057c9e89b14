"""Four hundred damaged files of every format; `make fuzz` reads a hundred thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_damaged_headers_are_read_right_or_refused_the_same_way_twice(tmp_path):
    faults = tmp_path / "faults.json"
    words = ["--cases", "400", "--seed", "7", "--jobs", "2", "-o", str(faults)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    found = json.loads(faults.read_text(encoding="utf-8")) if faults.exists() else []
    assert done.returncode == 0, (done.stdout[-2000:], found)
