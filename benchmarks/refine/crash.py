"""Does work survive? Kills a process in the middle of random edits.

Edits at random for long, checking every step.

python -m benchmarks.refine.crash               50 kills in 200 random edits, each
resumed and compared python -m benchmarks.refine.crash --long 10000  so many random
edits and undos in one process
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from benchmarks.refine.random_edits import digest, random_edit

from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.recovery import find_unfinished
from napari_strata.refine.session.refinement import Refinement

ROOT = Path(__file__).parents[2]


def child(case: Path, folder: Path, seed: int, first: int) -> None:
    """Take the work up, or begin it, and edit until killed.

    Says after each edit how many are done and what it looks like.
    """
    found = find_unfinished(folder=folder)
    work = found[0].resume() if found else Refinement.load(case)
    work.storage.begin_autosave(folder)
    for i in itertools.count(first):
        random_edit(work, np.random.default_rng([seed, i]))
        sys.stdout.write(f"{i + 1} {digest(work)}\n")
        sys.stdout.flush()


def killed(
    case: Path, folder: Path, seed: int, first: int, lines: int, wait_s: float
) -> list[tuple[int, str]]:
    """Run a child and kill it a moment after it has said so many lines.

    Gives what it had said.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.refine.crash",
        "--child",
        str(case),
        str(folder),
        str(seed),
        str(first),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        said = list(itertools.islice(iter(process.stdout.readline, ""), lines))
        time.sleep(wait_s)
        process.kill()
        said += process.stdout.readlines()
    whole = [line.split() for line in said if line.endswith("\n")]
    return [(int(count), text) for count, text in whole]


def crash(
    proposal: Proposal, *, kills: int, edits: int, seed: int = 0
) -> dict[str, object]:
    """Kill a process so many times while it makes so many edits.

    Every resumed state is compared with a work that never crashed.

    A resumed state has to be the one after the last edit whose call had returned, or,
    where the kill came between an edit reaching the disk and its being reported, after
    that one.
    """
    rng = np.random.default_rng(seed)
    equal, done, ahead, lost = 0, 0, 0, []
    with tempfile.TemporaryDirectory() as name:
        case, folder = Path(name) / "case.strata", Path(name) / "work"
        folder.mkdir()
        Refinement(proposal, regions=20).save(case)
        never_killed = Refinement.load(case)
        for kill in range(kills):
            lines = max(
                1, round((edits - done) / (kills - kill) + int(rng.integers(-1, 2)))
            )
            said = killed(case, folder, seed, done, lines, float(rng.uniform(0, 0.03)))
            for i in range(done, said[-1][0]):
                random_edit(never_killed, np.random.default_rng([seed, i]))
            done = said[-1][0]
            assert digest(never_killed) == said[-1][1], (
                "the killed process went another way"
            )
            found = find_unfinished(folder=folder)
            work = (
                found[0].resume(proposal=never_killed.proposal)
                if found
                else Refinement.load(case)
            )
            state = digest(work)
            if state != digest(never_killed):
                random_edit(never_killed, np.random.default_rng([seed, done]))
                done, ahead = done + 1, ahead + 1
            same = state == digest(never_killed)
            equal += same
            lost += [] if same else [kill]
            work.storage.end_autosave(keep=True)
        left = sum(path.stat().st_size for path in folder.glob("*.strata-journal"))
    return {
        "kills": kills,
        "edits": done,
        "equal": equal,
        "one edit ahead of the report": ahead,
        "unequal": lost,
        "journal_bytes": left,
    }


def long_run(
    proposal: Proposal, *, edits: int, seed: int = 0, check_every: int = 1000
) -> dict[str, object]:
    """Edit at random for long with locked regions and painted voxels.

    Check that they stay and that the journal agrees.
    """
    rng = np.random.default_rng(seed)
    work = Refinement(proposal, regions=20)
    painted = np.argwhere(work.labels == 6)[:60]
    work.paint(painted, 5)
    work.lock(5)
    work.accept(3)
    kept = {i: work.labels == i for i in (3, 5)}
    floor, refused, checks, broken = len(work.history), 0, 0, 0
    with tempfile.TemporaryDirectory() as name:
        journal = work.storage.begin_autosave(name)
        begun = time.process_time()
        for i in range(edits):
            refused += not random_edit(work, rng)
            if len(work.history) < floor:
                work.steps.jump(floor)
            labels = work.labels
            broken += any(
                not np.array_equal(labels == region, where)
                for region, where in kept.items()
            )
            if (i + 1) % check_every == 0:
                checks += _agrees(work, proposal)
                sys.stderr.write(
                    f"{i + 1} edits, {refused} refused, {len(work.history)} steps,"
                    f" {time.process_time() - begun:.0f} s\n"
                )
        work.storage.end_autosave(keep=True)
        again = find_unfinished(folder=name)[0].resume()
        same = digest(again) == digest(work)
        again.storage.end_autosave(keep=True)
        size = journal.stat().st_size
    return {
        "edits": edits,
        "refused": refused,
        "steps": len(work.history),
        "locked or painted changed": broken,
        "checks of undo and replay passed": f"{checks} of {edits // check_every}",
        "resumed equals": same,
        "journal_bytes": size,
        "processor_s": round(time.process_time() - begun, 1),
    }


def _agrees(work: Refinement, proposal: Proposal) -> bool:
    """Tell whether undoing everything gives the start, redoing everything the same again.

    Replaying the steps too.
    """
    before, steps = digest(work), len(work.history)
    work.steps.jump(0)
    start = np.array_equal(work.labels, proposal.regions(20).labels)
    work.steps.jump(steps)
    return (
        start
        and digest(work) == before
        and np.array_equal(work.replay(proposal).labels, work.labels)
    )


def sample_proposal(supervoxels: int, side: int) -> Proposal:
    """Propose on the middle of the sample head, coarsely.

    A proposal of the usual make in some seconds.
    """
    import napari_strata as strata

    volume = strata.read(ROOT / "sample_scans" / "head_t1.nii.gz")
    box = tuple(
        slice(max(0, (n - side) // 2), (n + side) // 2) for n in volume.data.shape
    )
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.geometry.world_from_voxel([part.start for part in box])
    data = np.ascontiguousarray(volume.data[box])
    middle = strata.Volume(
        data,
        strata.Geometry(data.shape, affine),
        volume.modality,
        "middle of the sample head",
    )  # type: ignore[arg-type]
    settings = strata.ProposeSettings(
        method="gmm-mrf", supervoxels=supervoxels, flatten_bias="off"
    )
    return strata.propose(middle, settings=settings, threads=1)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--long", type=int, default=0, metavar="EDITS")
    parser.add_argument(
        "--case",
        type=Path,
        help="a case whose proposal is used, instead of the sample head's",
    )
    parser.add_argument("--supervoxels", type=int, default=1500)
    parser.add_argument(
        "--side",
        type=int,
        default=64,
        help="voxels a side that are used of the sample head",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(
            Path(asked.child[0]),
            Path(asked.child[1]),
            int(asked.child[2]),
            int(asked.child[3]),
        )
        return
    proposal = (
        Refinement.load(asked.case).proposal
        if asked.case
        else sample_proposal(asked.supervoxels, asked.side)
    )
    if asked.long:
        figures = long_run(proposal, edits=asked.long, seed=asked.seed)
    else:
        figures = crash(proposal, kills=asked.kills, edits=asked.edits, seed=asked.seed)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
