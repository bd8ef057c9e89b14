"""Pretext tasks: voxel contrast, agreement of views, inpainting, next-slice prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_strata.encoder.network import StrataEncoder
from napari_strata.settings import PretrainSettings

_BLOCK_VOX = 8
"""Side of a masked block, in voxels."""
_MOST_LABELS, _FEWEST_VOXELS = 24, 16
"""Most labels compared in a patch; patches with fewer sampled voxels are skipped."""
_SLAB_VOX = 4
"""Slices after the last visible one that next-slice prediction has to reconstruct."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Views of patches with their labels.

    Parameters
    ----------
    image : (patch * view, 1, z, y, x) float32 tensor
        Intensity in [0, 1]; the views of one patch follow one another and lie on one
        grid.
    labels : tuple of (patch, z, y, x) int64 tensor
        The labels to contrast at each level, finest first. Empty for unlabelled scans:
        then a voxel's only positives are the same voxel in the other views.
    clean_image_ids : tuple of tuple of int
        For each patch the number of the contrast of each view. Views with the same
        number differ only by artefacts.
    kinds : tuple of tuple of int or None
        For each patch the kind of contrast of each view, if its finest labels mean the
        same tissues in every scan of that kind; None if they do not. Empty: all None.
    """

    image: Tensor
    labels: tuple[Tensor, ...]
    clean_image_ids: tuple[tuple[int, ...], ...]
    kinds: tuple[tuple[int | None, ...], ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device, images channels-last."""
        image = self.image.to(device, memory_format=torch.channels_last_3d)
        return Batch(
            image,
            tuple(labels.to(device) for labels in self.labels),
            self.clean_image_ids,
            self.kinds,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Hidden:
    """Masks of the voxels that are hidden in a batch.

    Parameters
    ----------
    unseen : (patch * view, 1, z, y, x) bool tensor
        Voxels that the encoder does not see.
    blocks, slabs : bool tensors, same shape
        Voxels that it has to reconstruct: hidden blocks, and the first slices after the
        last visible one.
    """

    unseen: Tensor
    blocks: Tensor
    slabs: Tensor


def hide(
    shape: tuple[int, ...], settings: PretrainSettings, generator: torch.Generator
) -> Hidden:
    """Draw the voxels to hide in each image.

    In some images everything after a slice is hidden (next-slice prediction), in the
    others random blocks.
    """
    count, _, *sides = shape
    coarse = (
        torch.rand(
            (count, 1, *(-(-n // _BLOCK_VOX) for n in sides)), generator=generator
        )
        < settings.masked_share
    )
    blocks = F.interpolate(coarse.float(), scale_factor=_BLOCK_VOX, mode="nearest")[
        :, :, : sides[0], : sides[1], : sides[2]
    ].bool()
    unseen, slabs = blocks.clone(), torch.zeros_like(blocks)
    if settings.next_slice_weight:
        for number in (
            torch.nonzero(
                torch.rand(count, generator=generator) < settings.next_slice_share
            )
            .flatten()
            .tolist()
        ):
            axis, backward = (
                int(torch.randint(n, (), generator=generator)) for n in (3, 2)
            )
            last = int(
                sides[axis] * (0.6 + 0.3 * float(torch.rand((), generator=generator)))
            )
            at = torch.arange(sides[axis])
            at = (at.flip(0) if backward else at).view(
                [-1 if a == axis else 1 for a in range(3)]
            )
            blocks[number] = False
            unseen[number] = (at > last).expand(*sides)
            slabs[number] = ((at > last) & (at <= last + _SLAB_VOX)).expand(*sides)
    return Hidden(unseen, blocks, slabs)


def sample_voxels(
    labels: Tensor, allowed: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Return flat indices of voxels of one patch, balanced over its labels.

    Each label gets an equal share of `count`; a label with fewer voxels is taken whole.
    At most 24 labels are used.
    """
    flat = labels.flatten()
    order = torch.randperm(flat.numel(), generator=generator).to(flat.device)
    order = order[allowed.flatten()[order]]
    sizes = torch.bincount(flat[order])
    present = torch.nonzero(sizes >= 8).flatten()
    if len(present) > _MOST_LABELS:
        present = present[
            torch.randperm(len(present), generator=generator).to(flat.device)[
                :_MOST_LABELS
            ]
        ]
    if len(present) < 2:
        return order[:0]
    share = -(-count // len(present))
    return torch.cat([order[flat[order] == label][:share] for label in present])


def voxel_contrast(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Multi-positive InfoNCE: voxels of one label attract, all others repel.

    Parameters
    ----------
    features : (n, channel) tensor
        Unit length.
    labels : (n,) int64 tensor
        Voxels with equal labels are positives of one another.
    temperature : float
        Divides the cosine.

    Notes
    -----
    Khosla et al., Supervised Contrastive Learning, 2020 (the form with the sum outside
    the logarithm), here with synthetic labels.
    """
    similarity = features @ features.T / temperature
    own = torch.eye(len(features), dtype=torch.bool, device=features.device)
    similarity = similarity.masked_fill(own, -1e4)
    log_chance = similarity - similarity.logsumexp(dim=1, keepdim=True)
    positive = (labels[:, None] == labels[None]) & ~own
    count = positive.sum(1)
    per_voxel = -(log_chance * positive).sum(1) / count.clamp_min(1)
    return per_voxel[count > 0].mean()


class TissuePrototypes(nn.Module):
    """A direction in feature space for each tissue and kind of contrast, learnt along.

    The voxel contrast compares voxels of one patch only, so that features need not mean
    the same in two scans. Prototypes are shared by all patches: a voxel has to find that
    of its own tissue among those of all tissues (cross-entropy of cosines).

    Parameters
    ----------
    kinds, tissues : int
        Number of kinds of contrast and of tissues.
    channels : int
        Feature channels of all levels together.
    temperature : float
        Divides the cosine.

    Notes
    -----
    Normalised softmax with learnt class vectors: Wang et al., NormFace, 2017.
    """

    def __init__(
        self, kinds: int, tissues: int, channels: int, temperature: float
    ) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(kinds, tissues, channels) * 0.1)
        self.temperature = temperature

    def loss(self, features: Tensor, tissues: Tensor, kind: int) -> Tensor:
        """Return the cross-entropy of voxels.

        Parameters
        ----------
        features : (n, channel) tensor
            The features of all levels, each of unit length.
        tissues : (n,) int64 tensor
            Tissue of each voxel.
        kind : int
            Kind of contrast of the scan.
        """
        cosines = (
            F.normalize(features, dim=1) @ F.normalize(self.vectors[kind], dim=1).T
        )
        return F.cross_entropy(cosines / self.temperature, tissues)


def region_contrast(
    support: Tensor,
    query: Tensor,
    labels: Tensor,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """Find regions of one view again in another one by their mean feature.

    Half of each region's voxels in the first view give its prototype. Each of the other
    half, seen in the second view, has to find its region among all prototypes of the
    patch (cross-entropy of cosines).

    Parameters
    ----------
    support, query : (n, channel) tensors
        Features of the same voxels in the two views, of unit length.
    labels : (n,) int64 tensor
        Region of each voxel.
    temperature : float
        Divides the cosine.
    generator : torch.Generator
        On the CPU; halves the voxels.

    Notes
    -----
    After the region-mask pretext of MASS (arXiv 2603.13660), with prototypes as in
    Snell et al., Prototypical networks, 2017.
    """
    half = (torch.rand(len(labels), generator=generator) < 0.5).to(labels.device)
    names, number = torch.unique(labels, return_inverse=True)
    count = torch.zeros(len(names), device=labels.device).index_add_(
        0, number, half.float()
    )
    means = torch.zeros(len(names), support.shape[1], device=support.device)
    means = means.index_add(0, number[half], support[half])
    known = count > 0
    asked = ~half & known[number]
    if not bool(asked.any()) or int(known.sum()) < 2:
        return support.sum() * 0
    cosines = query[asked] @ F.normalize(means, dim=1).T / temperature
    cosines = cosines.masked_fill(~known[None], -1e4)
    return F.cross_entropy(cosines, number[asked])


def read_at(level: Tensor, index: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Return a map (channel, z', y', x') interpolated at flat indices of the full grid.

    The result is (n, channel).
    """
    z, y, x = shape
    if level.shape[1:] == shape:
        return level.permute(1, 2, 3, 0).reshape(-1, level.shape[0])[index]
    place = torch.stack([index % x, (index // x) % y, index // (x * y)], dim=1).float()
    size = torch.tensor([x, y, z], device=index.device).float()
    where = (2 * (place + 0.5) / size - 1).view(1, -1, 1, 1, 3)
    found = F.grid_sample(
        level[None], where, mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[0, :, :, 0, 0].T


def pretext_loss(
    encoder: StrataEncoder,
    batch: Batch,
    settings: PretrainSettings,
    generator: torch.Generator,
    prototypes: TissuePrototypes | None = None,
) -> dict[str, Tensor]:
    """Compute the losses of one batch.

    Parameters
    ----------
    encoder : StrataEncoder
        In training mode.
    batch : Batch
        Patches with their views.
    settings : PretrainSettings
        The weight of each task; tasks of weight 0 are left out.
    generator : torch.Generator
        On the CPU; chooses what is hidden and which voxels are compared.
    prototypes : TissuePrototypes, optional
        Needed for a prototype weight above 0.

    Returns
    -------
    dict of scalar tensors
        "contrast" (mean over levels and patches), "agreement" (1 - cosine similarity of
        a voxel with itself in another view of the same contrast), "inpaint" and
        "next_slice" (mean absolute error), "prototype" (cross-entropy of a voxel's tissue
        among all tissues), "region" (cross-entropy of a voxel's label among the labels of
        its patch), and their weighted "total".
    """
    device = batch.image.device
    hidden = hide(tuple(batch.image.shape), settings, generator)
    unseen = hidden.unseen.to(device)
    seen = torch.where(
        unseen, torch.rand_like(batch.image[:, :, :1, :1, :1]), batch.image
    )
    maps = encoder.decode(seen.contiguous(memory_format=torch.channels_last_3d))
    nothing = maps[0].sum() * 0
    contrast, agreement, regions = [nothing], [nothing], [nothing]
    for patch, clean_image_ids in enumerate(batch.clean_image_ids):
        first = patch * len(clean_image_ids)
        allowed = ~unseen[first : first + len(clean_image_ids), 0].any(dim=0)
        found = _compare(
            encoder,
            [m[first : first + len(clean_image_ids)] for m in maps],
            _truth(batch, patch),
            allowed,
            settings,
            generator,
            clean_image_ids,
        )
        contrast, agreement = contrast + found[0], agreement + found[1]
        regions += found[2]
    losses = {
        "contrast": torch.stack(contrast).sum() / max(1, len(contrast) - 1),
        "agreement": torch.stack(agreement).sum() / max(1, len(agreement) - 1),
        "inpaint": _paint_error(
            encoder, maps[0], batch.image, hidden.blocks.to(device)
        ),
        "next_slice": _paint_error(
            encoder, maps[0], batch.image, hidden.slabs.to(device)
        ),
        "prototype": nothing
        if prototypes is None
        else _prototype_error(
            encoder, prototypes, maps, batch, unseen, settings, generator
        ),
    }
    losses["region"] = torch.stack(regions).sum() / max(1, len(regions) - 1)
    weights = (
        settings.contrast_weight,
        settings.agreement_weight,
        settings.inpaint_weight,
        settings.next_slice_weight,
        settings.prototype_weight,
        settings.region_weight,
    )
    losses["total"] = torch.stack(
        [w * loss for w, loss in zip(weights, losses.values(), strict=True)]
    ).sum()
    return losses


def _prototype_error(
    encoder: StrataEncoder,
    prototypes: TissuePrototypes,
    maps: tuple[Tensor, ...],
    batch: Batch,
    unseen: Tensor,
    settings: PretrainSettings,
    generator: torch.Generator,
) -> Tensor:
    """Return the mean prototype loss of sampled voxels of all views of a known kind."""
    z, y, x = batch.image.shape[2:]
    errors = []
    image = 0
    for patch, kinds in enumerate(batch.kinds):
        for kind in kinds:
            tissues = batch.labels[0][patch]
            if kind is not None:
                index = sample_voxels(
                    tissues, ~unseen[image, 0], settings.voxels_per_patch, generator
                )
                if len(index) >= _FEWEST_VOXELS:
                    rows = [
                        encoder.project(read_at(level[image], index, (z, y, x)), number)
                        for number, level in enumerate(maps)
                    ]
                    errors.append(
                        prototypes.loss(
                            torch.cat(rows, dim=1), tissues.flatten()[index], kind
                        )
                    )
            image += 1
    return torch.stack(errors).mean() if errors else maps[0].sum() * 0


def _truth(batch: Batch, patch: int) -> tuple[Tensor, ...]:
    return tuple(labels[patch] for labels in batch.labels)


def _compare(
    encoder: StrataEncoder,
    maps: list[Tensor],
    truth: tuple[Tensor, ...],
    allowed: Tensor,
    settings: PretrainSettings,
    generator: torch.Generator,
    clean_image_ids: tuple[int, ...],
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return the contrast, agreement and region losses of sampled voxels of one patch.

    There is one of the first two per level and group of views with the same contrast, and
    one of the last per level.
    """
    contrast: list[Tensor] = []
    agreement: list[Tensor] = []
    regions: list[Tensor] = []
    shape = (allowed.shape[0], allowed.shape[1], allowed.shape[2])
    chosen: dict[int, Tensor] = {}
    for number, level in enumerate(maps):
        if settings.contrast_levels == "finest" and number:
            break
        labels = truth[number] if truth else None
        key = id(labels)
        if key not in chosen:
            chosen[key] = _draw(labels, allowed, settings.voxels_per_patch, generator)
        index = chosen[key]
        if len(index) < _FEWEST_VOXELS:
            continue
        same = (
            labels.flatten()[index]
            if labels is not None
            else torch.arange(len(index), device=index.device)
        )
        rows = [encoder.project(read_at(view, index, shape), number) for view in level]
        if settings.region_weight and labels is not None:
            regions.append(
                region_contrast(
                    rows[0], rows[-1], same, settings.temperature, generator
                )
            )
        for clean_id in dict.fromkeys(clean_image_ids):
            alike = [
                row
                for row, own in zip(rows, clean_image_ids, strict=True)
                if own == clean_id
            ]
            if settings.contrast_weight and (labels is not None or len(alike) > 1):
                contrast.append(
                    voxel_contrast(
                        torch.cat(alike), same.repeat(len(alike)), settings.temperature
                    )
                )
            if settings.agreement_weight and len(alike) > 1:
                agreement.append(1 - (alike[0] * alike[1]).sum(1).mean())
    return contrast, agreement, regions


def _draw(
    labels: Tensor | None, allowed: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Return flat indices of sampled voxels, balanced over labels if there are any."""
    if labels is not None:
        return sample_voxels(labels, allowed, count, generator)
    order = torch.randperm(allowed.numel(), generator=generator).to(allowed.device)
    return order[allowed.flatten()[order]][:count]


def _paint_error(
    encoder: StrataEncoder, finest: Tensor, image: Tensor, where: Tensor
) -> Tensor:
    """Return the mean absolute error of the reconstructed intensity in a mask."""
    if not where.any():
        return finest.sum() * 0
    rows = finest.permute(0, 2, 3, 4, 1)[where[:, 0]]
    return (encoder.paint(rows) - image[:, 0][where[:, 0]]).abs().mean()
