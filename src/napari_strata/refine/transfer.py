"""Teachings: regions of one corrected scan, transferred to another scan.

For a follow-up of the same patient, or the next scan of a cohort. A teaching holds
features that mean the same in every scan (see `proposal.codebook`): intensities on one
scale, encoder features, and the position as a share of the body's extent. A supervoxel
of the other scan gets the region of its nearest example (Cover and Hart, 1967),
smoothed over touching supervoxels. One nearest example, not several: a small region has
few.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_strata._version import __version__
from napari_strata.errors import TeachingError, WriteError
from napari_strata.filenames import TEACHING_SUFFIX
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
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.state.assignment import State, region_table
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.volume import (
    BACKGROUND,
    Modality,
    Region,
    Segmentation,
    smallest_label_dtype,
)

VERSION = 1
"""Of the file's layout."""
SUFFIX = TEACHING_SUFFIX
FITS_BELOW = 2.0
"""A scan fits up to this drift.

1 is how far the teaching scan's own supervoxels lie from each other.
"""
_PER_REGION = 600
_BACKGROUND_EXAMPLES = 1500
_INTENSITY, _AROUND, _FEATURES, _PLACE = 6.0, 3.0, 1.0, 2.0
"""What the parts of a supervoxel's looks weigh.

Brightness inside and around, features, and place, 1 being the whole body.
"""
_SMOOTHING, _ROUNDS = 0.5, 4
_BLOCK = 4096


@dataclass(frozen=True, slots=True, eq=False)
class TransferredLabels:
    """A scan with the regions of a teaching.

    Parameters
    ----------
    table : (n_supervoxels,) int32 array
        Region of each supervoxel; 0 for what no taught region is like.
    confidence : (n_supervoxels,) float32 array
        Share of the evidence that speaks for that region, 0 to 1.
    drift : float
        How far the scan's supervoxels lie from the examples, as a multiple of the same
        inside the teaching scan.
    regions : tuple of Region
        Taught names and colours, for the regions that were found.
    """

    table: NDArray[np.int32]
    confidence: NDArray[np.float32]
    drift: float
    regions: tuple[Region, ...]

    @property
    def fits(self) -> bool:
        """Whether the scan is similar enough to the teaching one for trusted regions."""
        return self.drift <= FITS_BELOW

    def warning(self) -> str:
        """Warning that the scan does not fit; "" if it does."""
        if self.fits:
            return ""
        return (
            f"the scan is unlike the one that taught (drift {self.drift:.2f}, at most"
            f" {FITS_BELOW:g} is expected): look at every region before you use it, or"
            " teach on a scan of this kind."
        )

    def segmentation(self, proposal: Proposal) -> Segmentation:
        """Paint the proposal it was made from."""
        dtype = smallest_label_dtype(int(self.table.max(initial=0)))
        return Segmentation(
            self.table.astype(dtype)[proposal.supervoxels],
            self.regions,
            proposal.volume.geometry,
        )

    def record(self, proposal: Proposal) -> dict[str, Any]:
        """Return plain values for a sidecar: drift, and the mean confidence of each region."""
        sizes = np.bincount(
            proposal.supervoxels.ravel(), minlength=len(self.table)
        ).astype(np.float64)
        total = np.bincount(self.table, weights=sizes)
        sure = np.bincount(self.table, weights=sizes * self.confidence) / np.maximum(
            total, 1
        )
        return {
            "drift": round(self.drift, 4),
            "fits": self.fits,
            "confidence": {
                str(region.id): round(float(sure[region.id]), 4)
                for region in self.regions
            },
        }


@dataclass(frozen=True, slots=True, eq=False)
class Teaching:
    """Regions taught by one case, for other scans.

    Parameters
    ----------
    regions : tuple of Region
        The taught regions.
    looks : (m, d) float32 array
        Looks of the examples.
    taught : (m,) int32 array
        Region of each example; 0 for what belongs to none.
    reference : Leaves
        Reference to which intensities are aligned.
    typical_distance : float
        Usual squared distance between an example and the nearest of its region.
    modality : {"ct", "mr"}
        Of the scan.
    weights_sha256 : str or None
        The encoder that it belongs to.
    names : tuple of str
        Descriptor columns that it belongs to.
    about : dict
        Plain values.

    Examples
    --------
    >>> work = strata.Refinement(proposal, tissues=4)
    >>> work.rename(1, "muscle")
    >>> teaching = work.teach()
    >>> teaching.save("muscle.strata-teaching")
    >>> found = strata.Teaching.load("muscle.strata-teaching").apply(proposal)
    >>> [region.name for region in found.regions], found.fits
    (['muscle'], True)
    """

    regions: tuple[Region, ...]
    looks: NDArray[np.float32]
    taught: NDArray[np.int32]
    reference: Leaves
    typical_distance: float
    modality: Modality
    weights_sha256: str | None
    names: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Hash of everything that decides the labels."""
        return hashlib.sha256(self._to_bytes()).hexdigest()

    def check(
        self, modality: Modality, weights_sha256: str | None, name: str = "The scan"
    ) -> None:
        """Reject scans of another modality or encoder.

        Raises
        ------
        TeachingError
            If the teaching cannot speak of such a scan.
        """
        if modality != self.modality:
            kinds = {"ct": "CT", "mr": "MR"}
            raise TeachingError(
                f"{name} is read as {kinds[modality]}, but the teaching comes from"
                f" {kinds[self.modality]}. Use another."
            )
        if weights_sha256 != self.weights_sha256:
            raise TeachingError(
                f"{name} is seen with another encoder than the case that taught was:"
                " they cannot be compared. Give the same encoder (--encoder,"
                " --method), or teach again."
            )

    def apply(self, proposal: Proposal) -> TransferredLabels:
        """Assign every supervoxel of a scan a taught region, or none.

        Raises
        ------
        TeachingError
            If the proposal comes from another encoder or modality, or describes
            supervoxels otherwise.
        """
        table = _comparable(proposal)
        self.check(
            table.modality, table.weights_sha256, proposal.volume.name or "The scan"
        )
        if table.names != self.names:
            raise TeachingError(
                "The proposal describes supervoxels by other columns than the teaching."
                " Teach again with this Strata."
            )
        nothing = TransferredLabels(
            np.zeros(len(table.body), np.int32),
            np.ones(len(table.body), np.float32),
            0.0,
            (),
        )
        if not table.body.any():
            return nothing
        seed = int(self.about.get("seed", 0))
        mapped = (
            IntensityMap()
            if self.modality == "ct"
            else align_intensity(leaves_of(table, seed=seed), self.reference)
        )
        looks = _looks(proposal, table, mapped)
        choices = np.unique(self.taught)
        away = np.stack(
            [
                _to_nearest(looks, self.looks[self.taught == region])
                for region in choices
            ],
            axis=1,
        )
        likeness = np.exp(
            -(away - away.min(axis=1, keepdims=True))
            / max(2 * self.typical_distance, 1e-6)
        )
        likeness = likeness / likeness.sum(axis=1, keepdims=True)
        start = likeness
        for _ in range(_ROUNDS):
            likeness = (1 - _SMOOTHING) * start + _SMOOTHING * (
                table.neighborhood.matrix @ likeness
            )
        best = likeness.argmax(axis=1)
        found = np.where(table.body, choices[best], BACKGROUND).astype(np.int32)
        sure = np.where(table.body, likeness[np.arange(len(best)), best], 1.0).astype(
            np.float32
        )
        weight = table.sizes_vox[table.body]
        drift = float(np.average(away.min(axis=1)[table.body], weights=weight)) / max(
            self.typical_distance, 1e-9
        )
        there = set(np.unique(found).tolist())
        return TransferredLabels(
            found,
            sure,
            drift,
            tuple(region for region in self.regions if region.id in there),
        )

    def save(self, path: str | Path) -> None:
        """Write the teaching (safetensors; nothing is pickled).

        Raises
        ------
        WriteError
            If it cannot be written, or the name is not that of a teaching: a slip of
            the hand must not replace a scan.
        """
        if Path(path).suffix.lower() != SUFFIX:
            raise WriteError(
                f"Cannot write the teaching to {path}: the name must end in {SUFFIX}."
            )
        data = self._to_bytes()
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)

    def _to_bytes(self) -> bytes:
        arrays: dict[str, NDArray[Any]] = {**self.reference.arrays}
        arrays |= {"looks": self.looks, "taught": self.taught}
        header = {
            "regions": [
                [region.id, region.name, list(region.color)] for region in self.regions
            ],
            "typical_distance": self.typical_distance,
            "modality": self.modality,
            "weights_sha256": self.weights_sha256,
            "names": self.names,
            "about": self.about,
        }
        return tensor_bytes("strata-teaching", VERSION, header, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Teaching:
        """Read a teaching.

        Raises
        ------
        TeachingError
            If the file is missing, damaged, no teaching, or of a version that is not
            known.
        """
        try:
            header, arrays = read_tensor_file(path, "strata-teaching")
            if header["version"] != VERSION:
                raise TeachingError(
                    f"{path} is a teaching of version {header['version']}, and this"
                    f" Strata knows {VERSION}. Teach again, or update Strata."
                )
            return cls._from_parts(header, arrays)
        except FileNotFoundError as err:
            raise TeachingError(
                f"There is no teaching {path}. Make one with `strata teach CASE -o"
                f" FILE{SUFFIX}`."
            ) from err
        except OSError as err:
            raise TeachingError(
                f"Cannot read the teaching {path}: {err.strerror or err}. Check the"
                " path."
            ) from err
        except (KeyError, ValueError, TypeError, IndexError) as err:
            raise TeachingError(
                f"{path} is not a whole Strata teaching. Make one with `strata teach"
                f" CASE -o FILE{SUFFIX}`."
            ) from err

    @classmethod
    def _from_parts(
        cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]
    ) -> Teaching:
        looks, taught = arrays["looks"], arrays["taught"]
        if (
            looks.ndim != 2
            or taught.shape != looks.shape[:1]
            or not len(taught)
            or not np.isfinite(looks).all()
        ):
            raise ValueError("examples do not match")
        return cls(
            regions=tuple(
                Region(int(row[0]), str(row[1]), tuple(row[2]))
                for row in header["regions"]
            ),
            looks=looks.astype(np.float32),
            taught=taught.astype(np.int32),
            reference=Leaves.from_arrays(arrays),
            typical_distance=float(header["typical_distance"]),
            modality=header["modality"],
            weights_sha256=header["weights_sha256"],
            names=tuple(header["names"]),
            about=header["about"],
        )


def teach(
    proposal: Proposal,
    table: NDArray[np.integer],
    regions: tuple[Region, ...],
    *,
    seed: int = 0,
) -> Teaching:
    """Fit a teaching to a corrected proposal.

    Parameters
    ----------
    proposal : Proposal
        Of the scan that teaches.
    table : (n_supervoxels,) integer array
        Region of each supervoxel; what is in none of `regions` teaches what belongs to
        none.
    regions : tuple of Region
        The regions to teach.
    seed : int
        Of the choice of examples, where a region has very many.

    Raises
    ------
    TeachingError
        If none of the regions has a supervoxel of the body, or the proposal keeps no
        raw descriptors.
    """
    described = _comparable(proposal)
    usable = [
        region
        for region in regions
        if region.id != BACKGROUND and (described.body & (table == region.id)).any()
    ]
    if not usable:
        raise TeachingError(
            "This case teaches nothing yet: scribble on a region, or name one, then"
            " teach."
        )
    own = np.where(
        described.body & np.isin(table, [region.id for region in usable]),
        table,
        BACKGROUND,
    )
    looks = _looks(proposal, described, IntensityMap())
    rng, chosen = np.random.default_rng(seed), []
    for region in [BACKGROUND, *(row.id for row in usable)]:
        members = rng.permutation(np.flatnonzero(described.body & (own == region)))
        chosen.append(
            members[: _BACKGROUND_EXAMPLES if region == BACKGROUND else _PER_REGION]
        )
    picked = np.concatenate(chosen)
    return Teaching(
        regions=tuple(usable),
        looks=looks[picked],
        taught=own[picked].astype(np.int32),
        reference=leaves_of(described, seed=seed),
        typical_distance=_usual_distance(looks[picked], own[picked]),
        modality=described.modality,
        weights_sha256=described.weights_sha256,
        names=described.names,
        about={
            "seed": seed,
            "scan": proposal.volume.name,
            "napari_strata": __version__,
            "settings": described.settings,
        },
    )


def transferable_regions(state: State) -> tuple[Region, ...]:
    """Return the regions that a person taught by strokes, or named."""
    by_stroke = {state.current_id(stroke.region) for stroke in state.strokes}
    rows = [
        row
        for row in state.rows.values()
        if row.id in by_stroke
        or row.name not in (f"region {row.id}", f"tissue {row.id}")
    ]
    return tuple(sorted(rows, key=lambda row: row.id))


def fit_teaching(state: State, index: ProposalIndex, *, seed: int = 0) -> Teaching:
    """Fit a teaching to the current state of a case.

    Raises
    ------
    TeachingError
        If nothing was taught.
    """
    proposal = index.proposal
    return teach(
        proposal,
        region_table(state, index)[: proposal.n_supervoxels],
        transferable_regions(state),
        seed=seed,
    )


def _comparable(proposal: Proposal) -> CohortTable:
    if proposal.descriptor_scale is None:
        raise TeachingError(
            f"The proposal for {proposal.volume.name} does not keep raw descriptors."
            " Propose the scan again."
        )
    return cohort_table(proposal)


def _looks(
    proposal: Proposal, table: CohortTable, mapped: IntensityMap
) -> NDArray[np.float32]:
    """Return the features by which supervoxels are compared, (n_supervoxels, d) float32."""
    middle, spread = (
        proposal.descriptor_scale
        if proposal.descriptor_scale is not None
        else (0.0, 1.0)
    )
    at = [
        k
        for k, name in enumerate(proposal.descriptor_names)
        if name.startswith("position")
    ]
    place = (proposal.descriptors * spread + middle)[:, at]
    inside = place[table.body] if table.body.any() else place
    low, high = (
        np.percentile(inside, (1, 99), axis=0)
        if len(inside)
        else (np.zeros(len(at)), np.ones(len(at)))
    )
    share = np.clip((place - low) / np.maximum(high - low, 1e-6), -0.25, 1.25)
    bright = mapped(table.intensity) * np.array(
        [_INTENSITY, _AROUND, _AROUND], np.float32
    )
    return np.concatenate(
        [bright, _FEATURES * table.features, _PLACE * share], axis=1
    ).astype(np.float32)


def _to_nearest(
    looks: NDArray[np.float32], examples: NDArray[np.float32], *, skip: int = 0
) -> NDArray[np.float32]:
    """Return the squared distance (n,) to the nearest example.

    Or to the next one after `skip` of them.
    """
    place = min(skip, len(examples) - 1)
    length, found = (examples**2).sum(axis=1), np.empty(len(looks), np.float32)
    for begin in range(0, len(looks), _BLOCK):
        part = looks[begin : begin + _BLOCK]
        squares = (part**2).sum(axis=1)[:, None] + length - 2 * part @ examples.T
        found[begin : begin + len(part)] = np.maximum(
            np.partition(squares, place, axis=1)[:, place], 0
        )
    return found


def _usual_distance(looks: NDArray[np.float32], taught: NDArray[np.integer]) -> float:
    own = [
        _to_nearest(looks[taught == region], looks[taught == region], skip=1)
        for region in np.unique(taught)
    ]
    return max(float(np.median(np.concatenate(own))), 1e-4)
