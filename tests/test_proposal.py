"""A whole proposal with the shipped encoder, from a small scan."""

from pathlib import Path

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.errors import Cancelled
from napari_strata.measure import compare
from napari_strata.proposal.confidence import ConfidenceInputs, estimate_confidence
from napari_strata.proposal.hierarchy.build_trees import region_tree, tissue_tree
from napari_strata.proposal.supervoxels.clustering import Contacts
from napari_strata.volume import Segmentation, Volume, default_regions
from phantoms import phantom_truth, phantom_volume

SETTINGS = strata.ProposeSettings(supervoxels=1500)
SAMPLES = Path(__file__).parents[1] / "sample_scans"


@pytest.fixture(scope="module")
def volume():
    return phantom_volume((32, 40, 48), (3.0, 2.0, 2.0))


@pytest.fixture(scope="module")
def proposal(volume):
    return strata.propose(volume, settings=SETTINGS, seed=1, threads=1)


@pytest.mark.parametrize("n", [1, 2, 8, 16, 60])
def test_a_cut_gives_exactly_as_many_regions_as_asked(proposal, n):
    for segmentation in (proposal.tissues(n), proposal.regions(n)):
        assert set(np.unique(segmentation.labels)) == set(range(n + 1))
        assert len(segmentation.regions) == n
        assert segmentation.labels.shape == proposal.volume.data.shape


def test_finer_cuts_lie_inside_coarser_ones(proposal):
    for tree in (proposal.region_tree, proposal.tissue_tree):
        for coarse, fine in ((4, 9), (9, 40)):
            pairs = np.unique(np.stack([tree.cut(fine), tree.cut(coarse)]), axis=1)
            assert len(np.unique(pairs[0])) == pairs.shape[1]


def test_asking_for_too_many_gives_fewer_and_says_so(proposal, caplog):
    segmentation = proposal.regions(10**6)
    assert len(segmentation.regions) == proposal.region_tree.max_regions
    assert "it gets that many" in caplog.text


def test_the_same_inputs_give_the_same_labels(volume, proposal):
    again = strata.propose(volume, settings=SETTINGS, seed=1, threads=1)
    assert np.array_equal(proposal.tissues(12).labels, again.tissues(12).labels)
    assert np.array_equal(proposal.regions(40).labels, again.regions(40).labels)


def test_tissues_of_a_phantom_follow_its_organs(proposal, volume):
    truth = phantom_truth(volume.data.shape)
    reference = Segmentation(truth, default_regions(range(1, 6)), volume.geometry)
    assert compare(proposal.tissues(10), reference).many_to_one_mean > 0.85


def test_air_is_region_0(proposal, volume):
    truth = phantom_truth(volume.data.shape)
    assert (proposal.tissues(8).labels[truth == 0] == 0).mean() > 0.85


def test_confidence_is_a_share_and_higher_where_regions_lie_far_apart(proposal):
    assert proposal.confidence.shape == (proposal.n_supervoxels,)
    assert 0 <= proposal.confidence.min() <= proposal.confidence.max() <= 1
    rng = np.random.default_rng(0)
    sizes, nobody, group = np.full(320, 50), np.zeros(320, bool), np.arange(320) // 10
    edges = np.stack([np.arange(319), np.arange(1, 320)], axis=1).astype(np.int32)
    contacts = Contacts(edges, np.ones(319, np.int32), np.ones(319, np.float32))

    def mean_confidence(spread):
        points = np.stack([group % 8, group // 8], axis=1) + rng.normal(
            0, spread, (320, 2)
        )
        points = points.astype(np.float32)
        tissues, regions = (
            tissue_tree(points, sizes, edges, nobody),
            region_tree(points, sizes, edges, nobody),
        )
        return (
            estimate_confidence(
                ConfidenceInputs(points, points, tissues, regions, contacts, sizes)
            )
            .overall()
            .mean()
        )

    assert mean_confidence(0.02) > mean_confidence(0.3)


def test_provenance_says_how_it_was_made(proposal):
    record = proposal.provenance
    assert record["run"] == {"seed": 1, "device": record["run"]["device"], "threads": 1}
    assert record["settings"]["supervoxels"] == 1500
    assert len(record["weights_sha256"]) == 64
    assert record["versions"]["torch"] != "not installed"


def test_a_proposal_can_be_cancelled_at_every_stage():
    volume, settings, stages = (
        phantom_volume((16, 20, 24), (3.0, 2.0, 2.0)),
        strata.ProposeSettings(supervoxels=300),
        [],
    )

    def listen(done, total, stage):
        stages.append(stage)

    strata.propose(volume, settings=settings, on_progress=listen)
    for wanted in set(stages) - {"done"}:

        def stop(done, total, stage, wanted=wanted):
            if stage == wanted:
                raise Cancelled("stopped")

        with pytest.raises(Cancelled):
            strata.propose(volume, settings=settings, on_progress=stop)


@pytest.mark.parametrize("kind", ["int16", "uint8", "float64"])
def test_the_type_of_the_data_does_not_matter(kind):
    volume = phantom_volume((16, 20, 24), (3.0, 2.0, 2.0))
    data = np.clip(volume.data / 4, 0, 255).astype(kind)
    proposal = strata.propose(
        Volume(data, volume.geometry, "mr"),
        settings=strata.ProposeSettings(supervoxels=300),
        threads=2,
    )
    assert len(proposal.tissues(5).regions) == 5


@pytest.mark.parametrize("shape", [(2, 40, 40), (40, 3, 40), (17, 16, 5)])
def test_slabs_and_slivers_work(shape):
    data = np.random.default_rng(0).integers(1, 1000, shape).astype(np.int16)
    geometry = strata.Geometry.from_spacing(shape, (1.0, 1.0, 1.0))
    assert (
        strata.propose(Volume(data, geometry, "mr"), settings=SETTINGS)
        .tissues(3)
        .labels.shape
        == shape
    )


def every(step: int, volume: Volume) -> Volume:
    """Give every so many voxels of a scan, on a grid that much coarser."""
    data = volume.data[::step, ::step, ::step]
    return Volume(
        data,
        strata.Geometry.from_spacing(data.shape, tuple(step * volume.spacing_zyx_mm)),
        volume.modality,
        name=volume.name,
    )


def test_sample_head_and_chest_get_their_tissues():
    # The chest as it is; the head, which would take twice as long, with every second
    # voxel.
    for name, step, floor in (("head_t1", 2, 0.5), ("chest_ct", 1, 0.5)):
        scan = every(step, strata.read(SAMPLES / f"{name}.nii.gz"))
        truth = strata.read_labels(SAMPLES / f"{name}_truth.nii.gz")
        truth = Segmentation(
            truth.labels[::step, ::step, ::step], truth.regions, scan.geometry
        )
        kept = [
            i
            for i in np.unique(truth.labels)
            if i and (truth.labels == i).mean() > 0.01
        ]
        reference = Segmentation(
            np.where(np.isin(truth.labels, kept), truth.labels, 0),
            truth.regions,
            truth.geometry,
        )
        scores = compare(strata.propose(scan).tissues(16), reference)
        assert scores.many_to_one_mean > floor, (name, scores)
