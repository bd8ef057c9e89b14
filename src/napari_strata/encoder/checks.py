"""Quick checks of an encoder: stability under re-rendering and accuracy of a small probe."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_strata.encoder.embed import intensity_codes
from napari_strata.encoder.network import StrataEncoder, fold_norms
from napari_strata.encoder.pretraining.tasks import Batch, read_at

PER_CLASS, CLUSTERS = 20, 10
"""Training voxels per tissue of the probe; clusters compared between renderings."""
_ROWS, _FEWEST = 1500, 60
"""Voxels compared between renderings; a probed tissue has at least ten times `_FEWEST`."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Quality figures of an encoder; higher is better.

    The first three are measured on unlabelled scans, the probes on synthetic patches
    with known labels.

    Parameters
    ----------
    agreement : float
        Mean cosine similarity of a voxel's features in two renderings of one patch,
        after subtracting the mean feature.
    clusters : float
        Adjusted Rand index of k-means with 10 clusters between the two renderings.
    found_again : float
        How often a voxel is more similar to itself in the other rendering than to
        another voxel there; 0.5 by chance.
    probe_alike : float
        Mean Dice of a classifier trained on 20 voxels per tissue, on synthetic patches
        that look like the scans.
    probe_known : float
        The same on plain synthetic patches, as used in pretraining.
    """

    agreement: float
    clusters: float
    found_again: float
    probe_alike: float
    probe_known: float

    def to_dict(self) -> dict[str, float]:
        """Return the figures as plain values, rounded to four digits."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, eq=False)
class CheckSet:
    """Patches that are kept aside for the checks.

    Parameters
    ----------
    pairs : sequence of (2, 1, z, y, x) float32 tensors
        Patches of the scans in two renderings each.
    known : sequence of Batch
        Synthetic patches, one per batch. The first view is plain, the last looks like
        the scans.
    """

    pairs: Sequence[Tensor]
    known: Sequence[Batch]


def check(encoder: StrataEncoder, patches: CheckSet, device: torch.device) -> Figures:
    """Return the figures of an encoder, measured at the same voxels every time."""
    frozen = copy.deepcopy(encoder).eval()
    fold_norms(frozen)
    with torch.inference_mode():
        stable = [
            _stability(frozen, pair.to(device), number)
            for number, pair in enumerate(patches.pairs)
        ]
        alike = [
            probe_patch(frozen, batch, -1, number, device)
            for number, batch in enumerate(patches.known)
        ]
        known = [
            probe_patch(frozen, batch, 0, number, device)
            for number, batch in enumerate(patches.known)
        ]
    agreement, clusters, found_again = (
        sum(column) / len(stable) for column in zip(*stable, strict=True)
    )
    return Figures(agreement, clusters, found_again, _mean(alike), _mean(known))


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / max(1, len(known))


def _rows(encoder: StrataEncoder, image: Tensor, index: Tensor) -> Tensor:
    """Return the features of all levels at flat voxel indices, (n, channel), on the CPU.

    `image` is (1, 1, z, y, x).
    """
    maps = encoder.decode(image.contiguous(memory_format=torch.channels_last_3d))
    shape = (image.shape[2], image.shape[3], image.shape[4])
    return torch.cat(
        [
            encoder.project(read_at(level[0], index, shape), k)
            for k, level in enumerate(maps)
        ],
        dim=1,
    ).cpu()


def _stability(
    encoder: StrataEncoder, pair: Tensor, seed: int
) -> tuple[float, float, float]:
    """Return agreement, cluster agreement and `found_again` of a pair of renderings."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(pair[0].numel(), generator=generator)[:_ROWS].to(pair.device)
    one, two = (_rows(encoder, view[None], index) for view in pair)
    one, two = (F.normalize(rows - rows.mean(0), dim=1) for rows in (one, two))
    own = (one * two).sum(1)
    other = one @ two.T
    above = (own[:, None] > other).float().sum() / (len(own) * (len(own) - 1))
    again = adjusted_rand(kmeans(one, CLUSTERS, seed), kmeans(two, CLUSTERS, seed))
    return float(own.mean()), again, float(above)


def probe_patch(
    encoder: StrataEncoder, batch: Batch, view: int, seed: int, device: torch.device
) -> float | None:
    """Return the mean Dice of a classifier trained on 20 voxels per tissue of one view.

    It is measured on other voxels of the same patch (the batch has one). Return None if
    fewer than two tissues are large enough.
    """
    labels = batch.labels[0][0].flatten()
    sizes = torch.bincount(labels)
    classes = torch.nonzero(sizes >= 10 * _FEWEST).flatten()
    if len(classes) < 2:
        return None
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[torch.isin(labels[order], classes)]
    taught = torch.cat([order[labels[order] == c][:PER_CLASS] for c in classes])
    rest = order[~torch.isin(order, taught)][: 3 * _ROWS]
    image = batch.image[view % len(batch.clean_image_ids[0])][None]
    index = torch.cat([taught, rest])
    intensity = image.flatten()[index]
    codes = torch.from_numpy(
        intensity_codes(intensity.numpy().reshape(-1, 1, 1))[:, :, 0, 0].T.copy()
    )
    rows = torch.cat(
        [
            codes,
            _rows(encoder, image.to(device), index.to(device)),
            2 * intensity[:, None],
        ],
        dim=1,
    )
    number = torch.searchsorted(classes, labels[index])
    predicted = logistic(
        rows[: len(taught)], number[: len(taught)], rows[len(taught) :]
    )
    truth = number[len(taught) :]
    dice = [
        2
        * float(((predicted == c) & (truth == c)).sum())
        / max(1, int((predicted == c).sum() + (truth == c).sum()))
        for c in truth.unique()
    ]
    return sum(dice) / len(dice)


def logistic(
    rows: Tensor, classes: Tensor, asked: Tensor, *, strength: float = 10.0
) -> Tensor:
    """Fit a multinomial logistic regression and return the class of other rows, (m,).

    Parameters
    ----------
    rows : (n, channel) float32 tensor
        Training rows.
    classes : (n,) int64 tensor
        Their classes, from 0 without gaps.
    asked : (m, channel) float32 tensor
        Rows to classify.
    strength : float
        Inverse strength of the L2 penalty (C).
    """
    count = int(classes.max()) + 1
    with torch.inference_mode(False), torch.enable_grad():
        known, truth = rows.clone(), classes.clone()
        weight = torch.zeros(known.shape[1] + 1, count, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight], max_iter=40, tolerance_grad=1e-4, line_search_fn="strong_wolfe"
        )

        def loss() -> Tensor:
            solver.zero_grad()
            scores = known @ weight[:-1] + weight[-1]
            value = (
                strength * F.cross_entropy(scores, truth, reduction="sum")
                + 0.5 * weight[:-1].square().sum()
            )
            value.backward()
            return value

        solver.step(loss)
    fitted = weight.detach()
    return (asked @ fitted[:-1] + fitted[-1]).argmax(1)


def kmeans(rows: Tensor, clusters: int, seed: int, *, rounds: int = 15) -> Tensor:
    """Cluster rows (n, channel) with Lloyd's k-means from a k-means++ start.

    Return the cluster of each row, (n,) int64.
    """
    generator = torch.Generator().manual_seed(seed)
    centers = rows[torch.randint(len(rows), (1,), generator=generator)]
    for _ in range(clusters - 1):
        far = torch.cdist(rows, centers).amin(1).square() + 1e-12
        centers = torch.cat(
            [centers, rows[torch.multinomial(far, 1, generator=generator)]]
        )
    nearest = torch.cdist(rows, centers).argmin(1)
    for _ in range(rounds):
        member = F.one_hot(nearest, clusters).to(rows.dtype)
        size = member.sum(0)[:, None]
        centers = torch.where(size > 0, member.T @ rows / size.clamp_min(1), centers)
        nearest = torch.cdist(rows, centers).argmin(1)
    return nearest


def adjusted_rand(one: Tensor, two: Tensor) -> float:
    """Return the adjusted Rand index of two clusterings of the same rows.

    It is 1 for equal clusterings and 0 by chance (Hubert and Arabie, 1985).
    """
    table = torch.zeros(int(one.max()) + 1, int(two.max()) + 1, dtype=torch.float64)
    table.index_put_(
        (one, two), torch.ones(len(one), dtype=torch.float64), accumulate=True
    )

    def pairs(count: Tensor) -> float:
        return float((count * (count - 1) / 2).sum())

    together, rows, columns = pairs(table), pairs(table.sum(1)), pairs(table.sum(0))
    expected = rows * columns / (len(one) * (len(one) - 1) / 2)
    most = (rows + columns) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)
