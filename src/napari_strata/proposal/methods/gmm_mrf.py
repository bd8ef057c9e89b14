"""Method without an encoder: Gaussian mixture of intensity with a Markov random field.

It is the baseline for the learned method, and works without torch. Every voxel of the
body gets the class that best explains its intensity, given its neighbours' classes. The
connected parts of the classes are the supervoxels. Two tissues of the same intensity
are one class.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from skimage.measure import label as label_parts
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from napari_strata.errors import GeometryError
from napari_strata.preprocess.body import body_mask, magnified
from napari_strata.preprocess.intensity import filter_threads, prepare_intensity
from napari_strata.proposal.hierarchy.build_trees import region_tree
from napari_strata.proposal.hierarchy.tree import Hierarchy
from napari_strata.proposal.methods.base import MethodInputs, MethodResult
from napari_strata.proposal.proposal import Proposal
from napari_strata.proposal.supervoxels.boundary_refinement import join_crumbs
from napari_strata.proposal.supervoxels.clustering import (
    Contacts,
    block_cells,
    find_contacts,
    one_openmp_thread,
)
from napari_strata.proposal.supervoxels.descriptors import (
    Descriptors,
    Pooler,
    SmoothedIntensity,
    boundary_step,
    describe_intensity,
    intensity_quantiles,
    intensity_rank,
    sizes_and_centers,
)
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Progress, Volume, no_progress

_SLAB_VALUES = 64_000_000
"""Class probabilities held at once, which bounds the memory."""


@dataclass(frozen=True, slots=True)
class MixtureConstants:
    """Constants that decide the Gaussian mixture and the Markov random field."""

    sample: int = 50_000
    """Voxels that the mixture is fitted to; fitting all voxels would take too long."""
    class_counts: tuple[int, ...] = (
        *(1, 2, 3, 4, 5, 6, 7, 8),
        *(10, 12, 14, 16, 20, 24, 32, 48),
    )
    """Numbers of classes that are compared, up to the largest that the settings allow."""
    fit_iterations: int = 200
    """Iterations of expectation maximisation at most; most fits converge earlier."""
    least_variance: float = 1e-4
    """Least variance of a class, so that clipped highlights are no class of width 0."""
    least_share: float = 1e-6
    """Least share of a class, so that its logarithm is finite."""
    smoothness: float = 4.0
    """Cost, in nats, of differing from all six neighbours."""
    field_iterations: int = 4
    """Mean-field iterations, and overlap of slabs in planes."""


@dataclass(frozen=True, slots=True)
class ClassRegionConstants:
    """Constants that decide supervoxels, trees and confidence of the mixture's classes."""

    air_block_mm: float = 40.0
    """Side of the blocks outside the body: large, because background needs no detail."""
    supervoxels_per_cell: int = 8
    """Volume of a cell in mean supervoxels, because several classes share each cell."""
    crumb_vox: int = 4
    """Supervoxels under this many voxels are mostly noise and may be merged."""
    crumb_share: float = 0.04
    """The same limit, as a share of the mean supervoxel, for scans of many voxels."""
    region_intensity: tuple[float, float, float] = (2.8, 2.0, 2.0)
    """Weights in the region tree of intensity inside, and smoothed by 2 mm and 4 mm."""
    position_unit: float = 30.0
    """Distance in mm that counts like a weighted intensity of 1, at position weight 1."""
    confidence_cuts: tuple[int, ...] = (4, 8, 16)
    """Numbers of tissues whose margins are averaged: coarse, usual and fine."""


_MIXTURE = MixtureConstants()
_REGIONS = ClassRegionConstants()


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """A Gaussian mixture of intensity, darkest class first.

    Parameters
    ----------
    means, variances, shares : (k,) float64 arrays
        Mean, variance and share of each class; the shares sum to 1.
    """

    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    shares: NDArray[np.float64]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.means)

    def to_list(self) -> list[dict[str, float]]:
        """Return mean, standard deviation and share of each class, as plain values."""
        rows = zip(
            self.means.tolist(),
            np.sqrt(self.variances).tolist(),
            self.shares.tolist(),
            strict=True,
        )
        return [
            {"mean": round(mean, 4), "sd": round(sd, 4), "share": round(share, 4)}
            for mean, sd, share in rows
        ]

    def log_likelihood(self, intensity: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log(share * density) of intensities (n,) up to a constant, (n, k) float32."""
        constant = np.log(self.shares) - 0.5 * np.log(self.variances)
        squares = (intensity[:, None] - self.means.astype(np.float32)) ** 2
        return constant.astype(np.float32) - squares * (0.5 / self.variances).astype(
            np.float32
        )


def propose(inputs: MethodInputs) -> MethodResult:
    """Propose regions from intensity alone, on the CPU and without loading torch.

    Raises
    ------
    GeometryError
        If the scan contains no body.
    """
    inputs.on_progress(0, 1, "finding the body")
    with filter_threads(inputs.run.threads):
        with inputs.stage("prepare"):
            inside = body_mask(inputs.volume)
            scan, magnification = magnified(inputs.volume, inside)
            intensity = prepare_intensity(scan, inside, inputs.settings)
        with inputs.stage("build"):
            proposal = propose_classes(
                scan,
                inside,
                intensity,
                inputs.settings,
                seed=inputs.run.seed,
                on_progress=inputs.on_progress,
            )
    return MethodResult(
        proposal,
        "cpu",
        inputs.run.threads or os.cpu_count(),
        [float(s) for s in inputs.volume.spacing_zyx_mm],
        magnification,
    )


def propose_classes(
    volume: Volume,
    inside: NDArray[np.bool_],
    intensity: NDArray[np.float32],
    settings: ProposeSettings,
    *,
    seed: int,
    on_progress: Progress = no_progress,
) -> Proposal:
    """Make a proposal from intensity alone.

    Parameters
    ----------
    volume : Volume
        The scan.
    inside : (z, y, x) bool array
        The body.
    intensity : (z, y, x) float32 array
        Intensity in [0, 1], an MR's bias flattened.
    settings : ProposeSettings
        `mixture_classes` is the largest number of classes; `supervoxels` and
        `position_weight` are used too.
    seed : int
        Seed of the sample that the mixture is fitted to, and of the fit's start.
    on_progress : callable
        Called as (done, total, stage).

    Returns
    -------
    Proposal
        As from the learned method, with intensity and position as descriptors. The
        provenance holds the mixture.

    Raises
    ------
    GeometryError
        If `inside` is empty.

    Notes
    -----
    Zhang, Brady and Smith, IEEE TMI 2001. Here the mixture is fitted once, before the
    field is solved.
    """
    if not inside.any():
        raise GeometryError(
            "The scan holds no body: every voxel looks like air. Check the file, or"
            " give --modality."
        )
    on_progress(0, 4, "mixture of classes")
    mixture = fit_mixture(intensity[inside], most=settings.mixture_classes, seed=seed)
    field = MarkovField(mixture, volume.spacing_zyx_mm)
    on_progress(1, 4, "Markov random field")
    box = _box_around(inside)
    codes = field.classify(intensity[box], inside[box])
    on_progress(2, 4, "supervoxels")
    labels, n = _supervoxels(
        codes, inside, intensity, volume.spacing_zyx_mm, settings.supervoxels
    )
    belief = field.pool(
        intensity[box], codes, np.where(inside[box], labels[box], -1), n
    )
    on_progress(3, 4, "trees")
    contacts = find_contacts(labels, intensity)
    described = _describe(labels, contacts, inside, intensity, volume.spacing_zyx_mm)
    proposal = _with_trees(
        volume, labels, described, contacts, belief, settings, mixture
    )
    on_progress(4, 4, "done")
    return proposal


def _with_trees(
    volume: Volume,
    labels: NDArray[np.int32],
    described: Descriptors,
    contacts: Contacts,
    belief: NDArray[np.float32],
    settings: ProposeSettings,
    mixture: Mixture,
) -> Proposal:
    """Build both trees and the confidence from pooled class probabilities (n, k)."""
    air = belief.sum(axis=1) == 0
    regions = region_tree(
        _region_vectors(described, settings),
        described.sizes_vox,
        contacts.edges,
        air,
        centers_mm=described.center_zyx_mm,
    )
    tissues = class_tree(
        belief.argmax(axis=1),
        described.intensity[:, 0],
        described.sizes_vox,
        contacts.edges,
        air,
    )
    return Proposal(
        volume,
        labels,
        described.table(~air),
        described.names,
        regions,
        tissues,
        class_confidence(belief, tissues),
        contacts.edges,
        {"mixture": mixture.to_list()},
        described.scale(~air),
    )


def fit_mixture(values: NDArray[np.float32], *, most: int, seed: int) -> Mixture:
    """Fit Gaussian mixtures to a seeded sample of intensities, and keep the best one.

    Parameters
    ----------
    values : (n,) float32 array
        Intensity of the body's voxels.
    most : int
        Largest number of classes; fewer if there are fewer distinct values.
    seed : int
        Seed of the sample and of the start of each fit.

    Returns
    -------
    Mixture
        The mixture with the least Bayesian information criterion (Schwarz, Annals of
        Statistics 1978).
    """
    rng = np.random.default_rng(seed)
    sample = values[
        rng.choice(len(values), min(len(values), _MIXTURE.sample), replace=False)
    ].astype(np.float64)[:, None]
    limit = min(most, len(np.unique(sample)))
    tried = [
        GaussianMixture(
            count,
            covariance_type="spherical",
            reg_covar=_MIXTURE.least_variance,
            max_iter=_MIXTURE.fit_iterations,
            random_state=seed,
        )
        for count in sorted({limit, *(n for n in _MIXTURE.class_counts if n < limit)})
    ]
    with one_openmp_thread(), threadpool_limits(1), warnings.catch_warnings():
        # a mixture that has not fully converged is usable; its criterion rates it
        warnings.simplefilter("ignore", ConvergenceWarning)
        best = min(tried, key=lambda model: float(model.fit(sample).bic(sample)))
    order = np.argsort(best.means_[:, 0], kind="stable")
    shares = np.maximum(best.weights_[order], _MIXTURE.least_share)
    return Mixture(
        best.means_[order, 0], best.covariances_[order], shares / shares.sum()
    )


class MarkovField:
    """Potts model over the voxels of a body, solved by a few mean-field iterations.

    Touching voxels of different classes cost energy in proportion to the area of the
    face between them in mm2. Voxels of neighbouring thick slices are therefore coupled
    less than voxels within a slice.

    Parameters
    ----------
    mixture : Mixture
        Intensity of the classes.
    spacing_zyx_mm : (3,) array
        Voxel size in mm.
    """

    def __init__(self, mixture: Mixture, spacing_zyx_mm: NDArray[np.float64]) -> None:
        self._mixture = mixture
        areas = 1.0 / np.asarray(spacing_zyx_mm, np.float64)
        self._costs = (_MIXTURE.smoothness * areas / (2.0 * areas.sum())).tolist()

    def classify(
        self, intensity: NDArray[np.float32], inside: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Return the likeliest class of each voxel inside, (z, y, x) uint8; 0 elsewhere.

        Slabs overlap by as many planes as there are iterations, so the result does not
        depend on them.
        """
        codes = np.zeros(inside.shape, np.uint8)
        iterations = _MIXTURE.field_iterations
        for outer, inner in self._slabs(inside.shape, iterations):
            body = inside[outer]
            fit = self._mixture.log_likelihood(intensity[outer][body])
            links = _face_links(body, self._costs)
            belief = _shares(fit.copy())
            for _ in range(iterations):
                belief = _shares(fit + links @ belief)
            likeliest = np.zeros(body.shape, np.uint8)
            likeliest[body] = belief.argmax(axis=1)
            codes[outer][inner] = likeliest[inner]
        return codes

    def pool(
        self,
        intensity: NDArray[np.float32],
        codes: NDArray[np.uint8],
        labels: NDArray[np.int32],
        n: int,
    ) -> NDArray[np.float32]:
        """Average class probabilities, given the neighbours' classes, over supervoxels.

        Parameters
        ----------
        intensity, codes : (z, y, x) arrays
            Intensity, and classes from `classify`.
        labels : (z, y, x) int32 array
            Supervoxel 0 .. n - 1 of each voxel inside, -1 elsewhere.
        n : int
            Number of supervoxels.

        Returns
        -------
        (n, k) float32 array
            Rows sum to 1; rows of supervoxels without a voxel are 0.
        """
        total = np.zeros((self._mixture.n_classes, n))
        for outer, inner in self._slabs(labels.shape, 1):
            part = labels[outer]
            body, kept = part >= 0, np.zeros(part.shape, bool)
            kept[inner] = body[inner]
            around = (
                _face_links(body, self._costs)
                @ np.eye(len(total), dtype=np.float32)[codes[outer][body]]
            )
            belief = _shares(
                self._mixture.log_likelihood(intensity[outer][body]) + around
            )[kept[body]]
            for row, column in zip(total, belief.T, strict=True):
                row += np.bincount(part[kept], weights=column, minlength=n)
        return (total / np.maximum(total.sum(axis=0), 1e-9)).T.astype(np.float32)

    def _slabs(
        self, shape: tuple[int, ...], halo: int
    ) -> Iterator[tuple[slice, slice]]:
        """Yield slabs of bounded memory along z.

        Each is a slice of planes with a halo, and the slice of its own planes in it.
        """
        step = max(1, _SLAB_VALUES // (shape[1] * shape[2] * self._mixture.n_classes))
        for start in range(0, shape[0], step):
            stop, first = min(start + step, shape[0]), max(0, start - halo)
            yield (
                slice(first, min(stop + halo, shape[0])),
                slice(start - first, stop - first),
            )


def _face_links(inside: NDArray[np.bool_], costs: list[float]) -> sparse.csr_matrix:
    """Return the costs of faces between voxels inside, a symmetric matrix over them."""
    number = np.zeros(inside.shape, np.int32)
    number[inside] = np.arange(np.count_nonzero(inside), dtype=np.int32)
    rows, columns, weights = [], [], []
    for axis, cost in enumerate(costs):
        front = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        back = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        both = inside[front] & inside[back]
        first, second = number[front][both], number[back][both]
        rows += [first, second]
        columns += [second, first]
        weights.append(np.full(2 * len(first), cost, np.float32))
    size = int(np.count_nonzero(inside))
    return sparse.csr_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))),
        shape=(size, size),
    )


def _shares(logs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn logs (n, k) into shares that sum to 1 in each row, in place."""
    logs -= logs.max(axis=1, keepdims=True)
    np.exp(logs, out=logs)
    logs /= logs.sum(axis=1, keepdims=True)
    return logs


def _box_around(inside: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Return the box of the body, with a voxel of air around it where there is one."""
    used = [
        np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        for axis in range(3)
    ]
    z, y, x = (slice(max(0, int(u[0]) - 1), int(u[-1]) + 2) for u in used)
    return z, y, x


def _supervoxels(
    codes: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    intensity: NDArray[np.float32],
    spacing_mm: NDArray[np.float64],
    target: int,
) -> tuple[NDArray[np.int32], int]:
    """Cut classes (on the body's box) into connected parts of bounded size, air into blocks."""
    box = _box_around(inside)
    body = inside[box]
    side_mm = (
        np.count_nonzero(body)
        * float(np.prod(spacing_mm))
        * _REGIONS.supervoxels_per_cell
        / target
    ) ** (1 / 3)
    parts = (
        block_cells(body.shape, spacing_mm, side_mm) * np.int32(int(codes.max()) + 1)
        + codes
    )
    parts = np.where(
        body,
        parts,
        block_cells(body.shape, spacing_mm, _REGIONS.air_block_mm) + parts.max() + 1,
    )
    # by faces, edges or corners: layers one voxel thin are not connected by faces alone
    supervoxels = label_parts(parts, connectivity=3, background=-1).astype(np.int32) - 1
    crumb_vox = max(
        _REGIONS.crumb_vox,
        round(_REGIONS.crumb_share * np.count_nonzero(body) / target),
    )
    supervoxels = join_crumbs(
        supervoxels, np.ascontiguousarray(intensity[box]), body, crumb_vox
    )
    whole = block_cells(inside.shape, spacing_mm, _REGIONS.air_block_mm)
    whole = whole + supervoxels.max() + 1
    whole[box] = supervoxels
    used = np.zeros(int(whole.max()) + 1, bool)
    used[whole.ravel()] = True
    return (np.cumsum(used) - 1).astype(np.int32)[whole], int(used.sum())


def _describe(
    labels: NDArray[np.int32],
    contacts: Contacts,
    inside: NDArray[np.bool_],
    intensity: NDArray[np.float32],
    spacing_mm: NDArray[np.float64],
) -> Descriptors:
    n = int(labels.max()) + 1
    sizes, centers = sizes_and_centers(labels, n, spacing_mm)
    return Descriptors(
        features=(),
        intensity=describe_intensity(
            Pooler(labels, n),
            intensity,
            intensity_rank(intensity, intensity_quantiles(intensity, inside)),
            SmoothedIntensity.of(intensity, spacing_mm),
        ),
        boundary=boundary_step(contacts, n),
        center_zyx_mm=centers,
        sizes_vox=sizes,
    )


def _region_vectors(
    described: Descriptors, settings: ProposeSettings
) -> NDArray[np.float32]:
    """Return the vectors of the region tree: weighted intensity and position."""
    intensity = described.intensity[:, [0, 2, 3]] * np.array(
        _REGIONS.region_intensity, np.float32
    )
    weight = np.float32(settings.position_weight / _REGIONS.position_unit)
    return np.concatenate([intensity, described.center_zyx_mm * weight], axis=1)


def class_tree(
    classes: NDArray[np.integer],
    intensity: NDArray[np.float32],
    sizes: NDArray[np.integer],
    edges: NDArray[np.integer],
    background: NDArray[np.bool_],
) -> Hierarchy:
    """Merge supervoxels into their classes, and classes by Ward's criterion on their means.

    Supervoxels are sorted by class and intensity into a chain, which is merged as if
    neighbours in it touched. Intensity within a class has so small a weight that every
    class is complete before two classes merge. Only classes adjacent in intensity merge,
    so two small classes on either side of a large one stay separate.

    Parameters
    ----------
    classes : (n,) integer array
        Class of each supervoxel, of 0 .. k - 1.
    intensity : (n,) float32 array
        Mean intensity of each supervoxel.
    sizes : (n,) integer array
        Voxels of each supervoxel.
    edges : (e, 2) integer array
        Touching pairs; the background is merged along them.
    background : (n,) bool array
        Supervoxels that stay in region 0.
    """
    fore = np.flatnonzero(~background)
    weight = np.bincount(
        classes[fore], weights=sizes[fore], minlength=int(classes.max()) + 1
    )
    mean = np.bincount(
        classes[fore], weights=sizes[fore] * intensity[fore], minlength=len(weight)
    ) / np.maximum(weight, 1)
    mean = mean.astype(np.float32)[classes]
    chain = fore[np.lexsort((intensity[fore], classes[fore], mean[fore]))]
    gaps = np.diff(mean[chain].astype(np.float64))
    within = float(
        (sizes[fore] * (intensity[fore] - mean[fore]).astype(np.float64) ** 2).sum()
    )
    # joining supervoxels over a gap adds at least half its square, and all joins inside
    # the classes add `within` together
    least = 0.5 * float(gaps[gaps > 0].min(initial=1.0)) ** 2
    small = np.sqrt(0.5 * least / max(within, 1e-12))
    vectors = np.stack([mean, intensity * np.float32(min(small, 1.0))], axis=1)
    pairs = np.concatenate(
        [
            np.stack([chain[:-1], chain[1:]], axis=1),
            edges[background[edges].all(axis=1)],
        ]
    )
    return region_tree(vectors, sizes, pairs, background)


def class_confidence(
    belief: NDArray[np.float32], tree: Hierarchy
) -> NDArray[np.float32]:
    """Return each supervoxel's margin in probability over the runner-up tissue.

    The margin is computed from pooled class probabilities (n, k), and averaged over cuts
    of the tissue tree into 4, 8 and 16 tissues and into one per class. It is 1 in the
    air, whose rows are 0. Not calibrated.

    Returns
    -------
    (n,) float32 array
        Margins in [0, 1].
    """
    body = np.flatnonzero(belief.sum(axis=1) > 0)
    shares, classes = belief[body], belief[body].argmax(axis=1)
    n_classes = len(np.unique(classes))
    cuts = [cut for cut in _REGIONS.confidence_cuts if cut < n_classes] + [n_classes]
    margin = np.zeros(len(body))
    for cut in cuts:
        # a class without a supervoxel of its own stays in group 0
        group = np.zeros(belief.shape[1], np.int64)
        group[classes] = tree.cut(cut)[body]
        grouped = shares @ (group[:, None] == np.arange(cut + 1)).astype(np.float32)
        own = grouped[np.arange(len(body)), group[classes]].copy()
        grouped[np.arange(len(body)), group[classes]] = 0.0
        margin += np.clip(own - grouped.max(axis=1), 0.0, 1.0)
    confidence = np.ones(len(belief), np.float32)
    confidence[body] = margin / len(cuts)
    return confidence
