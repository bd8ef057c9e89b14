"""One case: the damaged input is read, and what comes of it is described and judged."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import resource
import shutil
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.fuzz import oracle
from benchmarks.fuzz.mutate import BEHIND_CHECKSUM, damaged
from benchmarks.fuzz.seeds import Seed

from napari_strata.errors import ChoiceError, StrataError
from napari_strata.io import files as strata
from napari_strata.io.header import header_shape

COMMAND_EVERY = 40
MOST_MEMORY_KIB = 300 * 1024
LONGEST_LINE = 4000


@dataclass
class Outcome:
    """What came of one case.

    `kind` is "volume", "labels", "refused", "choice" or "traceback"; `told` is equal in
    two runs of the same case: hashes of voxels and affine and the notes, or the words
    of the refusal. `agrees` says what another reader made of an accepted file: "equal",
    "not read" (it refused the file), or "" where nothing was accepted; `elsewhere`
    whether it takes a refused one.
    """

    case: int
    seed: str
    done: tuple[str, ...]
    kind: str = ""
    told: str = ""
    agrees: str = ""
    elsewhere: bool = False
    faults: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values."""
        return asdict(self)


def make_case(
    seeds: Sequence[Seed], seed: int, case: int
) -> tuple[Seed, tuple[str, ...]]:
    """Damage one of the seeds, the same for the same two numbers and seeds."""
    rng = np.random.default_rng([seed, case])
    return damaged(seeds[int(rng.integers(len(seeds)))], rng)


def lay_out(seed: Seed, folder: Path, *, backwards: bool = False) -> Path:
    """Write an input's files, and give what is to be opened."""
    names = list(seed.files)
    for name in reversed(names) if backwards else names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seed.files[name])
    return folder / seed.opened


def run_case(
    seed: Seed,
    folder: Path,
    *,
    case: int = 0,
    done: tuple[str, ...] = (),
    judge: bool = True,
    command: bool = False,
    backwards: bool = False,
) -> Outcome:
    """Read an input in a folder of its own, and judge what comes of it."""
    place = folder / "case"
    place.mkdir()
    outcome = Outcome(case, seed.name, done)
    try:
        path = lay_out(seed, place, backwards=backwards)
        before = _listing(place)
        result = _read(seed, path, place, outcome)
        if _listing(place) != before:
            outcome.faults.append("a file was left or changed")
        if judge:
            _judge(seed, path, result, outcome)
        if command:
            _by_command(seed, path, place, result, outcome)
    finally:
        shutil.rmtree(place)
    return outcome


def _listing(folder: Path) -> list[str]:
    return sorted(
        f"{Path(entry).relative_to(folder)}"
        for root, _, names in os.walk(folder)
        for entry in (os.path.join(root, name) for name in names)
    )


def _read(seed: Seed, path: Path, place: Path, outcome: Outcome) -> Any:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    heard = io.StringIO()
    try:
        with (
            contextlib.redirect_stderr(heard),
            contextlib.redirect_stdout(heard),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("always")
            # nibabel leaves closing to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            result: Any = (
                strata.read_labels(path)
                if seed.labels
                else strata.read(path, index=seed.index)
            )
    except StrataError as err:
        outcome.kind = "choice" if isinstance(err, ChoiceError) else "refused"
        outcome.told = str(err).replace(str(place), "CASE")
        outcome.faults += _wording(str(err), place)
        result = None
    except (
        Exception,  # noqa: BLE001 - tracebacks are what this looks for
        MemoryError,
    ) as err:
        outcome.kind = "traceback"
        last = traceback.extract_tb(err.__traceback__)
        ours = [frame for frame in last if "napari_strata" in frame.filename] or last
        where = f"{Path(ours[-1].filename).name}:{ours[-1].name}"
        outcome.told = (
            f"{type(err).__name__} in {where}:"
            f" {' '.join(str(err).replace(str(place), 'CASE').split())[:200]}"
        )
        outcome.faults.append(f"traceback: {type(err).__name__} in {where}")
        result = None
    if heard.getvalue():
        outcome.faults.append(
            "stray output:"
            f" {heard.getvalue().replace(str(place), 'CASE').splitlines()[0][:160]}"
        )
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory > MOST_MEMORY_KIB:
        outcome.faults.append("took over 300 MB for some kilobytes")
    if result is not None:
        outcome.kind = "labels" if seed.labels else "volume"
        outcome.told = _described(seed, result, place)
    return result


def _wording(text: str, place: Path) -> list[str]:
    """Say what is wrong with the words of a refusal."""
    faults = []
    if str(place) not in text:
        faults.append(f"the refusal does not name the file: {text[:120]}")
    if not text.isprintable():
        faults.append("the refusal is not one line of plain characters")
    if len(text) > LONGEST_LINE:
        faults.append("the refusal is endless")
    return faults


def _array(seed: Seed, result: Any) -> np.ndarray:
    return result.labels if seed.labels else result.data


def _described(seed: Seed, result: Any, place: Path) -> str:
    data, affine = _array(seed, result), result.geometry.affine
    digest = hashlib.sha256(
        np.ascontiguousarray(data).tobytes() + affine.tobytes()
    ).hexdigest()[:24]
    more = result.regions if seed.labels else (result.modality, result.notes)
    return f"{data.dtype} {data.shape} {digest} {more!r}".replace(str(place), "CASE")


def _judge(seed: Seed, path: Path, result: Any, outcome: Outcome) -> None:
    """Compare with another reader."""
    found = oracle.readings(seed, path)
    if result is None:
        outcome.elsewhere = found is not None
        return
    data = _array(seed, result)
    if not np.isfinite(data).all():
        outcome.faults.append("voxels that are no numbers")
    if data.dtype.byteorder == ">" or not data.flags.c_contiguous:
        outcome.faults.append("an array of foreign byte or axis order")
    if len(outcome.done) == 1 and outcome.done[0].endswith(BEHIND_CHECKSUM):
        outcome.faults.append("a wrong checksum is taken")
    if found is None:
        outcome.agrees = "not read"
    else:
        wrong = oracle.differences(data, result.geometry, found, labels=seed.labels)
        outcome.agrees = "unequal" if wrong else "equal"
        outcome.faults += [f"wrong: {one}" for one in wrong]
    if not seed.labels and result.geometry.file is not None:
        try:
            shape = header_shape(path)
        except StrataError as err:
            outcome.faults.append(
                f"header_shape refuses what read takes: {type(err).__name__}"
            )
        else:
            if tuple(shape) != result.geometry.file.shape:
                outcome.faults.append("header_shape gives another shape")


def _by_command(
    seed: Seed, path: Path, place: Path, result: Any, outcome: Outcome
) -> None:
    """Give the same input to the command.

    Look at the exit code, the lines and what was written.
    """
    from napari_strata.cli.command_line import main

    target = place.parent / "written"
    target.mkdir()
    chosen = [] if seed.index is None else ["--index", str(seed.index)]
    output = target / ("out.nrrd" if outcome.case % 2 else "out.nii.gz")
    calls = [
        [
            "convert",
            str(path),
            "-o",
            str(output),
            *(() if seed.labels else ("--scan", *chosen)),
        ]
    ]
    if not seed.labels:
        calls.append(["info", str(path), *chosen])
    try:
        for call in calls:
            said, heard = io.StringIO(), io.StringIO()
            try:
                with (
                    contextlib.redirect_stdout(said),
                    contextlib.redirect_stderr(heard),
                    warnings.catch_warnings(),
                ):
                    warnings.simplefilter("always")
                    warnings.simplefilter("ignore", ResourceWarning)
                    code = main(call)
            except (
                Exception,  # noqa: BLE001 - tracebacks are what this looks for
                SystemExit,
            ) as err:
                outcome.faults.append(
                    f"traceback of strata {call[0]}: {type(err).__name__}:"
                    f" {' '.join(str(err).split())[:100]}"
                )
                continue
            lines = heard.getvalue().splitlines()
            if code not in (0, 2):
                outcome.faults.append(f"strata {call[0]} ends with {code}")
            if code == 2 and (len(lines) != 1 or not lines[0].startswith("strata: ")):
                outcome.faults.append(f"strata {call[0]} refuses in {len(lines)} lines")
            if code == 2 and any(target.iterdir()) and call[0] == "convert":
                outcome.faults.append("an output was left")
            if (code == 0) != (result is not None) and not (
                call[0] == "convert" and code == 2
            ):
                outcome.faults.append(
                    f"strata {call[0]} ends with {code} where read"
                    f" {'takes' if result is not None else 'refuses'} it"
                )
            if code == 0 and call[0] == "convert":
                outcome.faults += _read_back(seed, output, result)
    finally:
        shutil.rmtree(target)


def _read_back(seed: Seed, output: Path, result: Any) -> list[str]:
    """Compare a converted file with what was read."""
    if result is None:
        return []
    try:
        again: Any = strata.read_labels(output) if seed.labels else strata.read(output)
    except StrataError as err:
        return [f"what convert wrote is refused: {' '.join(str(err).split())[-80:]}"]
    first, second = _array(seed, result), _array(seed, again)
    same = first.shape == second.shape and np.allclose(
        first.astype(np.float64), second.astype(np.float64), rtol=1e-6, atol=0
    )
    scale = np.abs(result.geometry.affine[:3]).max()
    placed = np.allclose(
        again.geometry.affine, result.geometry.affine, rtol=1e-5, atol=1e-5 * scale
    )
    return (
        []
        if same and placed
        else [f"what convert wrote has other {'places' if same else 'values'}"]
    )


def ready() -> None:
    """Settle what is only done once, before memory is limited and counted."""
    import logging

    import nibabel
    import pydicom
    import SimpleITK

    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    assert nibabel
    assert pydicom
    assert SimpleITK
