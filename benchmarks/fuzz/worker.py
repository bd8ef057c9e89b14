"""A process that runs cases as told on its standard input, a line of numbers each.

Answers with a line of JSON per case.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from pathlib import Path

from benchmarks.fuzz.outcome import COMMAND_EVERY, make_case, ready, run_case
from benchmarks.fuzz.seeds import read_seeds

MEMORY_BYTES = 3 * 2**30


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--second", action="store_true")
    asked = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    heard = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
    os.dup2(heard.fileno(), 1)
    os.dup2(heard.fileno(), 2)
    seeds = read_seeds(asked.seeds)
    ready()
    run_case(seeds[0], asked.folder)
    resource.setrlimit(
        resource.RLIMIT_AS, (_address_space() + MEMORY_BYTES, resource.RLIM_INFINITY)
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    heard.truncate(0)
    for line in sys.stdin:
        case = int(line)
        answers.write(f"begin {case}\n")
        made, done = make_case(seeds, asked.seed, case)
        place = os.lseek(heard.fileno(), 0, os.SEEK_END)
        outcome = run_case(
            made,
            asked.folder,
            case=case,
            done=done,
            judge=not asked.second,
            command=case % COMMAND_EVERY == 0 and not asked.second,
            backwards=asked.second,
        )
        said = os.pread(heard.fileno(), 2000, place)
        if said:
            outcome.faults.append(
                "stray output of a library:"
                f" {said.splitlines()[0][:120].decode('latin-1')}"
            )
        answers.write(json.dumps(outcome.to_dict()) + "\n")


def _address_space() -> int:
    try:
        return (
            int(Path("/proc/self/statm").read_text().split()[0])
            * resource.getpagesize()
        )
    except OSError:  # not Linux
        return 8 * 2**30


if __name__ == "__main__":
    main()
