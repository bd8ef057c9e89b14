"""Volumes, intensities and places of regions, and agreement with a reference."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from napari_strata.errors import GeometryError
from napari_strata.measure import Agreement, compare, measure_regions
from napari_strata.volume import Geometry, Region, Segmentation, Volume, default_regions

SHAPE = (6, 8, 10)
OBLIQUE = np.array(
    [
        [0.2, -0.3, -1.1, 12.0],
        [0.1, -1.4, 0.2, -7.0],
        [-2.5, 0.2, 0.1, 30.0],
        [0, 0, 0, 1],
    ]
)


def labelled(
    labels: np.ndarray, regions: tuple[Region, ...] = (), affine: np.ndarray = OBLIQUE
) -> Segmentation:
    return Segmentation(labels, regions, Geometry(labels.shape, affine))


def random_case(seed: int = 0) -> tuple[Segmentation, Volume]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, SHAPE).astype(np.uint8)
    volume = Volume(
        rng.normal(40, 100, SHAPE).astype(np.float32), Geometry(SHAPE, OBLIQUE), "ct"
    )
    return labelled(labels, default_regions(range(1, 5))), volume


def test_measures_agree_with_a_plain_computation_per_region():
    segmentation, volume = random_case()
    measures = measure_regions(segmentation, volume)
    assert [m.id for m in measures] == [1, 2, 3, 4]
    for m in measures:
        inside = segmentation.labels == m.id
        values = volume.data[inside].astype(float)
        places = np.argwhere(inside)
        assert m.voxels == inside.sum()
        assert m.volume_ml == pytest.approx(
            inside.sum() * abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000
        )
        assert (m.mean, m.sd) == pytest.approx((values.mean(), values.std()), rel=1e-6)
        found = (m.minimum, m.p5, m.median, m.p95, m.maximum)
        assert found == pytest.approx(
            tuple(np.percentile(values, [0, 5, 50, 95, 100])), rel=1e-6
        )
        assert m.centroid_ras_mm == pytest.approx(
            tuple((OBLIQUE @ [*places.mean(axis=0), 1])[:3])
        )
        assert (m.box_start_zyx, m.box_stop_zyx) == (
            tuple(places.min(axis=0)),
            tuple(places.max(axis=0) + 1),
        )


def test_a_reordered_view_of_the_scan_measures_the_same():
    segmentation, volume = random_case()
    view = Volume(np.asfortranarray(volume.data), volume.geometry, "ct")
    assert measure_regions(segmentation, view) == measure_regions(segmentation, volume)


def test_integer_scans_do_not_overflow():
    segmentation = labelled(np.ones(SHAPE, np.uint16))
    volume = Volume(np.full(SHAPE, 30000, np.int16), segmentation.geometry)
    (measure,) = measure_regions(segmentation, volume)
    assert (measure.mean, measure.sd, measure.median) == (30000, 0, 30000)


def test_a_named_region_without_voxels_stays_in_the_table():
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0] = 7
    measures = measure_regions(
        labelled(labels, (Region(3, "erased", (1, 2, 3)),)),
        Volume(np.ones(SHAPE), Geometry(SHAPE, OBLIQUE)),
    )
    assert [(m.id, m.name, m.voxels) for m in measures] == [
        (3, "erased", 0),
        (7, "region 7", 1),
    ]
    assert measures[0].volume_ml == 0
    assert math.isnan(measures[0].mean)


def test_labels_without_any_region_give_an_empty_table():
    empty = labelled(np.zeros(SHAPE, np.uint8))
    assert measure_regions(empty, Volume(np.ones(SHAPE), empty.geometry)) == ()


def test_another_grid_is_refused():
    segmentation, volume = random_case()
    shifted = OBLIQUE.copy()
    shifted[0, 3] += 2
    with pytest.raises(GeometryError, match="2 mm away from the scan"):
        measure_regions(segmentation, Volume(volume.data, Geometry(SHAPE, shifted)))
    with pytest.raises(
        GeometryError, match=r"\(6, 8, 10\) but the scan is \(6, 8, 9\)"
    ):
        measure_regions(
            segmentation, Volume(volume.data[..., :9], Geometry((6, 8, 9), OBLIQUE))
        )


def score(
    labels: list[int], reference: list[int], **options: tuple[int, ...]
) -> Agreement:
    affine = np.diag([1.0, 1, 1, 1])
    rows = [
        np.array(values, np.uint8).reshape(1, 1, -1) for values in (labels, reference)
    ]
    return compare(
        labelled(rows[0], affine=affine), labelled(rows[1], affine=affine), **options
    )


def test_the_same_regions_under_other_numbers_agree_perfectly():
    agreement = score([5, 5, 9, 9, 0, 0], [1, 1, 2, 2, 0, 0])
    assert agreement.one_to_one == {1: 1.0, 2: 1.0}
    assert agreement.many_to_one == {1: 1.0, 2: 1.0}
    assert agreement.ari == 1
    assert (agreement.voi_split_bits, agreement.voi_merge_bits) == (0, 0)


def test_scores_worked_out_by_hand():
    # class 1 (4 voxels) in regions 1, 1, 2, 3; class 2 (4 voxels) in regions 3, 3, 3, 4
    agreement = score([1, 1, 2, 3, 3, 3, 3, 4], [1, 1, 1, 1, 2, 2, 2, 2])
    assert agreement.one_to_one == pytest.approx({1: 2 * 2 / 6, 2: 2 * 3 / 8})
    assert agreement.many_to_one == pytest.approx({1: 2 * 3 / 7, 2: 2 * 4 / 9})
    assert (agreement.n_regions, agreement.voxels) == (4, 8)


def test_splitting_costs_bits_of_split_and_merging_bits_of_merge():
    split = score([1, 2, 3, 4], [1, 1, 1, 1])
    assert (split.voi_split_bits, split.voi_merge_bits) == (2, 0)
    merge = score([1, 1, 1, 1], [1, 1, 2, 2])
    assert (merge.voi_split_bits, merge.voi_merge_bits) == (0, 1)


def test_the_rand_index_agrees_with_counting_pairs():
    rng = np.random.default_rng(3)
    labels, reference = rng.integers(0, 4, 40).tolist(), rng.integers(1, 4, 40).tolist()
    pairs = Counter(
        (labels[a] == labels[b], reference[a] == reference[b])
        for a, b in combinations(range(40), 2)
    )
    both, only_labels, only_reference = (
        pairs[True, True],
        pairs[True, False],
        pairs[False, True],
    )
    by_chance = (both + only_labels) * (both + only_reference) / pairs.total()
    expected = (both - by_chance) / (
        (2 * both + only_labels + only_reference) / 2 - by_chance
    )
    assert score(labels, reference).ari == pytest.approx(expected)


def test_a_leak_into_the_background_costs_but_background_is_no_class():
    tight = score([1, 1, 0, 0], [1, 1, 0, 0])
    leaking = score([1, 1, 1, 0], [1, 1, 0, 0])
    assert tight.many_to_one == {1: 1.0}
    assert leaking.many_to_one[1] == pytest.approx(2 * 2 / 5)


def test_a_reference_with_unknown_and_other_voxels():
    agreement = score(
        [1, 1, 1, 2, 2, 3], [1, 1, 0, 2, 255, 255], ignore=(0,), other=(255,)
    )
    assert agreement.voxels == 5
    assert agreement.one_to_one == pytest.approx({1: 1.0, 2: 2 / 3})
    assert agreement.one_to_one_mean == pytest.approx(5 / 6)


def test_a_mask_of_0_and_255_is_an_ordinary_class_by_default():
    assert score([1, 1, 0], [255, 255, 0]).one_to_one == {255: 1.0}


def test_nothing_to_score_is_refused():
    with pytest.raises(GeometryError, match="no voxel to score"):
        score([1, 1], [0, 0], ignore=(0,))


def test_scores_go_to_json():
    agreement = score([1, 2], [1, 2])
    assert json.loads(json.dumps(agreement.to_dict()))["many_to_one"] == {
        "1": 1.0,
        "2": 1.0,
    }
