"""The encoder bench: what its figures mean."""

import numpy as np
import pytest
import torch

pytest.importorskip(
    "benchmarks.encoder", reason="the benchmarks are only in the repository"
)

from benchmarks.encoder import stability
from benchmarks.encoder.baselines import network
from benchmarks.encoder.cluster import cluster_score
from benchmarks.encoder.probe import probe_score
from benchmarks.encoder.scans import OTHER, LabelledScan, largest_classes
from benchmarks.encoder.table import Row, markdown, merge, read_rows, write_rows
from benchmarks.encoder.working import WorkingScan, draw_voxels

from napari_strata.encoder.embed import embed_intensity
from napari_strata.encoder.network import NetworkShape, StrataEncoder
from napari_strata.encoder.runtime.torch_runtime import TorchRuntime
from napari_strata.preprocess.intensity import WorkingGrid
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Geometry, Volume


def ball_scan() -> LabelledScan:
    """A smooth bright ball, off the middle, in 1 x 1 x 2 mm voxels.

    Inside 1, its core 2, far away 255.
    """
    z, y, x = np.meshgrid(
        np.arange(24) * 2.0, np.arange(40), np.arange(44), indexing="ij"
    )
    far = np.sqrt((z - 22) ** 2 + (y - 18) ** 2 + (x - 25) ** 2)
    data = (1000 / (1 + np.exp((far - 14) / 2))).astype(np.float32)
    data += np.random.default_rng(0).random(data.shape, np.float32)
    reference = np.select([far < 8, far < 14, far > 18], [2, 1, OTHER], 0).astype(
        np.uint8
    )
    return LabelledScan(
        "ball",
        Volume(data, Geometry.from_spacing(data.shape, (2.0, 1.0, 1.0))),
        reference,
    )


def test_a_cluster_that_leaks_costs_its_class():
    reference = np.repeat([0, 1, 2, OTHER], [50, 100, 100, 300])
    exact = cluster_score(np.repeat([9, 1, 2, 3], [50, 100, 100, 300]), reference)
    leaking = cluster_score(np.repeat([9, 1, 2, 2], [50, 100, 100, 300]), reference)
    assert exact.many_to_one == 1.0
    assert exact.ari == pytest.approx(1.0)
    assert leaking.many_to_one == pytest.approx(0.5)
    assert leaking.ari < 1.0


def test_the_probe_learns_what_can_be_told_apart_and_nothing_else():
    rng = np.random.default_rng(0)
    classes = rng.integers(1, 3, 400).astype(np.uint8)
    telling, noise = (
        classes[:, None] + 0.1 * rng.standard_normal((400, 1)),
        rng.standard_normal((400, 1)),
    )
    scores = [
        probe_score(
            x[:100], classes[:100], x[100:], classes[100:], per_class=20, seed=0
        )
        for x in (telling, noise)
    ]
    assert scores[0] > 0.98
    assert scores[1] < 0.65


def test_the_eight_largest_classes_are_kept():
    truth = np.repeat(np.arange(12), [5, *range(20, 9, -1)])
    kept = largest_classes(truth)
    assert kept.max() == 8
    assert (kept[truth == 1] == 1).all()
    assert (kept[truth > 8] == 0).all()


def test_voxels_to_teach_are_not_probed_and_classes_are_right():
    scan = ball_scan()
    working = WorkingScan.of(scan.volume, ProposeSettings())
    voxels = draw_voxels(scan, working)
    taught, probed = (
        {tuple(point) for point in points.tolist()}
        for points in (voxels.taught, voxels.probed)
    )
    assert not taught & probed
    places = np.round(working.scan_points(voxels.probed)).astype(int)
    assert np.mean(scan.reference[tuple(places.T)] == voxels.probed_class) > 0.95
    assert set(voxels.clustered_class.tolist()) == {0, 1, 2, OTHER}


def test_points_of_a_changed_scan_lie_on_the_same_anatomy():
    scan = ball_scan()
    working = WorkingScan.of(scan.volume, ProposeSettings())
    voxels = draw_voxels(scan, working)
    before = working.scaled[tuple(voxels.body.T)][:, None]
    for change in stability.changes(scan.volume, working_body(scan)):
        other = WorkingScan.of(change.volume, ProposeSettings())
        places = np.round(
            other.working_points(change.place(working.scan_points(voxels.body)))
        ).astype(int)
        places = np.clip(places, 0, np.array(other.scaled.shape) - 1)
        after = other.scaled[tuple(places.T)][:, None]
        assert np.corrcoef(before[:, 0], after[:, 0])[0, 1] > 0.93, change.name


def working_body(scan: LabelledScan) -> np.ndarray:
    return scan.reference != OTHER


def test_features_read_at_voxels_are_those_of_the_feature_map():
    torch.manual_seed(0)
    encoder = (
        StrataEncoder(NetworkShape(width=4, channels=2)).eval().requires_grad_(False)
    )
    intensity = np.random.default_rng(0).random((18, 21, 20), np.float32)
    grid = WorkingGrid(
        (slice(0, 18), slice(0, 21), slice(0, 20)), intensity.shape, (1.0, 1.0, 1.0)
    )
    whole = embed_intensity(
        intensity, grid, TorchRuntime(encoder), settings=ProposeSettings()
    ).data
    points = np.stack(
        np.unravel_index(np.arange(0, intensity.size, 7), intensity.shape), axis=1
    )
    read = network("any", encoder).open(
        WorkingScan(intensity, intensity, intensity > 0, grid)
    )
    np.testing.assert_allclose(
        read(points), whole.reshape(len(whole), -1).T[::7], atol=1e-5
    )


def test_a_table_keeps_old_rows_and_takes_new_figures(tmp_path):
    path = tmp_path / "table.tsv"
    write_rows(
        [Row("net", "ct", "probe 20", 0.5), Row("intensity", "ct", "probe 20", 0.3)],
        path,
    )
    rows = merge(read_rows(path), [Row("net", "ct", "probe 20", 0.7, 0.01)])
    assert [row.value for row in rows] == [0.7, 0.3]
    assert "| net | **0.700** | 0.700 |" in markdown(rows)
