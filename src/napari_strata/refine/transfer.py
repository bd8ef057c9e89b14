"""Teachings: regions of one corrected scan, transferred to another scan.

The other scan may be a follow-up of the same patient, or the next one of a cohort. A
teaching holds features that are comparable between scans (see `proposal.codebook`):
intensities on a common scale, encoder features, and the position as a share of the
body's extent. A supervoxel of the other scan gets the region of its nearest example
(Cover and Hart, 1967), smoothed over touching supervoxels. Only one nearest example is
used, because a small region has few. A teaching from labelled scans
(`labelled_scans.py`) has a classifier beside the examples, and uses the mean of five.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_strata._version import __version__
from napari_strata.deprecated import TEACHING, moved_attribute
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
from napari_strata.proposal.codebook.label_models import LabelModel, SupervoxelLabels
from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.state.assignment import State, region_table
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.refine.transfer_head import TransferHead, head_inputs
from napari_strata.volume import (
    BACKGROUND,
    Modality,
    Region,
)

VERSION, VERSION_WITH_HEAD = 1, 2
"""Version of the file's layout, and of files with a classifier."""
SUFFIX = TEACHING_SUFFIX
FITS_BELOW = 2.0
"""Largest drift of a scan that fits the teaching.

A drift of 1 is the usual distance between supervoxels of one region in the teaching
scan.
"""
_PER_REGION = 600
"""Most examples (supervoxels) of a region, which bounds the time of a transfer."""
_BACKGROUND_EXAMPLES = 1500
"""Most examples outside all taught regions; more, because they are more diverse."""
_INTENSITY, _AROUND, _FEATURES, _PLACE = 6.0, 3.0, 1.0, 2.0
"""Weights of intensity, intensity around, encoder features, and position.

Positions are shares of the body's extent.
"""
_SMOOTHING, _ROUNDS = 0.5, 4
"""Share that a supervoxel takes from its neighbours per iteration, and iterations."""
_NEAREST_LABELLED = 5
"""Examples averaged in a teaching from labelled scans, which has many of each region."""
_BLOCK = 4096
"""Supervoxels compared with the examples at once, to bound memory."""


@dataclass(frozen=True, slots=True, eq=False)
class TransferredLabels(SupervoxelLabels):
    """A scan with the regions of a teaching.

    Parameters
    ----------
    table : (n_supervoxels,) int32 array
        Region of each supervoxel; 0 if it is like no taught region.
    confidence : (n_supervoxels,) float32 array
        Share of the evidence for that region, 0 to 1.
    drift : float
        Mean squared distance of the scan's supervoxels to their nearest example, as a
        multiple of the usual one in the teaching scan.
    regions : tuple of Region
        Names and colours of the taught regions that occur in the scan.
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

    def record(self, proposal: Proposal) -> dict[str, Any]:
        """Return drift and mean confidence of each region, as plain values for a sidecar."""
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
class Teaching(LabelModel):
    """Regions taught by one case, for other scans.

    Parameters
    ----------
    regions : tuple of Region
        The taught regions.
    features : (m, d) float32 array
        Features of the examples.
    example_regions : (m,) int32 array
        Region of each example; 0 if it belongs to none.
    reference : Leaves
        Reference to which intensities are aligned.
    typical_distance : float
        Median squared distance between an example and the nearest other one of its
        region.
    modality : {"ct", "mr"}
        Modality of the scan.
    weights_sha256 : str or None
        Hash of the encoder's weights.
    names : tuple of str
        Names of the descriptor columns.
    about : dict
        Settings, seed, scan and version of Strata, as plain values.
    head : TransferHead or None
        The classifier of a teaching from labelled scans.
    place_axes : tuple of 3 bool
        Whether the position along z, y and x counts.
    unlike_above : float or None
        Squared distance to the nearest example above which a supervoxel is background,
        because nothing like it was taught; None without a limit.

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
    features: NDArray[np.float32]
    example_regions: NDArray[np.int32]
    reference: Leaves
    typical_distance: float
    modality: Modality
    weights_sha256: str | None
    names: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)
    head: TransferHead | None = None
    place_axes: tuple[bool, bool, bool] = (True, True, True)
    unlike_above: float | None = None

    def check(
        self, modality: Modality, weights_sha256: str | None, name: str = "The scan"
    ) -> None:
        """Check that a scan has the modality and the encoder of the teaching.

        Raises
        ------
        TeachingError
            If it does not.
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
            If the proposal has another encoder, modality or descriptors.
        """
        table = comparable_table(proposal)
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
        features = comparable_features(proposal, table, mapped, self.place_axes)
        choices = np.unique(self.example_regions)
        nearest = 1 if self.head is None else _NEAREST_LABELLED
        away = np.stack(
            [
                _to_nearest(
                    features,
                    self.features[self.example_regions == region],
                    mean_of=nearest,
                )
                for region in choices
            ],
            axis=1,
        )
        likeness = np.exp(
            -(away - away.min(axis=1, keepdims=True))
            / max(2 * self.typical_distance, 1e-6)
        )
        likeness = likeness / likeness.sum(axis=1, keepdims=True)
        if self.head is not None:
            likeness = likeness * self.head.probability(
                inputs_of_head(proposal, table, mapped, self.place_axes), choices
            )
            likeness /= np.maximum(likeness.sum(axis=1, keepdims=True), 1e-12)
        start = likeness
        for _ in range(_ROUNDS):
            likeness = (1 - _SMOOTHING) * start + _SMOOTHING * (
                table.neighborhood.matrix @ likeness
            )
        best = likeness.argmax(axis=1)
        limit = np.inf if self.unlike_above is None else self.unlike_above
        is_known = table.body & (away.min(axis=1) <= limit)
        found = np.where(is_known, choices[best], BACKGROUND).astype(np.int32)
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
        """Write the teaching as a safetensors file.

        Raises
        ------
        WriteError
            If it cannot be written, or its name does not end in .strata-teaching, so
            that no scan is replaced by mistake.
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
        arrays |= {"looks": self.features, "taught": self.example_regions}
        version = VERSION
        if self.head is not None:
            arrays |= self.head.arrays
            version = VERSION_WITH_HEAD
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
        if not all(self.place_axes):
            header["place_axes"] = list(self.place_axes)
        if self.unlike_above is not None:
            header["unlike_above"] = self.unlike_above
        return tensor_bytes("strata-teaching", version, header, arrays)

    @classmethod
    def load(cls, path: str | Path) -> Teaching:
        """Read a teaching.

        Raises
        ------
        TeachingError
            If the file is missing, damaged, not a teaching, or of an unknown version.
        """
        try:
            header, arrays = read_tensor_file(path, "strata-teaching")
            if header["version"] not in (VERSION, VERSION_WITH_HEAD):
                raise TeachingError(
                    f"{path} is a teaching of version {header['version']}, and this"
                    f" Strata knows {VERSION} and {VERSION_WITH_HEAD}. Teach again, or"
                    " update Strata."
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
        features, taught = arrays["looks"], arrays["taught"]
        if (
            features.ndim != 2
            or taught.shape != features.shape[:1]
            or not len(taught)
            or not np.isfinite(features).all()
        ):
            raise ValueError("examples do not match")
        return cls(
            regions=tuple(
                Region(int(row[0]), str(row[1]), tuple(row[2]))
                for row in header["regions"]
            ),
            features=features.astype(np.float32),
            example_regions=taught.astype(np.int32),
            reference=Leaves.from_arrays(arrays),
            typical_distance=float(header["typical_distance"]),
            modality=header["modality"],
            weights_sha256=header["weights_sha256"],
            names=tuple(header["names"]),
            about=header["about"],
            head=TransferHead.from_arrays(arrays),
            place_axes=_axes(header.get("place_axes", (True, True, True))),
            unlike_above=(
                float(header["unlike_above"]) if "unlike_above" in header else None
            ),
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return an attribute under its old name, with a warning."""
            return moved_attribute(self, name, TEACHING)


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
        The proposal of the corrected scan.
    table : (n_supervoxels,) integer array
        Region of each supervoxel. Supervoxels in none of `regions` are examples of
        background.
    regions : tuple of Region
        The regions to teach.
    seed : int
        Seed for the choice of examples in large regions.

    Raises
    ------
    TeachingError
        If no region has a supervoxel of the body, or the proposal has no raw
        descriptors.
    """
    described = comparable_table(proposal)
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
    features = comparable_features(proposal, described, IntensityMap())
    rng, chosen = np.random.default_rng(seed), []
    for region in [BACKGROUND, *(row.id for row in usable)]:
        members = rng.permutation(np.flatnonzero(described.body & (own == region)))
        chosen.append(
            members[: _BACKGROUND_EXAMPLES if region == BACKGROUND else _PER_REGION]
        )
    picked = np.concatenate(chosen)
    return Teaching(
        regions=tuple(usable),
        features=features[picked],
        example_regions=own[picked].astype(np.int32),
        reference=leaves_of(described, seed=seed),
        typical_distance=usual_distance(features[picked], own[picked]),
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
    """Return the regions that were stroked or named."""
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
        If no region was stroked or named.
    """
    proposal = index.proposal
    return teach(
        proposal,
        region_table(state, index)[: proposal.n_supervoxels],
        transferable_regions(state),
        seed=seed,
    )


def comparable_table(proposal: Proposal) -> CohortTable:
    """Return what is compared between scans.

    Raises
    ------
    TeachingError
        If the proposal keeps no raw descriptors.
    """
    if proposal.descriptor_scale is None:
        raise TeachingError(
            f"The proposal for {proposal.volume.name} does not keep raw descriptors."
            " Propose the scan again."
        )
    return cohort_table(proposal)


def _axes(values: Any) -> tuple[bool, bool, bool]:
    z, y, x = (bool(value) for value in values)
    return z, y, x


def comparable_features(
    proposal: Proposal,
    table: CohortTable,
    mapped: IntensityMap,
    place_axes: tuple[bool, bool, bool] = (True, True, True),
) -> NDArray[np.float32]:
    """Return the features by which supervoxels are compared, (n_supervoxels, d) float32.

    Positions along axes that do not count are left out.
    """
    place = body_place(proposal, table)[:, list(place_axes)]
    bright = mapped(table.intensity) * np.array(
        [_INTENSITY, _AROUND, _AROUND], np.float32
    )
    return np.concatenate(
        [bright, _FEATURES * table.features, _PLACE * place], axis=1
    ).astype(np.float32)


def inputs_of_head(
    proposal: Proposal,
    table: CohortTable,
    mapped: IntensityMap,
    place_axes: tuple[bool, bool, bool],
) -> NDArray[np.float32]:
    """Return the inputs of the classifier for each supervoxel, (n_supervoxels, d) float32."""
    return head_inputs(
        mapped(table.intensity[:, 0]),
        table.features,
        body_place(proposal, table)[:, list(place_axes)],
    )


def body_place(proposal: Proposal, table: CohortTable) -> NDArray[np.floating]:
    """Return the position of each supervoxel as a share of the body's extent, (n, 3)."""
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
    return np.asarray(
        np.clip((place - low) / np.maximum(high - low, 1e-6), -0.25, 1.25)
    )


def _to_nearest(
    features: NDArray[np.float32],
    examples: NDArray[np.float32],
    *,
    skip: int = 0,
    mean_of: int = 1,
) -> NDArray[np.float32]:
    """Return the squared distance (n,) to the nearest example after the first `skip`.

    With `mean_of` above 1 it is the mean over that many nearest examples.
    """
    place = min(skip + mean_of - 1, len(examples) - 1)
    length, found = (examples**2).sum(axis=1), np.empty(len(features), np.float32)
    for begin in range(0, len(features), _BLOCK):
        part = features[begin : begin + _BLOCK]
        squares = (part**2).sum(axis=1)[:, None] + length - 2 * part @ examples.T
        squares = np.partition(squares, place, axis=1)
        nearest = (
            squares[:, place] if mean_of == 1 else squares[:, : place + 1].mean(axis=1)
        )
        found[begin : begin + len(part)] = np.maximum(nearest, 0)
    return found


def usual_distance(
    features: NDArray[np.float32], taught: NDArray[np.integer], percent: float = 50.0
) -> float:
    """Return the median squared distance to the nearest other example of one's region.

    `percent` chooses another percentile than the median.
    """
    own = [
        _to_nearest(features[taught == region], features[taught == region], skip=1)
        for region in np.unique(taught)
    ]
    return max(float(np.percentile(np.concatenate(own), percent)), 1e-4)
