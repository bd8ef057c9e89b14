"""One codebook for a cohort.

The same tissue gets the same number in every scan, and a scan that does not fit is
told.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import ndimage

from napari_strata.batch.run import Recipe
from napari_strata.cli.command_line import main
from napari_strata.errors import CodebookError, SettingsError
from napari_strata.io.files import read_labels, write_scan
from napari_strata.proposal.codebook.codebook import FITS_BELOW, Codebook, fit_codebook
from napari_strata.proposal.codebook.cohort_table import CohortTable, cohort_table
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.session.refinement import Refinement
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Geometry, Volume
from phantoms import INTENSITIES, phantom_proposal, phantom_volume

TISSUES = 8
NAMES = (
    "feature 0.0",
    "feature 0.1",
    "feature 0.2",
    "brightness mean",
    "brightness 2 mm",
    "brightness 4 mm",
)
LOOKS = np.random.default_rng(3).normal(0, 1.0, (6, 3))
"""What an encoder would say of each class of the phantom."""
FEW = ["--supervoxels", "300", "--threads", "1", "--quiet"]


SHARES = (0.3, 0.25, 0.2, 0.15, 0.1)


def anatomy(seed: int, shares: tuple[float, ...]) -> np.ndarray:
    """Give the class of each voxel.

    Five tissues in shells that recur all over a body, in air (0).
    """
    shape = (24, 26, 28)
    hills = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    body = (grid**2).sum(axis=0) < 0.9
    edges = np.quantile(hills[body], np.cumsum(shares)[:-1])
    return np.where(body, 1 + np.digitize(hills, edges), 0)


def scan(
    seed: int = 0,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    shares: tuple[float, ...] = SHARES,
    looks=LOOKS,
) -> Proposal:
    """Make a proposal with features of the voxels' classes.

    Brightness on a scale of its own.
    """
    truth = anatomy(seed, shares)
    made = phantom_proposal(
        Volume(
            np.array(INTENSITIES)[truth], Geometry.from_spacing(truth.shape, (4, 4, 4))
        ),
        block=2,
        seed=seed,
    )
    kind, rng = classes(made), np.random.default_rng(seed)
    intensity = scale * kind / 6 + offset
    columns = np.column_stack(
        [looks[kind], intensity, intensity, intensity]
    ) + rng.normal(0, 0.03, (len(kind), 6))
    middle, spread = columns.mean(axis=0), columns.std(axis=0)
    return replace(
        made,
        descriptors=((columns - middle) / spread).astype(np.float32),
        descriptor_names=NAMES,
        descriptor_scale=np.stack([middle, spread]).astype(np.float32),
        provenance={"weights_sha256": "a" * 64, "settings": {"supervoxels": 300}},
    )


def classes(proposal: Proposal) -> np.ndarray:
    """Give the class that each supervoxel belongs to."""
    brightness = np.round(
        ndimage.mean(
            proposal.volume.data,
            proposal.supervoxels,
            np.arange(proposal.n_supervoxels),
        )
    )
    return np.abs(brightness[:, None] - np.array(INTENSITIES)).argmin(axis=1)


def class_of_numbers(proposal: Proposal, table: np.ndarray) -> np.ndarray:
    """Give the commonest class of the phantom among the supervoxels of each tissue.

    0 for tissues that are not there.
    """
    return (
        np.bincount(table * 6 + classes(proposal), minlength=6 * (TISSUES + 1))
        .reshape(-1, 6)
        .argmax(axis=1)
    )


def agreement(
    proposal: Proposal, table: np.ndarray, meaning: np.ndarray
) -> list[float]:
    """Give the share of each class that its own numbers cover.

    With what the numbers mean fixed.
    """
    kind = classes(proposal)
    return [float(np.mean(meaning[table[kind == k]] == k)) for k in range(6)]


@pytest.fixture(scope="module")
def pair() -> tuple[Proposal, Proposal]:
    return scan(0), scan(1, scale=0.6, offset=0.3, shares=(0.15, 0.2, 0.2, 0.2, 0.25))


@pytest.fixture(scope="module")
def codebook(pair) -> Codebook:
    return fit_codebook(pair, tissues=TISSUES)


def test_scans_of_other_contrast_and_size_get_the_same_numbers(pair, codebook):
    first, second = (codebook.apply(one) for one in pair)
    meaning = class_of_numbers(pair[0], first.table)
    assert set(meaning) == set(range(6))
    assert np.mean(agreement(pair[0], first.table, meaning)) > 0.85
    assert np.mean(agreement(pair[1], second.table, meaning)) > 0.85
    assert first.fits
    assert second.fits
    assert second.warning() == ""


def test_a_scan_that_was_not_fitted_gets_the_same_numbers_too(pair, codebook):
    later = scan(7, scale=1.4, offset=-0.2)
    assigned = codebook.apply(later)
    meaning = class_of_numbers(pair[0], codebook.apply(pair[0]).table)
    assert np.mean(agreement(later, assigned.table, meaning)) > 0.85
    assert assigned.fits


def test_the_background_stays_region_0(pair, codebook):
    tree = pair[1].tissue_tree
    table = codebook.apply(pair[1]).table
    assert set(np.flatnonzero(table == 0)) == set(tree.leaf_order[: tree.n_background])


def test_the_segmentation_carries_the_codebooks_names_and_colours(pair, codebook):
    named = replace(
        codebook,
        regions=tuple(
            replace(region, name="fluid", color=(1, 2, 3))
            for region in codebook.regions
        ),
    )
    made = named.apply(pair[0]).segmentation(pair[0])
    assert made.labels.shape == pair[0].volume.data.shape
    assert {region.id for region in made.regions} | {0} == set(np.unique(made.labels))
    assert set(made.regions) <= set(named.regions)
    assert made.regions[0].name == "fluid"


def test_numbers_go_from_dark_to_bright(pair, codebook):
    table = codebook.apply(pair[0]).table
    kind = classes(pair[0])
    there = [number for number in range(1, TISSUES + 1) if (table == number).any()]
    assert (
        np.corrcoef(there, [kind[table == number].mean() for number in there])[0, 1]
        > 0.8
    )


def test_a_scan_of_another_kind_drifts_and_is_told(codebook):
    other = scan(2, looks=np.random.default_rng(9).normal(0, 4.0, (6, 3)))
    assigned, usual = codebook.apply(other), codebook.apply(scan(2))
    assert usual.drift < FITS_BELOW < assigned.drift
    assert not assigned.fits
    assert "does not fit" in assigned.warning()
    assert assigned.record()["fits"] is False


def test_the_same_seed_gives_the_same_codebook(pair, codebook):
    assert fit_codebook(pair, tissues=TISSUES).sha256 == codebook.sha256
    tables = [cohort_table(one) for one in pair]
    assert fit_codebook(tables, tissues=TISSUES).sha256 == codebook.sha256


def test_the_file_gives_back_the_codebook(pair, codebook, tmp_path):
    path = tmp_path / "cohort.strata-codebook"
    codebook.save(path)
    again = Codebook.load(path)
    assert again.sha256 == codebook.sha256
    assert again.regions == codebook.regions
    assert np.array_equal(again.apply(pair[1]).table, codebook.apply(pair[1]).table)


def test_other_files_are_refused(codebook, tmp_path):
    with pytest.raises(CodebookError, match="There is no codebook"):
        Codebook.load(tmp_path / "nothing.strata-codebook")
    (tmp_path / "text.strata-codebook").write_text("not a codebook")
    with pytest.raises(CodebookError, match="not a whole"):
        Codebook.load(tmp_path / "text.strata-codebook")
    whole = tmp_path / "cohort.strata-codebook"
    codebook.save(whole)
    cut = tmp_path / "cut.strata-codebook"
    cut.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(CodebookError, match="not a whole"):
        Codebook.load(cut)
    save_file(
        load_file(whole),
        tmp_path / "newer.strata-codebook",
        {"strata-codebook": json.dumps({"version": 99})},
    )
    with pytest.raises(CodebookError, match="version 99"):
        Codebook.load(tmp_path / "newer.strata-codebook")


def test_other_encoders_modalities_and_columns_are_refused(pair, codebook):
    other = replace(pair[0], provenance={"weights_sha256": "b" * 64})
    with pytest.raises(CodebookError, match="cannot be compared"):
        codebook.apply(other)
    with pytest.raises(CodebookError, match="another encoder"):
        fit_codebook([pair[0], other], tissues=TISSUES)
    volume = pair[0].volume
    with pytest.raises(CodebookError, match="read as CT"):
        codebook.apply(
            replace(pair[0], volume=Volume(volume.data, volume.geometry, "ct"))
        )
    with pytest.raises(CodebookError, match="other columns"):
        codebook.apply(
            replace(
                pair[0], descriptor_names=("feature 0.1", "feature 0.0", *NAMES[2:])
            )
        )


@pytest.mark.parametrize("tissues", [0, 201])
def test_a_fit_that_cannot_be_is_refused(pair, tissues):
    with pytest.raises(CodebookError, match="Ask for 1 to 200"):
        fit_codebook(pair, tissues=tissues)
    with pytest.raises(CodebookError, match="no scan"):
        fit_codebook([])


def test_a_case_keeps_what_a_codebook_needs_and_earlier_cases_say_so(
    pair, codebook, tmp_path
):
    path = tmp_path / "a.strata"
    Refinement(pair[0], tissues=4).save(path)
    again = Refinement.load(path, volume=pair[0].volume).proposal
    assert np.array_equal(codebook.apply(again).table, codebook.apply(pair[0]).table)
    Refinement(replace(pair[0], descriptor_scale=None), tissues=4).save(path)
    old = Refinement.load(path, volume=pair[0].volume).proposal
    with pytest.raises(CodebookError, match="Propose the scan again"):
        codebook.apply(old)


def test_a_recipe_takes_the_codebooks_tissues_only(codebook):
    assert Recipe("tissues", TISSUES, codebook=codebook).n == TISSUES
    with pytest.raises(SettingsError, match=f"the codebook has {TISSUES} tissues"):
        Recipe("regions", TISSUES, codebook=codebook)


def test_weights_for_a_method_without_an_encoder_fail_before_any_scan():
    with pytest.raises(SettingsError, match="gmm-mrf uses no encoder"):
        Recipe(
            "tissues",
            4,
            ProposeSettings(method="gmm-mrf"),
            weights=Path("mine.safetensors"),
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Two scans on disk, and a codebook of them made by the command."""
    folder = tmp_path_factory.mktemp("codebook")
    for number, scale in enumerate((1.0, 2.5)):
        volume = phantom_volume((16, 20, 24), (3, 2, 2), number)
        write_scan(
            replace(volume, data=(volume.data * scale).astype(np.float32)),
            folder / f"scan{number}.nii.gz",
        )
    scans = [str(folder / f"scan{number}.nii.gz") for number in range(2)]
    classical = ["--method", "gmm-mrf", *FEW]
    assert (
        main(
            [
                "codebook",
                "fit",
                *scans,
                "-o",
                str(folder / "all.strata-codebook"),
                "--tissues",
                "4",
                *classical,
            ]
        )
        == 0
    )
    return folder


def test_propose_and_batch_number_tissues_by_the_codebook(files, tmp_path, capsys):
    given = [
        "--codebook",
        str(files / "all.strata-codebook"),
        "--method",
        "gmm-mrf",
        *FEW,
    ]
    out = tmp_path / "labels.nii.gz"
    assert main(["propose", str(files / "scan0.nii.gz"), "-o", str(out), *given]) == 0
    said = json.loads((tmp_path / "labels.json").read_text())
    assert said["codebook"]["fits"] is True
    assert (
        said["codebook"]["sha256"]
        == Codebook.load(files / "all.strata-codebook").sha256
    )
    assert (
        main(
            [
                "batch",
                str(files / "*.nii.gz"),
                "-o",
                str(tmp_path / "out"),
                "--workers",
                "1",
                *given,
            ]
        )
        == 0
    )
    both = [
        read_labels(tmp_path / "out" / f"scan{k}_labels.nii.gz").labels
        for k in range(2)
    ]
    assert np.array_equal(both[0], read_labels(out).labels)
    assert np.mean(both[0] == both[1]) > 0.9
    with (tmp_path / "out" / "volumes.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["fits"] for row in rows} == {"yes"}
    assert all(float(row["drift"]) > 0 for row in rows)
    assert (
        json.loads((tmp_path / "out" / "scan0_labels.json").read_text())[
            "weights_sha256"
        ]
        is None
    )
    assert (
        main(
            [
                "batch",
                str(files / "*.nii.gz"),
                "-o",
                str(tmp_path / "out"),
                "--workers",
                "1",
                *given,
            ]
        )
        == 0
    )
    assert "0 done, 2 kept" in capsys.readouterr().out


def test_what_cannot_go_together_is_said_at_once(files, tmp_path, capsys):
    scan_file, book = str(files / "scan0.nii.gz"), str(files / "all.strata-codebook")
    asked = [
        "propose",
        scan_file,
        "-o",
        str(tmp_path / "labels.nii.gz"),
        "--codebook",
        book,
    ]
    assert main([*asked, *FEW]) == 2
    assert "cannot be compared" in capsys.readouterr().err
    assert (
        main(
            [*asked, "--method", "gmm-mrf", "--case", str(tmp_path / "a.strata"), *FEW]
        )
        == 2
    )
    assert "--case or --codebook" in capsys.readouterr().err
    batch = [
        "batch",
        scan_file,
        "-o",
        str(tmp_path / "out"),
        "--tissues",
        "4",
        "--method",
        "gmm-mrf",
        "--encoder",
        "mine.safetensors",
    ]
    assert main([*batch, *FEW]) == 2
    assert "gmm-mrf uses no encoder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["codebook", "fit", scan_file, "-o", str(tmp_path / "book.txt")]) == 2
    assert ".strata-codebook" in capsys.readouterr().err


def test_tables_are_small(pair):
    table = cohort_table(pair[0])
    assert isinstance(table, CohortTable)
    assert len(table.body) == pair[0].n_supervoxels
