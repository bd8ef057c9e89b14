"""A proposal without an encoder.

A Gaussian mixture of intensity, smoothed by a Markov random field.

The baseline that the learned proposal has to beat, and a way to work where torch is not
wanted. Every voxel of the body gets the class that explains its intensity best, given
its neighbours' classes; the classes' connected parts are the supervoxels. It knows
nothing but intensity: two tissues that look alike are one class.
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
    intensity_rank,
    sizes_and_centers,
)
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Progress, Volume, no_progress

_SAMPLE = 50_000
_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 48)
"""Numbers of classes that are tried, up to the most that the settings allow."""
_LEAST_VARIANCE = 1e-4
"""Classes are at least 0.01 of the intensity range wide.

Or a scan's clipped highlights would be a class of width 0.
"""
_SMOOTHNESS = 4.0
"""What it costs, in nats, to differ from all six neighbours."""
_ROUNDS = 4
_SLAB_VALUES = 64_000_000
"""Probabilities that are held at once."""
_AIR_BLOCK_MM = 40.0
_CRUMB_VOX, _CRUMB_SHARE = 4, 0.04
"""Supervoxels under this many voxels.

Or this share of a usual supervoxel, join a neighbour that they are like.
"""
_SUPERVOXELS_PER_CELL = 8
_REGION_INTENSITY = (2.8, 2.0, 2.0)
"""Weights of a supervoxel's own intensity and of that 2 mm and 4 mm around it.

In the tree of regions.
"""
_SURE_CUTS = (4, 8, 16)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """A Gaussian mixture of intensity, darkest class first.

    Parameters
    ----------
    means, variances, shares : (k,) float64 arrays
        Of each class; the shares sum to 1.
    """

    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    shares: NDArray[np.float64]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.means)

    def to_list(self) -> list[dict[str, float]]:
        """Return mean, standard deviation and share of each class.

        As plain values for a sidecar.
        """
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
        """Return the log of share times density, but for a constant, of intensity values (n,).

        (n, k) float32.
        """
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
        Of the sample that the mixture is fitted to, and of where the fit starts.

    Returns
    -------
    Proposal
        As the learned method's, with intensity and position for descriptors. Its
        provenance holds the mixture.

    Raises
    ------
    GeometryError
        If `inside` is empty.

    Notes
    -----
    Zhang, Brady and Smith, IEEE TMI 2001; here the mixture is fitted once, before the
    field.
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
    contacts = find_contacts(labels, intensity, n)
    described = _describe(labels, contacts, inside, intensity, volume.spacing_zyx_mm)
    air = belief.sum(axis=1) == 0
    sizes, place = described.sizes_vox, described.center_zyx_mm
    regions = region_tree(
        _region_vectors(described, settings),
        sizes,
        contacts.edges,
        air,
        centers_mm=place,
    )
    tissues = class_tree(
        belief.argmax(axis=1), described.intensity[:, 0], sizes, contacts.edges, air
    )
    sure, table, said = (
        class_confidence(belief, tissues),
        described.table(~air),
        {"mixture": mixture.to_list()},
    )
    on_progress(4, 4, "done")
    edges, scale = contacts.edges, described.scale(~air)
    return Proposal(
        volume,
        labels,
        table,
        described.names,
        regions,
        tissues,
        sure,
        edges,
        said,
        scale,
    )


def fit_mixture(values: NDArray[np.float32], *, most: int, seed: int) -> Mixture:
    """Fit Gaussian mixtures to a seeded sample of intensity values.

    Keep the one that tells most in fewest words.

    Parameters
    ----------
    values : (n,) float32 array
        Intensity of the body's voxels.
    most : int
        Largest number of classes; fewer where there are fewer distinct values.
    seed : int
        Of the sample and of where each fit starts.

    Returns
    -------
    Mixture
        With the number of classes that has the least Bayesian information criterion
        (Schwarz, Annals of Statistics 1978).
    """
    rng = np.random.default_rng(seed)
    sample = values[
        rng.choice(len(values), min(len(values), _SAMPLE), replace=False)
    ].astype(np.float64)[:, None]
    limit = min(most, len(np.unique(sample)))
    tried = [
        GaussianMixture(
            count,
            covariance_type="spherical",
            reg_covar=_LEAST_VARIANCE,
            max_iter=200,
            random_state=seed,
        )
        for count in sorted({limit, *(count for count in _COUNTS if count < limit)})
    ]
    with one_openmp_thread(), threadpool_limits(1), warnings.catch_warnings():
        # a mixture that still changes a little is as good a guess as any other, and its
        # criterion says how good
        warnings.simplefilter("ignore", ConvergenceWarning)
        best = min(tried, key=lambda model: float(model.fit(sample).bic(sample)))
    order = np.argsort(best.means_[:, 0], kind="stable")
    shares = np.maximum(best.weights_[order], 1e-6)
    return Mixture(
        best.means_[order, 0], best.covariances_[order], shares / shares.sum()
    )


class MarkovField:
    """A Potts model over the voxels of a body, solved by a few mean-field rounds.

    Two touching voxels of different classes pay for the face between them, in
    proportion to its area in mm2, so that thick slices hold together less than the
    voxels within one.

    Parameters
    ----------
    mixture : Mixture
        What classes look like.
    spacing_zyx_mm : (3,) array
        Voxel size in mm.
    """

    def __init__(self, mixture: Mixture, spacing_zyx_mm: NDArray[np.float64]) -> None:
        self._mixture = mixture
        areas = 1.0 / np.asarray(spacing_zyx_mm, np.float64)
        self._costs = (_SMOOTHNESS * areas / (2.0 * areas.sum())).tolist()

    def classify(
        self, intensity: NDArray[np.float32], inside: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """Return the likeliest class of each voxel inside, (z, y, x) uint8; 0 elsewhere.

        Slabs overlap by as many planes as there are rounds, so cutting into slabs
        changes nothing.
        """
        codes = np.zeros(inside.shape, np.uint8)
        for outer, inner in self._slabs(inside.shape, _ROUNDS):
            body = inside[outer]
            fit = self._mixture.log_likelihood(intensity[outer][body])
            links = _face_links(body, self._costs)
            belief = _shares(fit.copy())
            for _ in range(_ROUNDS):
                belief = _shares(fit + links @ belief)
            found = np.zeros(body.shape, np.uint8)
            found[body] = belief.argmax(axis=1)
            codes[outer][inner] = found[inner]
        return codes

    def pool(
        self,
        intensity: NDArray[np.float32],
        codes: NDArray[np.uint8],
        labels: NDArray[np.int32],
        n: int,
    ) -> NDArray[np.float32]:
        """Average the voxels' class probabilities, given their neighbours' classes.

        Over supervoxels.

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
        """Cut z into slabs of bounded memory.

        The planes with a halo, and which of those are the slab's own.
        """
        step = max(1, _SLAB_VALUES // (shape[1] * shape[2] * self._mixture.n_classes))
        for start in range(0, shape[0], step):
            stop, first = min(start + step, shape[0]), max(0, start - halo)
            yield (
                slice(first, min(stop + halo, shape[0])),
                slice(start - first, stop - first),
            )


def _face_links(inside: NDArray[np.bool_], costs: list[float]) -> sparse.csr_matrix:
    """Return what faces between voxels inside cost.

    As a symmetric matrix over those voxels, from the cost per axis.
    """
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
    """Cut classes (on the body's box) into connected parts of bounded reach.

    The air into blocks.
    """
    box = _box_around(inside)
    body = inside[box]
    side_mm = (
        np.count_nonzero(body)
        * float(np.prod(spacing_mm))
        * _SUPERVOXELS_PER_CELL
        / target
    ) ** (1 / 3)
    parts = (
        block_cells(body.shape, spacing_mm, side_mm) * np.int32(int(codes.max()) + 1)
        + codes
    )
    parts = np.where(
        body,
        parts,
        block_cells(body.shape, spacing_mm, _AIR_BLOCK_MM) + parts.max() + 1,
    )
    # by faces, edges or corners: layers one voxel thin are not connected by faces alone
    supervoxels = label_parts(parts, connectivity=3, background=-1).astype(np.int32) - 1
    crumb_vox = max(_CRUMB_VOX, round(_CRUMB_SHARE * np.count_nonzero(body) / target))
    supervoxels = join_crumbs(
        supervoxels, np.ascontiguousarray(intensity[box]), body, crumb_vox
    )
    whole = block_cells(inside.shape, spacing_mm, _AIR_BLOCK_MM) + supervoxels.max() + 1
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
            intensity_rank(intensity, inside),
            SmoothedIntensity.of(intensity, spacing_mm),
        ),
        boundary=boundary_step(contacts, n),
        center_zyx_mm=centers,
        sizes_vox=sizes,
    )


def _region_vectors(
    described: Descriptors, settings: ProposeSettings
) -> NDArray[np.float32]:
    """Return what makes touching supervoxels belong together.

    Intensity, and position in units of 100 mm.
    """
    intensity = described.intensity[:, [0, 2, 3]] * np.array(
        _REGION_INTENSITY, np.float32
    )
    return np.concatenate(
        [
            intensity,
            described.center_zyx_mm * np.float32(settings.position_weight / 30.0),
        ],
        axis=1,
    )


def class_tree(
    classes: NDArray[np.integer],
    intensity: NDArray[np.float32],
    sizes: NDArray[np.integer],
    edges: NDArray[np.integer],
    background: NDArray[np.bool_],
) -> Hierarchy:
    """Merge supervoxels into their classes, and classes by Ward's criterion on their means.

    Supervoxels are laid in a chain by class and intensity, and the chain is merged like
    touching supervoxels. Intensity inside a class counts so little that every class is
    whole before two classes merge, and only neighbours in intensity do: two small
    classes at either side of a large one stay apart.

    Parameters
    ----------
    classes : (n,) integer array
        Class of each supervoxel, of 0 .. k - 1.
    intensity : (n,) float32 array
        Mean intensity of each supervoxel.
    sizes : (n,) integer array
        Voxels of each supervoxel.
    edges : (e, 2) integer array
        Touching pairs, by which the background merges.
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
    """Return how much likelier each supervoxel's own tissue is than the runner-up.

    (n,) float32 in [0, 1].

    The margin between the two, from pooled class probabilities (n, k), averaged over
    cuts of the tissue tree into 4, 8 and 16 (as far as there are classes); 1 in the
    air, whose rows are 0. Not calibrated.
    """
    body = np.flatnonzero(belief.sum(axis=1) > 0)
    shares, classes = belief[body], belief[body].argmax(axis=1)
    found = len(np.unique(classes))
    cuts = [cut for cut in _SURE_CUTS if cut < found] + [found]
    margin = np.zeros(len(body))
    for cut in cuts:
        # a class without a supervoxel of its own stays in group 0
        group = np.zeros(belief.shape[1], np.int64)
        group[classes] = tree.cut(cut)[body]
        grouped = shares @ (group[:, None] == np.arange(cut + 1)).astype(np.float32)
        own = grouped[np.arange(len(body)), group[classes]].copy()
        grouped[np.arange(len(body)), group[classes]] = 0.0
        margin += np.clip(own - grouped.max(axis=1), 0.0, 1.0)
    sure = np.ones(len(belief), np.float32)
    sure[body] = margin / len(cuts)
    return sure
