"""Kill a batch at random moments, go on with it.

Compare the end with that of a run that nobody disturbed.

    python -m benchmarks.batch.kill -o out/kill [--kills 20] [--scans 12] [--workers 2]

After every kill each file that stands under a final name is compared with the
undisturbed run's, so a partial one is seen.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.batch.phantoms import write_phantoms


@dataclass(frozen=True)
class Ending:
    """How a disturbed run ended.

    Parameters
    ----------
    kills : int
        That hit a run in its work.
    partial : list of str
        Files under a final name that were not as in the undisturbed run, with the kill
        after which they were seen.
    different : list of str
        Files that differ, are missing or too many at the end.
    left : list of str
        Unfinished files at the end.
    """

    kills: int
    partial: list[str]
    different: list[str]
    left: list[str]


def contents(folder: Path) -> dict[str, bytes]:
    """Give what stands under final names.

    Bytes, without the timings of sidecars; the log tells each run, so it is left out.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            path.is_dir()
            or name in ("batch.jsonl", ".batch-lock")
            or any(part.startswith(".strata-") for part in name.split("/"))
        ):
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            try:
                said = json.loads(data)
            except ValueError:
                said = {"partial": data.decode(errors="replace")}
            said.pop("seconds", None)
            data = json.dumps(said, sort_keys=True).encode()
        found[name] = data
    return found


def disturbed(
    words: list[str],
    folder: Path,
    whole: dict[str, bytes],
    *,
    kills: int,
    seed: int = 0,
    longest_s: float = 2.0,
) -> Ending:
    """Run a command again and again, killing it `kills` times with all its children.

    Then once to the end.

    Parameters
    ----------
    words : list of str
        The command, which writes to `folder`.
    folder : Path
        Its outputs.
    whole : dict
        `contents` of an undisturbed run.
    kills : int
        How often.
    seed : int
        Of the moments.
    longest_s : float
        A kill comes up to so many seconds after the run has begun its work.
    """
    rng, done, partial = random.Random(seed), 0, []
    for number in range(kills):
        run = subprocess.Popen(
            words,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _wait_for_work(run, folder)
        time.sleep(rng.uniform(0, longest_s))
        if run.poll() is None:
            # only the command itself: its workers have to notice
            os.kill(run.pid, signal.SIGKILL)
            done += 1
        run.wait()
        names = ("_labels.", "_dseg.", "qc/")
        seen = {
            name: data
            for name, data in contents(folder).items()
            if any(part in name for part in names)
        }
        partial += [
            f"{name} after kill {number + 1}"
            for name, data in seen.items()
            if whole.get(name) != data
        ]
    subprocess.run(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=3600,
        check=False,
    )
    end = contents(folder)
    different = sorted(
        name for name in whole.keys() | end.keys() if whole.get(name) != end.get(name)
    )
    return Ending(
        done, partial, different, [path.name for path in folder.rglob(".strata-*")]
    )


def _wait_for_work(run: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until this run has said that it has begun."""
    log, before = folder / "batch.jsonl", _runs(folder)
    while run.poll() is None and (not log.exists() or _runs(folder) == before):
        time.sleep(0.02)


def _runs(folder: Path) -> int:
    log = folder / "batch.jsonl"
    return (
        log.read_text(errors="replace").count('"event": "engine"')
        if log.exists()
        else 0
    )


def command(scans: Path, out: Path, *more: str) -> list[str]:
    """Give a quick batch as words."""
    few = [
        "--tissues",
        "4",
        "--method",
        "gmm-mrf",
        "--supervoxels",
        "300",
        "--threads",
        "1",
        "--quiet",
    ]
    return [
        sys.executable,
        "-m",
        "napari_strata.cli.command_line",
        "batch",
        str(scans),
        "-o",
        str(out),
        *few,
        *more,
    ]


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--scans", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--longest",
        type=float,
        default=2.0,
        metavar="S",
        help="kill up to so long after the work began",
    )
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    write_phantoms(folder / "scans", arguments.scans, broken=2)
    subprocess.run(
        command(folder / "scans", folder / "whole", "--workers", "1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    words = command(
        folder / "scans", folder / "killed", "--workers", str(arguments.workers)
    )
    ending = disturbed(
        words,
        folder / "killed",
        contents(folder / "whole"),
        kills=arguments.kills,
        longest_s=arguments.longest,
    )
    print(
        json.dumps(
            vars(ending)
            | {
                "asked_kills": arguments.kills,
                "scans": arguments.scans,
                "workers": arguments.workers,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
