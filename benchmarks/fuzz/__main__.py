"""Damaged headers and files by the ten thousand.

Each is read right or refused in one line, the same twice.

    python -m benchmarks.fuzz --cases 100000 --log out/fuzz.jsonl
        all of it; the same line again goes on where it was stopped
    python -m benchmarks.fuzz --case 4711 -o out/4711
        one case again: its files, what was done to them, what comes of it

Every case damages a small good file (see `seeds.py`, `mutate.py`), and is read in two
processes of unlike memory: freed and new memory is filled with other bytes, the cases
come in another order, the files are written in another order. What is accepted is
compared with an independent reader, voxel by voxel at its place in the patient. One
case in 40 also goes through `strata info` and `strata convert`. A process that aborts,
hangs or takes too much memory costs its case, and is started anew.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fuzz.outcome import lay_out, make_case, ready, run_case
from benchmarks.fuzz.seeds import chosen_seeds, write_seeds

ROOT = Path(__file__).parents[2]
CHUNK = 250
HANGS_AFTER_S = 60
_MEMORY = {False: "85", True: "170"}


@dataclass
class _Process:
    """A worker that is started when it is needed, and again when it has died."""

    seeds: Path
    seed: int
    folder: Path
    second: bool
    process: subprocess.Popen[bytes] | None = None
    heard: bytes = b""

    def run(self, case: int) -> dict[str, Any]:
        """Give the outcome of one case, whatever becomes of the process."""
        if self.process is None:
            self._start()
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{case}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            return self._died(case)
        until = time.monotonic() + HANGS_AFTER_S
        while True:
            line = self._line(until)
            if line is None:
                return self._died(case)
            if not line.startswith(b"begin "):
                return json.loads(line)

    def _line(self, until: float) -> bytes | None:
        assert self.process is not None
        assert self.process.stdout is not None
        while b"\n" not in self.heard:
            ready, _, _ = select.select(
                [self.process.stdout], [], [], max(0, until - time.monotonic())
            )
            more = os.read(self.process.stdout.fileno(), 2**16) if ready else b""
            if not more:
                return None
            self.heard += more
        line, _, self.heard = self.heard.partition(b"\n")
        return line

    def _start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        command = [
            sys.executable,
            "-m",
            "benchmarks.fuzz.worker",
            "--seeds",
            self.seeds,
            "--seed",
            str(self.seed),
            "--folder",
            self.folder,
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
            "MALLOC_PERTURB_": _MEMORY[self.second],
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1",
            "PYTHONHASHSEED": _MEMORY[self.second],
        }
        self.process = subprocess.Popen(
            command + (["--second"] if self.second else []),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C stops the run, and counts as no abort
        )
        self.heard = b""

    def _died(self, case: int) -> dict[str, Any]:
        assert self.process is not None
        hung = self.process.poll() is None and not self._ended()
        self.process.kill()
        code = self.process.wait()
        self.process = None
        what = (
            f"no answer in {HANGS_AFTER_S} s" if hung else f"the process died ({code})"
        )
        return {
            "case": case,
            "seed": "",
            "done": [],
            "kind": "hang" if hung else "abort",
            "told": what,
            "agrees": "",
            "elsewhere": False,
            "faults": [what],
        }

    def _ended(self) -> bool:
        assert self.process is not None
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        if self.process is not None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait()


@dataclass
class Tally:
    """What came of all cases."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    alone: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    strict: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    unlike: int = 0

    def add(self, summary: dict[str, Any]) -> None:
        """Count one case, as `summary_of` gives it."""
        case, family = summary["case"], summary["family"]
        self.counts[family, summary["kind"]] += 1
        for fault in summary.get("faults", ()):
            self.faults[f"{family}: {fault}"].append(case)
        self.unlike += summary.get("unlike", False)
        if "alone" in summary:
            self.alone[summary["alone"]].append(case)
        if "strict" in summary:
            self.strict[f"{family}: {summary['strict']}"].append(case)

    @property
    def n_cases(self) -> int:
        """How many cases were counted."""
        return self.counts.total()

    def table(self) -> str:
        """Give the counts as a table: a row per outcome, a column per family."""
        families = sorted({family for family, _ in self.counts})
        rows = [
            "| outcome | " + " | ".join(families) + " | all |",
            "|---" * (len(families) + 2) + "|",
        ]
        for kind in sorted({kind for _, kind in self.counts}):
            numbers = [self.counts[family, kind] for family in families]
            rows.append(
                f"| {kind} | "
                + " | ".join(f"{n:,}" for n in [*numbers, sum(numbers)])
                + " |"
            )
        return "\n".join(rows)


def _general(text: str) -> str:
    """Take out what differs from case to case, so that like faults are counted together."""
    text = re.sub(r"CASE\S*", "CASE", text)
    return re.sub(r"[-+]?\d[\d.,e+-]*", "N", text)[:200]


def summary_of(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Give what is counted of a case's two runs; a line of the log."""
    kind = first["kind"]
    if kind in ("volume", "labels"):
        kind = f"{kind}, {first['agrees']}"
    unlike = (first["kind"], first["told"]) != (second["kind"], second["told"])
    faults = [*first["faults"], *second["faults"], *["two runs differ"][: int(unlike)]]
    summary: dict[str, Any] = {
        "case": first["case"],
        "family": (first["seed"] or second["seed"]).split("/")[0] or "died",
        "kind": kind,
    }
    if faults:
        summary["faults"] = [*dict.fromkeys(map(_general, faults))]
        summary["unlike"] = unlike
    if first["agrees"] == "not read":
        done = "; ".join(one.split(": ", 1)[-1] for one in first["done"])
        summary["alone"] = f"{first['seed']}: {_general(done)}"
    if first["elsewhere"] and first["kind"] == "refused":
        summary["strict"] = _general(first["told"])
    return summary


@dataclass
class Log:
    """A file with a line per finished case, from which a stopped run goes on."""

    path: Path | None
    settings: dict[str, Any]

    def earlier(self) -> list[dict[str, Any]]:
        """Give the cases that are finished; the file is begun where there is none."""
        if self.path is None:
            return []
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(f"{json.dumps(self.settings)}\n", encoding="utf-8")
            return []
        text = self.path.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        if json.loads(lines[0]) != self.settings:
            raise SystemExit(f"{self.path} is the log of another run: {lines[0]}")
        whole = [line for line in lines if line.endswith("\n")]
        self.path.write_text("".join(whole), encoding="utf-8")  # a line was cut short
        return [json.loads(line) for line in whole[1:]]

    def add(self, summary: dict[str, Any]) -> None:
        """Write a case down, and name its faults on standard error."""
        for fault in summary.get("faults", ()):
            print(f"case {summary['case']}: {fault}", file=sys.stderr, flush=True)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(summary)}\n")


def run(
    cases: Sequence[int], tally: Tally, log: Log, *, jobs: int, folder: Path
) -> None:
    """Run cases twice each, in `jobs` processes, and count them; stops at Ctrl-C."""
    seed, only = log.settings["seed"], log.settings["only"]
    write_seeds(folder / "seeds", only)
    lock, stop = threading.Lock(), threading.Event()
    half: dict[int, dict[str, Any]] = {}
    begun = time.monotonic()
    chunks = [cases[at : at + CHUNK] for at in range(0, len(cases), CHUNK)]
    waiting: dict[bool, queue.SimpleQueue[Sequence[int]]] = {
        False: queue.SimpleQueue(),
        True: queue.SimpleQueue(),
    }
    for chunk in chunks:
        waiting[False].put(chunk)
        waiting[True].put(chunk[::-1])
    finished = 0

    def finish(summary: dict[str, Any]) -> None:
        nonlocal finished
        tally.add(summary)
        log.add(summary)
        finished += 1
        if finished % 2000 == 0:
            spent = time.monotonic() - begun
            found = sum(map(len, tally.faults.values()))
            print(
                f"{finished:,} of {len(cases):,} cases, {spent:.0f} s, {found} faults",
                file=sys.stderr,
                flush=True,
            )

    def work(number: int) -> None:
        sides = [False, True] if jobs == 1 else [bool(number % 2)]
        for second in sides:
            process = _Process(
                folder / "seeds", seed, folder / f"worker{number}{'ab'[second]}", second
            )
            while not stop.is_set():
                try:
                    chunk = waiting[second].get_nowait()
                except queue.Empty:
                    break
                for case in chunk:
                    if stop.is_set():
                        break
                    outcome = process.run(case)
                    with lock:
                        other = half.pop(case, None)
                        if other is None:
                            half[case] = outcome
                        elif second:
                            finish(summary_of(other, outcome))
                        else:
                            finish(summary_of(outcome, other))
            process.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join()


def show_case(seed: int, case: int, output: Path | None, only: str) -> None:
    """Run one case again and keep its files."""
    made, done = make_case(chosen_seeds(only), seed, case)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        lay_out(made, output)
    with tempfile.TemporaryDirectory() as name:
        write_seeds(Path(name) / "seeds", only)
        print(
            json.dumps(
                {"opened": made.opened, "index": made.index, "damage": done}, indent=1
            )
        )
        for second in (False, True):
            process = _Process(
                Path(name) / "seeds", seed, Path(name) / "ab"[second], second
            )
            print(json.dumps(process.run(case), indent=1))
            process.close()


def show_seeds(only: str) -> None:
    """Print what Strata makes of each seed as it is, undamaged."""
    ready()
    with tempfile.TemporaryDirectory() as folder:
        for seed in chosen_seeds(only):
            outcome = run_case(seed, Path(folder))
            words = (
                f"{seed.name:34} {outcome.kind} {outcome.agrees} {outcome.elsewhere}"
                f" {outcome.faults} {outcome.told}"
            )
            print(words[:220])


def main() -> int:
    """Run, print the counts and the faults; 1 where there are any."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--only",
        default="",
        metavar="REGEX",
        help="damage only seeds of such names, for example 'nrrd|meta'",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=2,
        help="processes; with 2 or more, half of them run each case a second time",
    )
    parser.add_argument("--case", type=int, help="run one case again")
    parser.add_argument(
        "--show-seeds", action="store_true", help="read the files undamaged, and end"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="with --case: keep its files here; else: write faults there as JSON",
    )
    parser.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="a JSON line per finished case; where FILE exists, the run goes on",
    )
    parser.add_argument(
        "--review",
        action="store_true",
        help=(
            "also list what Strata takes alone, and what it refuses though others"
            " read it"
        ),
    )
    asked = parser.parse_args()
    if asked.show_seeds:
        show_seeds(asked.only)
        return 0
    if asked.case is not None:
        show_case(asked.seed, asked.case, asked.output, asked.only)
        return 0
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, signal.default_int_handler)
    log = Log(asked.log, {"seed": asked.seed, "only": asked.only})
    tally, cases = Tally(), range(asked.first, asked.first + asked.cases)
    earlier = {one["case"]: one for one in log.earlier() if one["case"] in cases}
    for summary in earlier.values():
        tally.add(summary)
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as name:
        left = [case for case in cases if case not in earlier]
        run(left, tally, log, jobs=asked.jobs, folder=Path(name))
    print(f"{tally.n_cases:,} of {len(cases):,} cases\n")
    print(tally.table())
    print(
        f"\n{tally.unlike} cases differ between two runs;"
        f" {sum(map(len, tally.faults.values()))} faults in all"
    )
    for fault, found in sorted(tally.faults.items(), key=lambda item: -len(item[1])):
        print(f"{len(found):6}  {fault}  (cases {', '.join(map(str, found[:5]))})")
    if asked.review:
        for title, listed in (
            ("taken, though no other reader does", tally.alone),
            ("refused, though another reader takes it", tally.strict),
        ):
            print(f"\n{title}:")
            for text, found in sorted(listed.items(), key=lambda item: -len(item[1]))[
                :150
            ]:
                print(
                    f"{len(found):6}  {text}  (cases {', '.join(map(str, found[:5]))})"
                )
    if asked.output is not None:
        asked.output.write_text(json.dumps(tally.faults, indent=1))
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
