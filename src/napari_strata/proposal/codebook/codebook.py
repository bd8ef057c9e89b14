"""The codebook: what keeps region 3 the same tissue in every scan of a cohort.

It is fitted in rounds. The first compares supervoxels by intensity, brought to one
scale, and features; each later one also by which tissues the round before found around
them. Muscle and grey matter may be equally bright and look alike, but only one of them
lies beside white matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata._version import __version__
from napari_strata.errors import CodebookError
from napari_strata.filenames import CODEBOOK_SUFFIX
from napari_strata.io.atomic import atomic_path
from napari_strata.io.tensor_file import read_tensor_file, tensor_bytes
from napari_strata.proposal.codebook.cohort_table import (
    CohortTable,
    IntensityMap,
    Leaves,
    align_intensity,
    cohort_table,
    leaves_of,
)
from napari_strata.proposal.codebook.fit import (
    Round,
    fit_rounds,
    mean_distance,
    vectors_of,
)
from napari_strata.proposal.codebook.label_models import LabelModel, SupervoxelLabels
from napari_strata.proposal.methods.registry import method_names
from napari_strata.proposal.proposal import Proposal
from napari_strata.volume import (
    Modality,
    Region,
    default_regions,
)

VERSION = 1
"""Of the file's layout."""
SUFFIX = CODEBOOK_SUFFIX
MOST_TISSUES = 200
_SHARED_ENOUGH = 0.5
"""Less than this of two scans in the same tissues, and one scan teaches the others."""
MOST_TEACHERS = 4
"""Scans that the tissues of all may be learnt from alone, from the first on."""
FITS_BELOW = 1.5
"""A scan fits up to this drift; 1 is how far the scans of the fit lie from their own codebook."""


@dataclass(frozen=True, slots=True, eq=False)
class Assignment(SupervoxelLabels):
    """A scan in the codebook's tissues.

    Parameters
    ----------
    table : (n_supervoxels,) int32 array
        Tissue of each supervoxel; 0 for background.
    drift : float
        How far the scan's supervoxels lie from the codebook, as a multiple of the same
        for the scans that taught it.
    fits : bool
        Whether the drift is small enough for the numbers to be trusted.
    intensity : IntensityMap
        What the scan's intensity was mapped by.
    regions : tuple of Region
        The codebook's names and colours, for the tissues that the scan has.
    """

    table: NDArray[np.int32]
    drift: float
    fits: bool
    intensity: IntensityMap
    regions: tuple[Region, ...]

    def warning(self) -> str:
        """Return that the scan does not fit; "" where it does."""
        if self.fits:
            return ""
        return (
            f"the scan does not fit the codebook (drift {self.drift:.2f}, at most"
            f" {FITS_BELOW:g} is expected): its region numbers may mean other tissues."
            " Fit a codebook to scans of this kind."
        )

    def record(self) -> dict[str, Any]:
        """Return plain values for a sidecar."""
        mapped = {
            "scale": round(self.intensity.scale, 4),
            "offset": round(self.intensity.offset, 4),
        }
        return {"drift": round(self.drift, 4), "fits": self.fits, "brightness": mapped}


@dataclass(frozen=True, slots=True, eq=False)
class Codebook(LabelModel):
    """Tissues that mean the same in every scan.

    Parameters
    ----------
    regions : tuple of Region
        Ids 1 .. n, names and colours; the darkest tissue is 1.
    rounds : tuple of Round
        Applied one after another.
    reference : Leaves
        What intensity is aligned to.
    typical_distance : float
        From the supervoxels of the scans that taught it to their nearest leaf in the
        first round.
    modality : {"ct", "mr"}
        Of the scans.
    weights_sha256 : str or None
        The encoder that it belongs to.
    names : tuple of str
        Descriptor columns that it belongs to.
    about : dict
        Settings, seed, number of scans, version of Strata: plain values.

    Examples
    --------
    >>> codebook = strata.fit_codebook([proposal], tissues=4)
    >>> codebook.save("cohort.strata-codebook")
    >>> found = strata.Codebook.load("cohort.strata-codebook").apply(proposal)
    >>> found.fits
    True
    >>> found.segmentation(proposal).labels.shape
    (24, 24, 24)
    """

    regions: tuple[Region, ...]
    rounds: tuple[Round, ...]
    reference: Leaves
    typical_distance: float
    modality: Modality
    weights_sha256: str | None
    names: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of tissues."""
        return len(self.regions)

    def check(
        self, modality: Modality, weights_sha256: str | None, name: str = "The scan"
    ) -> None:
        """Refuse scans of another modality.

        Or seen by another encoder, before work is done on them.

        Raises
        ------
        CodebookError
            If the codebook cannot speak of such a scan.
        """
        self.check_modality(modality, name)
        check_encoder(self, weights_sha256)

    def check_modality(self, modality: Modality, name: str = "The scan") -> None:
        """Refuse scans of another modality.

        Raises
        ------
        CodebookError
            If the codebook was fitted to the other one.
        """
        if modality != self.modality:
            kinds = {"ct": "CT", "mr": "MR"}
            raise CodebookError(
                f"{name} is read as {kinds[modality]}, but the codebook was fitted to"
                f" {kinds[self.modality]}. Use another."
            )

    def apply(self, proposal: Proposal | CohortTable) -> Assignment:
        """Assign every supervoxel of a scan its tissue.

        Raises
        ------
        CodebookError
            If the proposal comes from another encoder or modality, or keeps no raw
            descriptors.
        """
        table = cohort_table(proposal) if isinstance(proposal, Proposal) else proposal
        self.check(table.modality, table.weights_sha256)
        if table.names != self.names:
            raise CodebookError(
                "The proposal describes supervoxels by other columns than the codebook."
                " Fit the codebook again."
            )
        if not table.body.any():
            return Assignment(
                np.zeros(len(table.body), np.int32), 0.0, True, IntensityMap(), ()
            )
        seed = int(self.about.get("seed", 0))
        mapped = (
            IntensityMap()
            if self.modality == "ct"
            else align_intensity(leaves_of(table, seed=seed), self.reference)
        )
        tissue, distance = np.zeros(len(table.body), np.int32), 0.0
        for number, one in enumerate(self.rounds):
            leaf, away = one.nearest(
                vectors_of(table, mapped, tissue if number else None, self.n)
            )
            tissue = np.where(table.body, one.tissue[leaf], 0).astype(np.int32)
            if not number:
                distance = mean_distance(away, table)
        drift = distance / max(self.typical_distance, 1e-9)
        there = set(np.unique(tissue).tolist())
        shown = tuple(region for region in self.regions if region.id in there)
        return Assignment(tissue, drift, bool(drift <= FITS_BELOW), mapped, shown)

    def save(self, path: str | Path) -> None:
        """Write the codebook (safetensors; nothing is pickled).

        Raises
        ------
        WriteError
            If it cannot be written.
        """
        data = self._to_bytes()
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)

    def _to_bytes(self) -> bytes:
        arrays: dict[str, NDArray[Any]] = {**self.reference.arrays}
        for number, one in enumerate(self.rounds):
            arrays |= {
                f"round {number} leaves": one.leaves,
                f"round {number} tissue": one.tissue,
            }
        header = {
            "rounds": len(self.rounds),
            "regions": [
                [region.id, region.name, list(region.color)] for region in self.regions
            ],
            "typical_distance": self.typical_distance,
            "modality": self.modality,
            "weights_sha256": self.weights_sha256,
            "names": self.names,
            "about": self.about,
        }
        return tensor_bytes("strata-codebook", VERSION, header, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Codebook:
        """Read a codebook.

        Raises
        ------
        CodebookError
            If the file is missing, damaged, no codebook, or of a version that is not
            known.
        """
        try:
            header, arrays = read_tensor_file(path, "strata-codebook")
            if header["version"] != VERSION:
                raise CodebookError(
                    f"{path} is a codebook of version {header['version']}, and this"
                    f" Strata knows {VERSION}. Fit it again, or update Strata."
                )
            return cls._from_parts(header, arrays)
        except FileNotFoundError as err:
            raise CodebookError(
                f"There is no codebook {path}. Make one with `strata codebook fit`."
            ) from err
        except OSError as err:
            raise CodebookError(
                f"Cannot read the codebook {path}: {err.strerror or err}. Check the"
                " path."
            ) from err
        except (KeyError, ValueError, TypeError, IndexError) as err:
            raise CodebookError(
                f"{path} is not a whole Strata codebook. Make one with `strata codebook"
                " fit`."
            ) from err

    @classmethod
    def _from_parts(
        cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]
    ) -> Codebook:
        count = int(header["rounds"])
        rounds = tuple(
            Round(arrays[f"round {k} leaves"], arrays[f"round {k} tissue"])
            for k in range(count)
        )
        return cls(
            regions=tuple(
                Region(int(row[0]), str(row[1]), tuple(row[2]))
                for row in header["regions"]
            ),
            rounds=rounds,
            reference=Leaves.from_arrays(arrays),
            typical_distance=float(header["typical_distance"]),
            modality=header["modality"],
            weights_sha256=header["weights_sha256"],
            names=tuple(header["names"]),
            about=header["about"],
        )


def check_encoder(codebook: Codebook, weights_sha256: str | None) -> None:
    """Refuse another encoder than the codebook's.

    Raises
    ------
    CodebookError
        If features of the two cannot be compared.
    """
    if weights_sha256 == codebook.weights_sha256:
        return
    ours, theirs = (
        (str(one)[:12] if one else f"none ({method_names(needs_encoder=False)})")
        for one in (codebook.weights_sha256, weights_sha256)
    )
    raise CodebookError(
        f"The codebook was fitted with encoder {ours}, and the scan is seen with"
        f" {theirs}: they cannot be compared. Give the encoder it was fitted with"
        " (--encoder, --method), or fit it again."
    )


def check_tissues(tissues: int) -> None:
    """Refuse a number of tissues that no codebook can have.

    Raises
    ------
    CodebookError
        Outside 1 to 200.
    """
    if not 1 <= tissues <= MOST_TISSUES:
        raise CodebookError(
            f"Asked for {tissues} tissues. Ask for 1 to {MOST_TISSUES}."
        )


def fit_codebook(
    scans: Sequence[Proposal | CohortTable], *, tissues: int = 16, seed: int = 0
) -> Codebook:
    """Find tissues that mean the same in all of some scans.

    Parameters
    ----------
    scans : sequence of Proposal or CohortTable
        Of one modality, proposed with one encoder; every scan counts the same.
        Intensity is aligned to the first.
    tissues : int
        How many; 1 to 200.
    seed : int
        Of the clustering.

    Notes
    -----
    Tissues are learnt from all scans together. Where some then share too little, for
    scans of unlike content may come out with tissues of their own, they are learnt from
    one scan alone: the one among the first few that the others lie nearest to.

    Raises
    ------
    CodebookError
        If there is no scan, they do not go together, or they hold fewer supervoxels
        than tissues.

    Examples
    --------
    >>> codebook = strata.fit_codebook([proposal], tissues=4)  # better five scans or more
    >>> [region.name for region in codebook.regions]
    ['tissue 1', 'tissue 2', 'tissue 3', 'tissue 4']
    """
    tables = [cohort_table(one) if isinstance(one, Proposal) else one for one in scans]
    _check_together(tables, tissues)
    leaves = [leaves_of(table, seed=seed) for table in tables]
    reference, mr = leaves[0], tables[0].modality == "mr"
    maps = [
        align_intensity(one, reference) if mr and number else IntensityMap()
        for number, one in enumerate(leaves)
    ]
    best = fit_rounds(tables, maps, range(len(tables)), tissues=tissues, seed=seed)
    if best.shared < _SHARED_ENOUGH:
        alone = [
            fit_rounds(tables, maps, (one,), tissues=tissues, seed=seed)
            for one in range(min(len(tables), MOST_TEACHERS))
        ]
        best = min(alone, key=lambda fit: fit.farthest)
    about = {
        "seed": seed,
        "scans": len(tables),
        "shared": round(best.shared, 4),
        "napari_strata": __version__,
    }
    return Codebook(
        regions=default_regions(range(1, tissues + 1), "tissue"),
        rounds=best.rounds,
        reference=reference,
        typical_distance=best.distance,
        modality=tables[0].modality,
        weights_sha256=tables[0].weights_sha256,
        names=tables[0].names,
        about={**about, "settings": tables[0].settings},
    )


def fewest_supervoxels(tissues: int) -> int:
    """Return how many supervoxels in the body a scan must have for a codebook.

    Of so many tissues to be fitted to it.
    """
    return max(8, tissues)


def _check_together(tables: Sequence[CohortTable], tissues: int) -> None:
    if not tables:
        raise CodebookError(
            "There is no scan to fit a codebook to. Give at least one, better five or"
            " more of one kind."
        )
    check_tissues(tissues)
    first = tables[0]
    for number, table in enumerate(tables):
        if (table.modality, table.weights_sha256, table.names) != (
            first.modality,
            first.weights_sha256,
            first.names,
        ):
            raise CodebookError(
                f"Scan {number + 1} is of another modality, or was seen by another"
                " encoder, than the first. Fit them apart."
            )
        if table.body.sum() < fewest_supervoxels(tissues):
            raise CodebookError(
                f"Scan {number + 1} has {table.body.sum()} supervoxels in the body, too"
                f" few for {tissues} tissues."
            )
