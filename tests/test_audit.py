"""A second opinion on labels: faults are found, and sides, and disagreements."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage as ndi

from napari_strata.audit.run import audit_labels
from napari_strata.audit.sides import side_of
from napari_strata.cli import main
from napari_strata.errors import GeometryError
from napari_strata.io.files import write, write_scan
from napari_strata.volume import Geometry, Region, Segmentation, default_regions
from phantoms import phantom_proposal, phantom_truth, phantom_volume

SHAPE = (32, 40, 44)


@pytest.fixture(scope="module")
def proposal():
    return phantom_proposal(phantom_volume(SHAPE, (1, 1, 1)))


@pytest.fixture(scope="module")
def truth():
    """Seven structures apart, of the phantom's classes."""
    parts, _ = ndi.label(phantom_truth(SHAPE) > 1)
    return parts.astype(np.uint8)


def maps_of(labels, proposal, names=()):
    rows = default_regions(np.unique(labels))
    rows = tuple(replace(row, name=dict(names).get(row.id, row.name)) for row in rows)
    return Segmentation(labels.astype(np.uint8), rows, proposal.volume.geometry)


def score(labels, key, proposal):
    audits, _ = audit_labels(proposal, [("labels", maps_of(labels, proposal))])
    return next(one for one in audits if one.id == key)


def shifted(mask):
    return np.roll(mask, 2, axis=2)


def grown(mask):
    return ndi.binary_dilation(mask, iterations=2)


def halved(mask):
    half = mask.copy()
    # not between two of the phantom's supervoxels, which are blocks of four voxels
    half[: int(np.argwhere(mask)[:, 0].mean()) // 4 * 4 + 2] = False
    return half


def with_islands(mask):
    spotted = mask.copy()
    for z, y in ((1, 1), (1, -3), (-3, 1), (-3, -3)):
        spotted[z : z + 2, y : y + 2, 1:3] = True
    return spotted


def with_hole(mask):
    holed = mask.copy()
    z, y, x = np.argwhere(mask).mean(axis=0).astype(int)
    holed[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] = False
    return holed


def with_odd_slice(mask):
    odd = mask.copy()
    index = int(np.argwhere(mask)[:, 0].mean())
    odd[index] = np.roll(mask[index], 4, axis=1)
    return odd


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (shifted, "moved"),
        (grown, "beside|moved"),
        (halved, "flat plane"),
        (with_islands, "islands"),
        (with_hole, "holes"),
        (with_odd_slice, "slice"),
    ],
)
def test_a_fault_is_named(truth, proposal, fault, reason):
    key = int(np.bincount(truth.ravel())[1:].argmax()) + 1
    clean = score(truth, key, proposal)
    labels = np.where(truth == key, 0, truth)
    labels[fault(truth == key)] = key
    wrong = score(labels, key, proposal)
    assert any(part in " ".join(wrong.reasons) for part in reason.split("|"))
    assert not any(part in " ".join(clean.reasons) for part in reason.split("|"))


def test_an_odd_slice_is_where_a_person_should_look(truth, proposal):
    key = int(np.bincount(truth.ravel())[1:].argmax()) + 1
    labels = np.where(truth == key, 0, truth)
    labels[with_odd_slice(truth == key)] = key
    found = score(labels, key, proposal)
    index = int(np.argwhere(truth == key)[:, 0].mean())
    voxel = proposal.volume.geometry.voxel_from_world(found.center_ras_mm)
    if "slice" in found.reasons[0]:
        assert round(float(voxel[0])) == index


def test_swapped_sides_are_told_from_names(truth, proposal):
    places = proposal.volume.geometry
    ids = np.unique(truth)[1:]
    right = max(
        ids, key=lambda i: places.world_from_voxel(np.argwhere(truth == i)).mean(0)[0]
    )
    left = min(
        ids, key=lambda i: places.world_from_voxel(np.argwhere(truth == i)).mean(0)[0]
    )
    for names, is_swapped in (
        ({left: "kidney_left", right: "kidney_right"}, False),
        ({left: "Right kidney", right: "Left kidney"}, True),
    ):
        labels = maps_of(truth, proposal, names)
        audits, _ = audit_labels(proposal, [("labels", labels)])
        by_id = {one.id: one for one in audits}
        assert by_id[left].side.partner == right
        for key in (left, right):
            assert by_id[key].side.is_swapped is is_swapped
            assert ("other side" in " ".join(by_id[key].reasons)) is is_swapped
    assert side_of("lh.hippocampus") == ("hippocampus", True)
    assert side_of("liver") is None
    assert side_of("brightness") is None


def test_maps_that_disagree_are_held_against_the_scan(truth, proposal):
    good, bad = truth, np.where(grown(truth == 1), 1, truth)
    names = {1: "liver"}
    audits, different = audit_labels(
        proposal,
        [
            ("good", maps_of(good, proposal, names)),
            ("bad", maps_of(bad, proposal, names)),
        ],
    )
    first = next(one for one in different if one.name == "liver")
    assert first.supported == "good"
    assert 0.2 < first.dice < 0.95
    assert {one.labels for one in audits} == {"good", "bad"}


def test_small_and_empty_maps_and_other_grids(truth, proposal):
    geometry = proposal.volume.geometry
    empty = Segmentation(np.zeros(SHAPE, np.uint8), (), geometry)
    assert audit_labels(proposal, [("empty", empty)]) == ([], [])
    one = np.zeros(SHAPE, np.uint8)
    one[3, 4, 5] = 9
    ((found,), _) = audit_labels(
        proposal,
        [("one", Segmentation(one, (Region(9, "spot", (1, 2, 3)),), geometry))],
    )
    assert (found.voxels, found.border, found.score) == (1, None, 0.0)
    whole = np.ones(SHAPE, np.uint8)
    ((found,), _) = audit_labels(
        proposal, [("whole", Segmentation(whole, (), geometry))]
    )
    assert np.isfinite(found.score)
    other = Geometry.from_spacing((8, 8, 8), (1, 1, 1))
    with pytest.raises(GeometryError):
        audit_labels(
            proposal, [("x", Segmentation(np.ones((8, 8, 8), np.uint8), (), other))]
        )


def test_the_command_writes_a_table_and_a_document(
    tmp_path, monkeypatch, capsys, truth, proposal
):
    scan = write_scan(proposal.volume, tmp_path / "scan.nii.gz")
    wrong = np.where(with_islands(truth == 2), 2, truth)
    for name, labels in (("a", truth), ("b", wrong)):
        write(maps_of(labels, proposal), tmp_path / f"{name}.nii.gz")
    monkeypatch.setattr(
        "napari_strata.pipeline.propose_with",
        lambda volume, *_settings, **_more: phantom_proposal(volume),
    )
    paths = [str(tmp_path / f"{name}.nii.gz") for name in "ab"]
    for suffix in (".tsv", ".json"):
        out = tmp_path / f"audit{suffix}"
        assert main(["audit", str(scan), *paths, "-o", str(out), "--quiet"]) == 0
    lines = (tmp_path / "audit.tsv").read_text().splitlines()
    head = lines[0].split("\t")
    assert all(len(line.split("\t")) == len(head) for line in lines)
    assert len(lines) == 1 + 2 * len(np.unique(truth)[1:])
    document = json.loads((tmp_path / "audit.json").read_text())
    scores = [one["score"] for one in document["structures"]]
    assert scores == sorted(scores, reverse=True)
    printed = capsys.readouterr()
    assert "islands" in printed.out
    assert "proves no structure wrong" in printed.err
    assert main(["audit", str(scan), paths[0], "-o", str(tmp_path / "x.csv")]) == 2
    assert ".tsv or .json" in capsys.readouterr().err
