"""What strokes on one scan taught is applied to another, with confidence.

Refused where it cannot be.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import ndimage as ndi

from napari_strata.cli.command_line import main
from napari_strata.errors import GeometryError, TeachingError, WriteError
from napari_strata.export.files import write
from napari_strata.io.files import read_labels, write_scan
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.labelled_scans import LabelledProposal, teach_labels
from napari_strata.refine.session.refinement import Refinement
from napari_strata.refine.transfer import Teaching
from napari_strata.volume import Geometry, Region, Segmentation
from phantoms import INTENSITIES, phantom_proposal, phantom_truth, phantom_volume

TRUTH = phantom_truth()
LIVER, KIDNEY = 2, 3
POSITION = ("position z", "position y", "position x")
NAMES = (
    "feature 0.0",
    "feature 0.1",
    "feature 0.2",
    "brightness mean",
    "brightness 2 mm",
    "brightness 4 mm",
    *POSITION,
)
LOOKS = np.random.default_rng(3).normal(0, 1.0, (6, 3))
"""What an encoder would say of each class of the phantom."""


def scan(seed: int, *, offset: float = 0.0) -> Proposal:
    """Make a proposal of the phantom with descriptors as the pipeline names them.

    Brightness shifted by `offset`.
    """
    made = phantom_proposal(phantom_volume(seed=seed), seed=seed)
    ids = np.arange(made.n_supervoxels)
    intensity = ndi.mean(made.volume.data, made.supervoxels, ids) / 1000
    centers = (
        np.array(ndi.center_of_mass(np.ones(TRUTH.shape), made.supervoxels, ids))
        * made.volume.spacing_zyx_mm
    )
    rng = np.random.default_rng(seed)
    kind = np.abs(1000 * intensity[:, None] - np.array(INTENSITIES)).argmin(axis=1)
    columns = np.column_stack(
        [LOOKS[kind], *[intensity + offset] * 3, centers]
    ) + rng.normal(0, 0.03, (len(ids), len(NAMES)))
    middle, spread = columns.mean(axis=0), columns.std(axis=0)
    return replace(
        made,
        descriptors=((columns - middle) / spread).astype(np.float32),
        descriptor_names=NAMES,
        descriptor_scale=np.stack([middle, spread]).astype(np.float32),
        provenance={"weights_sha256": "a" * 64, "settings": {"supervoxels": 300}},
    )


def work_on(proposal: Proposal) -> Refinement:
    """Teach two organs and the background, a few clicks each."""
    work = Refinement(proposal)
    rng = np.random.default_rng(0)
    for organ, region in ((LIVER, 1), (KIDNEY, 2), (1, 0)):
        inside = np.argwhere(ndi.binary_erosion(organ == TRUTH))
        work.scribble(inside[rng.choice(len(inside), 12, replace=False)], region=region)
    work.rename(1, "liver")
    work.rename(2, "kidney")
    return work


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / max(1, a.sum() + b.sum()))


@pytest.fixture(scope="module")
def work() -> Refinement:
    return work_on(scan(0))


@pytest.fixture(scope="module")
def teaching(work: Refinement) -> Teaching:
    return work.teach()


def test_a_follow_up_gets_the_taught_regions_with_their_names(work, teaching):
    later = scan(5, offset=0.1)
    found = teaching.apply(later)
    labels = found.segmentation(later)
    assert dice(work.labels == 1, TRUTH == LIVER) > 0.8
    assert dice(labels.labels == 1, TRUTH == LIVER) > 0.8
    assert dice(labels.labels == 2, TRUTH == KIDNEY) > 0.8
    assert [region.name for region in labels.regions] == ["liver", "kidney"]
    assert found.fits
    assert found.warning() == ""
    assert set(found.record(later)["confidence"]) == {"1", "2"}


def test_confidence_is_lower_where_it_is_wrong(teaching):
    later = scan(9, offset=-0.1)
    found = teaching.apply(later)
    wanted = np.array([0, 0, 1, 2, 0, 0])[TRUTH]
    wrong = found.table[later.supervoxels] != wanted
    sure = found.confidence[later.supervoxels]
    body = TRUTH > 0
    assert sure.min() >= 0
    assert sure.max() <= 1
    assert sure[body & ~wrong].mean() > sure[body & wrong].mean()


def test_a_scan_of_another_kind_is_told(teaching):
    other = scan(1)
    other = replace(
        other,
        descriptors=np.random.default_rng(0)
        .normal(0, 4, other.descriptors.shape)
        .astype(np.float32),
    )
    found = teaching.apply(other)
    assert not found.fits
    assert "unlike" in found.warning()


def test_the_same_case_and_seed_give_the_same_file_and_the_file_the_same_labels(
    work, teaching, tmp_path
):
    teaching.save(tmp_path / "a.strata-teaching")
    work.teach().save(tmp_path / "b.strata-teaching")
    assert (tmp_path / "a.strata-teaching").read_bytes() == (
        tmp_path / "b.strata-teaching"
    ).read_bytes()
    again = Teaching.load(tmp_path / "a.strata-teaching")
    assert again.sha256 == teaching.sha256
    later = scan(5)
    assert np.array_equal(again.apply(later).table, teaching.apply(later).table)


def test_a_case_that_teaches_nothing_says_so():
    with pytest.raises(TeachingError, match="scribble"):
        Refinement(scan(0), regions=5).teach()


def test_other_encoders_modalities_and_columns_are_refused(teaching):
    later = scan(2)
    with pytest.raises(TeachingError, match="encoder"):
        teaching.apply(replace(later, provenance={"weights_sha256": "b" * 64}))
    with pytest.raises(TeachingError, match="read as CT"):
        teaching.apply(replace(later, volume=replace(later.volume, modality="ct")))
    with pytest.raises(TeachingError, match="columns"):
        teaching.apply(replace(later, descriptor_names=("feature 0.1", *NAMES[1:])))


def test_a_teaching_is_not_written_under_the_name_of_a_scan(teaching, tmp_path: Path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"a scan")
    with pytest.raises(WriteError, match="must end in"):
        teaching.save(path)
    assert path.read_bytes() == b"a scan"


@pytest.mark.parametrize(
    "damage",
    ["missing", "text", "cut short", "another kind", "later version", "examples"],
)
def test_bad_files_are_refused_by_name(teaching, tmp_path: Path, damage: str):
    path = tmp_path / "liver.strata-teaching"
    teaching.save(path)
    arrays = load_file(path)
    if damage == "missing":
        path.unlink()
    elif damage == "text":
        path.write_text("a liver")
    elif damage == "cut short":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "another kind":
        save_file(arrays, path)
    elif damage == "later version":
        save_file(arrays, path, {"strata-teaching": json.dumps({"version": 99})})
    else:
        header = {
            "version": 1,
            "regions": [],
            "typical_distance": 1,
            "modality": "mr",
            "weights_sha256": None,
            "names": [],
            "about": {},
        }
        save_file(
            {**arrays, "taught": arrays["taught"][:-1]},
            path,
            {"strata-teaching": json.dumps(header)},
        )
    with pytest.raises(TeachingError, match=r"liver\.strata-teaching"):
        Teaching.load(path)


def test_teach_and_propose_on_the_command_line(tmp_path, capsys):
    """The brightness method takes no encoder and is quick.

    Its proposals keep no features, only brightness.
    """
    scan_file = str(write_scan(phantom_volume(seed=3), tmp_path / "scan.nii.gz"))
    case, out = tmp_path / "case.strata", tmp_path / "labels.nii.gz"
    few = ["--method", "gmm-mrf", "--supervoxels", "300", "--threads", "1", "--quiet"]
    assert (
        main(
            [
                "propose",
                scan_file,
                "-o",
                str(tmp_path / "first.nii.gz"),
                "--tissues",
                "5",
                "--case",
                str(case),
                *few,
            ]
        )
        == 0
    )
    assert main(["teach", str(case), "-o", str(tmp_path / "a.strata-teaching")]) == 2
    assert "scribble" in capsys.readouterr().err
    work = Refinement.load(case)
    inside = np.argwhere(ndi.binary_erosion(TRUTH == LIVER))
    work.rename(work.scribble(inside[::9], scope="everywhere"), "liver")
    taken = work.labels == work.view.region_at(inside[0])
    work.save(case)
    assert main(["teach", str(case), "-o", str(tmp_path / "a.txt")]) == 2
    assert main(["teach", str(case), "-o", str(tmp_path / "a.strata-teaching")]) == 0
    assert "liver" in capsys.readouterr().out
    given = ["--taught", str(tmp_path / "a.strata-teaching")]
    assert (
        main(
            [
                "propose",
                scan_file,
                "-o",
                str(out),
                *given,
                "--case",
                str(tmp_path / "b.strata"),
                *few,
            ]
        )
        == 2
    )
    assert main(["propose", scan_file, "-o", str(out), *given, *few]) == 0
    assert dice(read_labels(out).labels > 0, taken) > 0.6
    said = json.loads((tmp_path / "labels.json").read_text())["taught"]
    assert said["fits"]
    assert not (tmp_path / "b.strata").exists()


def labelled(seed: int, *, names: dict[int, str] | None = None) -> LabelledProposal:
    """A scan of the phantom with the labels of its organs."""
    made = scan(seed)
    names = names or {LIVER: "liver", KIDNEY: "kidney"}
    truth = np.where(np.isin(TRUTH, list(names)), TRUTH, 0).astype(np.uint8)
    regions = tuple(Region(i, name, (9, 9, 9)) for i, name in names.items())
    return LabelledProposal(made, Segmentation(truth, regions, made.volume.geometry))


def test_labels_of_one_scan_find_the_organs_of_another_and_nothing_else(tmp_path: Path):
    teaching = teach_labels([labelled(1)])
    path = tmp_path / "organs.strata-teaching"
    teaching.save(path)
    other = scan(2)
    found = Teaching.load(path).apply(other)
    assert np.array_equal(found.table, teaching.apply(other).table)
    assert [region.name for region in found.regions] == ["liver", "kidney"]
    labels = found.segmentation(other).labels
    for organ in (LIVER, KIDNEY):
        assert dice(labels == organ, organ == TRUTH) > 0.85
    assert found.fits


def test_labels_of_several_scans_add_up_by_name():
    both = teach_labels(
        [
            labelled(1, names={LIVER: "liver"}),
            labelled(2, names={LIVER: "Liver", KIDNEY: "kidney"}),
        ]
    )
    assert [region.name for region in both.regions] == ["liver", "kidney"]
    other = scan(3)
    labels = both.apply(other).segmentation(other).labels
    assert dice(labels == both.regions[0].id, TRUTH == LIVER) > 0.85


def test_what_is_like_nothing_that_was_labelled_is_background():
    def as_ct(proposal: Proposal) -> Proposal:
        """Intensities of CT are not aligned, so that other ones stay strange."""
        return replace(proposal, volume=replace(proposal.volume, modality="ct"))

    one = labelled(1)
    teaching = teach_labels([LabelledProposal(as_ct(one.proposal), one.labels)])
    assert teaching.apply(as_ct(scan(2))).table.any()
    assert not teaching.apply(as_ct(scan(2, offset=3.0))).table.any()


def test_labels_that_do_not_fit_or_are_empty_are_refused():
    one = labelled(1)
    small = Segmentation(
        one.labels.labels[:5],
        one.labels.regions,
        Geometry.from_spacing((5, 28, 32), (2, 1, 1)),
    )
    with pytest.raises(GeometryError, match="labels of this scan"):
        LabelledProposal(one.proposal, small)
    empty = replace(one.labels, labels=np.zeros_like(one.labels.labels))
    with pytest.raises(TeachingError, match="not empty"):
        teach_labels([LabelledProposal(one.proposal, empty)])
    with pytest.raises(TeachingError, match="Give one"):
        teach_labels([])


def test_teach_from_labels_on_the_command_line(tmp_path, capsys):
    scan_file = str(write_scan(phantom_volume(seed=3), tmp_path / "scan.nii.gz"))
    volume = phantom_volume(seed=3)
    labels = Segmentation(
        (TRUTH == LIVER).astype(np.uint8) * LIVER,
        (Region(LIVER, "liver", (9, 9, 9)),),
        volume.geometry,
    )
    label_file = str(write(labels, tmp_path / "labels.nii.gz"))
    few = ["--method", "gmm-mrf", "--supervoxels", "300", "--threads", "1", "--quiet"]
    taught = str(tmp_path / "a.strata-teaching")
    command = ["teach", scan_file, "--labels", label_file, "-o", taught, *few]
    assert main([*command[:4], label_file, *command[4:]]) == 2
    assert "1 scans and 2 labels" in capsys.readouterr().err
    assert main(command) == 0
    assert "liver" in capsys.readouterr().out
    out = str(tmp_path / "found.nii.gz")
    assert main(["propose", scan_file, "-o", out, "--taught", taught, *few]) == 0
    found = read_labels(out)
    assert dice(found.labels == LIVER, TRUTH == LIVER) > 0.6
    assert main(["teach", scan_file, "-o", taught]) == 2
    assert "--labels" in capsys.readouterr().err
