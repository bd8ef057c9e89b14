"""The codebook: what keeps region 3 the same tissue in every scan of a cohort.

It is fitted in rounds. The first compares supervoxels by brightness, brought to one scale, and features; each later one
also by which tissues the round before found around them. Muscle and grey matter may be equally bright and look alike, but
only one of them lies beside white matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from sklearn.cluster import KMeans

from napari_strata import __version__
from napari_strata.errors import CodebookError
from napari_strata.io.atomic import atomic_path
from napari_strata.proposal.cohort import BrightnessMap, CohortTable, Leaves, align_brightness, cohort_table, leaves_of
from napari_strata.proposal.proposal import Proposal
from napari_strata.proposal.supervoxels import one_openmp_thread
from napari_strata.proposal.trees import region_tree
from napari_strata.volume import Modality, Region, Segmentation, default_regions, smallest_label_dtype

VERSION = 1
"""Of the file's layout."""
SUFFIX = ".strata-codebook"
MOST_TISSUES = 200
FITS_BELOW = 1.5
"""A scan fits up to this drift; 1 is how far the scans of the fit lie from their own codebook."""
_ROUNDS = 5
_LEAVES = 300
_SAMPLED = 12_000
"""Supervoxels of each scan that leaves are found among."""
_BRIGHTNESS, _FEATURES, _SURROUNDINGS = 6.0, 0.5, 2.0
"""What the parts of a supervoxel's looks weigh."""


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One round: leaves, and the tissue of each.

    Parameters
    ----------
    leaves : (leaf, d) float32 array
        Brightness, features and, from the second round on, the surroundings.
    tissue : (leaf,) int32 array
        1 .. n.
    """

    leaves: NDArray[np.float32]
    tissue: NDArray[np.int32]

    def nearest(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Give the nearest leaf of each row, and its distance."""
        found, distance = np.empty(len(vectors), np.int64), np.empty(len(vectors), np.float32)
        length = (self.leaves**2).sum(axis=1)
        for begin in range(0, len(vectors), 8192):
            part = vectors[begin : begin + 8192]
            squares = length - 2 * part @ self.leaves.T
            best = squares.argmin(axis=1)
            found[begin : begin + len(part)] = best
            rest = squares[np.arange(len(part)), best] + (part**2).sum(axis=1)
            distance[begin : begin + len(part)] = np.sqrt(np.maximum(rest, 0))
        return found, distance


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """A scan in the codebook's tissues.

    Parameters
    ----------
    table : (n_supervoxels,) int32 array
        Tissue of each supervoxel; 0 for background.
    drift : float
        How far the scan's supervoxels lie from the codebook, as a multiple of the same for the scans it was fitted to.
    fits : bool
        Whether the drift is small enough for the numbers to be trusted.
    brightness : BrightnessMap
        What the scan's brightness was mapped by.
    regions : tuple of Region
        The codebook's names and colours, for the tissues that the scan has.
    """

    table: NDArray[np.int32]
    drift: float
    fits: bool
    brightness: BrightnessMap
    regions: tuple[Region, ...]

    def segmentation(self, proposal: Proposal) -> Segmentation:
        """Paint the proposal it was made from."""
        dtype = smallest_label_dtype(int(self.table.max(initial=0)))
        return Segmentation(self.table.astype(dtype)[proposal.supervoxels], self.regions, proposal.volume.geometry)

    def warning(self) -> str:
        """Say that the scan does not fit; "" where it does."""
        if self.fits:
            return ""
        return (
            f"the scan does not fit the codebook (drift {self.drift:.2f}, at most {FITS_BELOW:g} is expected): its region "
            "numbers may mean other tissues. Fit a codebook to scans of this kind."
        )

    def record(self) -> dict[str, Any]:
        """Give plain values for a sidecar."""
        mapped = {"scale": round(self.brightness.scale, 4), "offset": round(self.brightness.offset, 4)}
        return {"drift": round(self.drift, 4), "fits": self.fits, "brightness": mapped}


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """Tissues that mean the same in every scan.

    Parameters
    ----------
    regions : tuple of Region
        Ids 1 .. n, names and colours; the darkest tissue is 1.
    rounds : tuple of Round
        Applied one after another.
    reference : Leaves
        What brightness is aligned to.
    typical_distance : float
        Of the fitted scans' supervoxels to their nearest leaf in the first round.
    modality : {"ct", "mr"}
        Of the scans.
    weights_sha256 : str or None
        The encoder that it belongs to.
    names : tuple of str
        Descriptor columns that it belongs to.
    about : dict
        Settings, seed, number of scans, version of Strata: plain values.
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

    @property
    def sha256(self) -> str:
        """Hash of what decides the labels."""
        return hashlib.sha256(self._to_bytes()).hexdigest()

    def check(self, modality: Modality, weights_sha256: str | None, name: str = "The scan") -> None:
        """Refuse scans of another modality, or seen by another encoder, before work is done on them.

        Raises
        ------
        CodebookError
            If the codebook cannot speak of such a scan.
        """
        if modality != self.modality:
            kinds = {"ct": "CT", "mr": "MR"}
            raise CodebookError(f"{name} is read as {kinds[modality]}, but the codebook was fitted to {kinds[self.modality]}. Use another.")
        check_encoder(self, weights_sha256)

    def apply(self, proposal: Proposal | CohortTable) -> Assignment:
        """Give every supervoxel of a scan its tissue.

        Raises
        ------
        CodebookError
            If the proposal comes from another encoder or modality, or keeps no raw descriptors.
        """
        table = cohort_table(proposal) if isinstance(proposal, Proposal) else proposal
        self.check(table.modality, table.weights_sha256)
        if table.names != self.names:
            raise CodebookError("The proposal describes supervoxels by other columns than the codebook. Fit the codebook again.")
        if not table.body.any():
            return Assignment(np.zeros(len(table.body), np.int32), 0.0, True, BrightnessMap(), ())
        seed = int(self.about.get("seed", 0))
        mapped = BrightnessMap() if self.modality == "ct" else align_brightness(leaves_of(table, seed=seed), self.reference)
        tissue, distance = np.zeros(len(table.body), np.int32), 0.0
        for number, one in enumerate(self.rounds):
            leaf, away = one.nearest(_vectors(table, mapped, tissue if number else None, self.n))
            tissue = np.where(table.body, one.tissue[leaf], 0).astype(np.int32)
            if not number:
                distance = _typical(away, table)
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
        arrays: dict[str, NDArray[Any]] = {f"reference {name}": getattr(self.reference, name) for name in Leaves.__slots__}
        for number, one in enumerate(self.rounds):
            arrays |= {f"round {number} leaves": one.leaves, f"round {number} tissue": one.tissue}
        said = {
            "rounds": len(self.rounds),
            "regions": [[region.id, region.name, list(region.color)] for region in self.regions],
            "typical_distance": self.typical_distance,
            "modality": self.modality,
            "weights_sha256": self.weights_sha256,
            "names": self.names,
            "about": self.about,
        }
        return save(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            {"strata-codebook": json.dumps({"version": VERSION, **said}, sort_keys=True)},
        )

    @classmethod
    def load(cls, path: str | Path) -> Codebook:
        """Read a codebook.

        Raises
        ------
        CodebookError
            If the file is missing, damaged, no codebook, or of a version that is not known.
        """
        try:
            with safe_open(str(path), framework="np") as store:
                header = json.loads((store.metadata() or {})["strata-codebook"])
                arrays = {name: store.get_tensor(name) for name in store.keys()}  # noqa: SIM118
            if header["version"] != VERSION:
                raise CodebookError(
                    f"{path} is a codebook of version {header['version']}, and this Strata knows {VERSION}. Fit it again, or update Strata."
                )
            return cls._from_parts(header, arrays)
        except FileNotFoundError as err:
            raise CodebookError(f"There is no codebook {path}. Make one with `strata codebook fit`.") from err
        except OSError as err:
            raise CodebookError(f"Cannot read the codebook {path}: {err.strerror or err}. Check the path.") from err
        except (SafetensorError, KeyError, ValueError, TypeError, IndexError) as err:
            raise CodebookError(f"{path} is not a whole Strata codebook. Make one with `strata codebook fit`.") from err

    @classmethod
    def _from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Codebook:
        count = int(header["rounds"])
        rounds = tuple(Round(arrays[f"round {k} leaves"], arrays[f"round {k} tissue"]) for k in range(count))
        return cls(
            regions=tuple(Region(int(row[0]), str(row[1]), tuple(row[2])) for row in header["regions"]),
            rounds=rounds,
            reference=Leaves(*(arrays[f"reference {name}"] for name in Leaves.__slots__)),
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
    ours, theirs = ((str(one)[:12] if one else "none (gmm-mrf)") for one in (codebook.weights_sha256, weights_sha256))
    raise CodebookError(
        f"The codebook was fitted with encoder {ours}, and the scan is seen with {theirs}: they cannot be compared. "
        "Give the encoder it was fitted with (--encoder, --method), or fit it again."
    )


def check_tissues(tissues: int) -> None:
    """Refuse a number of tissues that no codebook can have.

    Raises
    ------
    CodebookError
        Outside 1 to 200.
    """
    if not 1 <= tissues <= MOST_TISSUES:
        raise CodebookError(f"Asked for {tissues} tissues. Ask for 1 to {MOST_TISSUES}.")


def fit_codebook(scans: Sequence[Proposal | CohortTable], *, tissues: int = 16, seed: int = 0) -> Codebook:
    """Find tissues that mean the same in all of some scans.

    Parameters
    ----------
    scans : sequence of Proposal or CohortTable
        Of one modality, proposed with one encoder; every scan counts the same. Brightness is aligned to the first.
    tissues : int
        How many; 1 to 200.
    seed : int
        Of the clustering.

    Raises
    ------
    CodebookError
        If there is no scan, they do not go together, or they hold fewer supervoxels than tissues.
    """
    tables = [cohort_table(one) if isinstance(one, Proposal) else one for one in scans]
    _check_together(tables, tissues)
    leaves = [leaves_of(table, seed=seed) for table in tables]
    reference, mr = leaves[0], tables[0].modality == "mr"
    maps = [align_brightness(one, reference) if mr and number else BrightnessMap() for number, one in enumerate(leaves)]
    rounds: list[Round] = []
    found: list[NDArray[np.int32] | None] = [None] * len(tables)
    distance = 1.0
    for number in range(_ROUNDS):
        vectors = [_vectors(table, mapped, now, tissues) for table, mapped, now in zip(tables, maps, found, strict=True)]
        rounds.append(_fit_round(tables, vectors, tissues, seed))
        nearest = [rounds[-1].nearest(one) for one in vectors]
        found = [np.where(t.body, rounds[-1].tissue[leaf], 0).astype(np.int32) for t, (leaf, _) in zip(tables, nearest, strict=True)]
        if not number:
            distance = float(np.mean([_typical(away, table) for table, (_, away) in zip(tables, nearest, strict=True)]))
    return Codebook(
        regions=default_regions(range(1, tissues + 1), "tissue"),
        rounds=tuple(rounds),
        reference=reference,
        typical_distance=distance,
        modality=tables[0].modality,
        weights_sha256=tables[0].weights_sha256,
        names=tables[0].names,
        about={"seed": seed, "scans": len(tables), "napari_strata": __version__, "settings": tables[0].settings},
    )


def _check_together(tables: Sequence[CohortTable], tissues: int) -> None:
    if not tables:
        raise CodebookError("There is no scan to fit a codebook to. Give at least one, better five or more of one kind.")
    check_tissues(tissues)
    first = tables[0]
    for number, table in enumerate(tables):
        if (table.modality, table.weights_sha256, table.names) != (first.modality, first.weights_sha256, first.names):
            raise CodebookError(
                f"Scan {number + 1} is of another modality, or was seen by another encoder, than the first. Fit them apart."
            )
        if table.body.sum() < max(8, tissues):
            raise CodebookError(f"Scan {number + 1} has {table.body.sum()} supervoxels in the body, too few for {tissues} tissues.")


def _vectors(table: CohortTable, mapped: BrightnessMap, tissue: NDArray[np.int32] | None, n: int) -> NDArray[np.float32]:
    """Give what supervoxels are compared by between scans, (n_supervoxels, d) float32."""
    parts = [np.float32(_BRIGHTNESS) * mapped(table.brightness[:, :1]), np.float32(_FEATURES) * table.features]
    if tissue is not None:
        parts.append(np.float32(_SURROUNDINGS) * table.surroundings(tissue, n))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _fit_round(tables: Sequence[CohortTable], vectors: Sequence[NDArray[np.float32]], tissues: int, seed: int) -> Round:
    """Cluster the scans together, each counting the same: leaves by k-means, tissues by Ward's criterion over them."""
    rng = np.random.default_rng(seed)
    samples, weights = [], []
    for table, rows in zip(tables, vectors, strict=True):
        sample = rng.permutation(np.flatnonzero(table.body))[:_SAMPLED]
        sizes = table.sizes_vox[sample].astype(np.float64)
        samples.append(rows[sample])
        weights.append(sizes / sizes.sum() * 1e6)
    pooled, weight = np.concatenate(samples), np.concatenate(weights)
    count = min(_LEAVES, max(tissues, len(pooled) // 20))
    means = KMeans(count, n_init=1, init="random" if count > 100 else "k-means++", max_iter=12, random_state=seed)
    with one_openmp_thread():
        leaf = means.fit(pooled, sample_weight=weight).labels_
    share = np.bincount(leaf, weights=weight, minlength=count)
    centers, share = means.cluster_centers_[share > 0].astype(np.float32), share[share > 0]
    pairs = np.stack(np.triu_indices(len(centers), 1), axis=1)
    whole = np.maximum(np.round(share), 1).astype(np.int64)
    tissue = region_tree(centers, whole, pairs, np.zeros(len(centers), bool)).cut(tissues)
    bright = np.bincount(tissue, weights=share * centers[:, 0], minlength=tissues + 1)[1:]
    order = np.argsort(bright / np.maximum(np.bincount(tissue, weights=share, minlength=tissues + 1)[1:], 1e-9), kind="stable")
    number = np.empty(tissues + 1, np.int32)
    number[order + 1] = np.arange(1, tissues + 1)
    return Round(np.ascontiguousarray(centers), number[tissue])


def _typical(distance: NDArray[np.float32], table: CohortTable) -> float:
    """Give the mean distance over the body's voxels."""
    return float(np.average(distance[table.body], weights=table.sizes_vox[table.body]))
