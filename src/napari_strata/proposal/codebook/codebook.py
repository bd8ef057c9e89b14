"""Codebook: keeps region 3 the same tissue in every scan of a cohort.

It is fitted in rounds. The first compares supervoxels by features and intensity, aligned
between scans. Each later round also compares the tissues that the previous round found
around them: muscle and grey matter may have equal intensity and similar features, but
only grey matter lies beside white matter.
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
"""Version of the file layout."""
SUFFIX = CODEBOOK_SUFFIX
MOST_TISSUES = 200
"""Maximum number of tissues of a codebook."""
_SHARED_ENOUGH = 0.5
"""Least share of tissues that two scans have in common.

Below it, the tissues are learnt from one scan instead of from all.
"""
MOST_TEACHERS = 4
"""Number of scans, from the first on, that are tried as that one scan."""
FITS_BELOW = 1.5
"""Largest drift at which a scan fits; the scans of the fit have a drift of about 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Assignment(SupervoxelLabels):
    """Tissues of a scan, assigned by a codebook.

    Parameters
    ----------
    table : (n_supervoxels,) int32 array
        Tissue of each supervoxel; 0 for background.
    drift : float
        Mean distance of the scan's supervoxels from the codebook, as a multiple of that
        of the scans it was fitted to.
    fits : bool
        Whether the drift is small enough to trust the tissue numbers.
    intensity : IntensityMap
        Map that aligned the scan's intensity.
    regions : tuple of Region
        The codebook's names and colours, for the tissues that the scan contains.
    """

    table: NDArray[np.int32]
    drift: float
    fits: bool
    intensity: IntensityMap
    regions: tuple[Region, ...]

    def warning(self) -> str:
        """Return a warning that the scan does not fit; "" if it fits."""
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
    """Tissues with the same number and meaning in every scan.

    Parameters
    ----------
    regions : tuple of Region
        Ids 1 .. n, names and colours; the darkest tissue is 1.
    rounds : tuple of Round
        Rounds, applied one after another.
    reference : Leaves
        Leaves of the scan that intensity is aligned to.
    typical_distance : float
        Mean distance of the supervoxels it was fitted to from their nearest leaf in the
        first round.
    modality : {"ct", "mr"}
        Modality of the scans.
    weights_sha256 : str or None
        Hash of the encoder; None for a method without an encoder.
    names : tuple of str
        Descriptor columns of the proposals.
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
        """Check modality and encoder of a scan before work is done on it.

        Raises
        ------
        CodebookError
            If the scan has another modality or encoder than the codebook.
        """
        self.check_modality(modality, name)
        check_encoder(self, weights_sha256)

    def check_modality(self, modality: Modality, name: str = "The scan") -> None:
        """Check the modality of a scan.

        Raises
        ------
        CodebookError
            If the codebook was fitted to the other modality.
        """
        if modality != self.modality:
            kinds = {"ct": "CT", "mr": "MR"}
            raise CodebookError(
                f"{name} is read as {kinds[modality]}, but the codebook was fitted to"
                f" {kinds[self.modality]}. Use another."
            )

    def apply(self, proposal: Proposal | CohortTable) -> Assignment:
        """Assign a tissue to every supervoxel of a scan.

        Raises
        ------
        CodebookError
            If the proposal comes from another encoder or modality, or does not keep raw
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
            If the file is missing, damaged, not a codebook, or of an unknown version.
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
    """Check that an encoder is the codebook's.

    Raises
    ------
    CodebookError
        If it is another one, whose features cannot be compared.
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
    """Check that a codebook can have this number of tissues.

    Raises
    ------
    CodebookError
        If the number is outside 1 to 200.
    """
    if not 1 <= tissues <= MOST_TISSUES:
        raise CodebookError(
            f"Asked for {tissues} tissues. Ask for 1 to {MOST_TISSUES}."
        )


def fit_codebook(
    scans: Sequence[Proposal | CohortTable], *, tissues: int = 16, seed: int = 0
) -> Codebook:
    """Fit tissues that mean the same in every scan of a cohort.

    Parameters
    ----------
    scans : sequence of Proposal or CohortTable
        Scans of one modality, proposed with one encoder. All have the same weight.
        Intensity is aligned to the first.
    tissues : int
        Number of tissues, 1 to 200.
    seed : int
        Seed of the clustering.

    Notes
    -----
    Tissues are learnt from all scans together. Scans of different content may then get
    tissues of their own. If two scans share too little, tissues are learnt from one scan
    instead: the one among the first four that fits the others best.

    Raises
    ------
    CodebookError
        If there is no scan, if modality, encoder or columns differ, or if a scan has
        fewer supervoxels than tissues.

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
    """Return the least number of supervoxels in the body of a scan that is fitted to."""
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
