"""Training batches: synthetic patches with their labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from napari_strata.encoder.pretraining.bootstrap import BootstrappedPatches
from napari_strata.encoder.pretraining.tasks import Batch
from napari_strata.errors import SettingsError
from napari_strata.preprocess.intensity import gamma_to_middle, scale_intensity
from napari_strata.settings import PretrainSettings, names_in
from napari_strata.synthesis.synthesiser import Synthesiser, SyntheticScan

KINDS = ("t1", "t2", "flair", "pd", "ct")
"""Contrasts in which a tissue looks alike in every scan, so that it can be known again."""


class SyntheticBatches(Dataset[Batch]):
    """The batch of every step of a recipe; the same step always gives the same batch.

    Parameters
    ----------
    settings : PretrainSettings
        The recipe.
    bootstrapped : BootstrappedPatches, optional
        Patches of real scans, of which the recipe takes `bootstrapped_share`.

    Raises
    ------
    SettingsError
        If the recipe takes patches of real scans and there are none.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        bootstrapped: BootstrappedPatches | None = None,
    ) -> None:
        if settings.bootstrapped_share and bootstrapped is None:
            raise SettingsError(
                "The recipe takes patches of real scans (bootstrapped_share"
                f" {settings.bootstrapped_share}). Give --scans, or a share of 0."
            )
        self.settings = settings
        self.bootstrapped = bootstrapped
        side = settings.patch_vox
        self.synthesiser = Synthesiser(
            (side, side, side), without=names_in(settings.without)
        )

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> Batch:
        first = self.settings.seed * 10_000_000 + step * self.settings.batch
        seeds = list(range(first, first + self.settings.batch))
        return make_batch(
            self.synthesiser,
            seeds,
            views=self.settings.views,
            coarse=self.settings.coarse_labels,
            bootstrapped=self.bootstrapped,
            bootstrapped_share=self.settings.bootstrapped_share,
        )


def make_batch(
    synthesiser: Synthesiser,
    seeds: list[int],
    *,
    views: int = 2,
    coarse: str = "structure",
    bootstrapped: BootstrappedPatches | None = None,
    bootstrapped_share: float = 0.0,
) -> Batch:
    """Synthesise a batch of patches in several views, flipped and transposed at random.

    Their intensity is scaled to [0, 1] with some random variation of the range.

    Parameters
    ----------
    synthesiser : Synthesiser
        Makes the anatomies and views.
    seeds : list of int
        A seed per patch.
    views : int
        Renderings of each anatomy.
    coarse : {"structure", "tissue", "compartment"}
        The labels of the two coarse levels.
    bootstrapped : BootstrappedPatches, optional
        Patches of real scans with their own regions as labels.
    bootstrapped_share : float
        Chance that a patch is one of them.

    Returns
    -------
    Batch
        With tissues as labels of the two fine levels, and `coarse` of the two others.
    """
    images: list[Tensor] = []
    tissues: list[Tensor] = []
    others: list[Tensor] = []
    clean_image_ids = []
    kinds = []
    for seed in seeds:
        own: dict[int, Tensor] = {}
        if (
            bootstrapped
            and np.random.default_rng((seed, 0)).random() < bootstrapped_share
        ):
            scans, own = bootstrapped.make_views(synthesiser, seed, views)
        else:
            scans = synthesiser.make_views(seed, views)
        play = np.random.default_rng(seed)
        foreground = (scans[0].anatomy.tissues > 0).cpu().numpy()
        intensity = [
            own[number]
            if number in own
            else torch.from_numpy(patch_intensity(scan, foreground, play))
            for number, scan in enumerate(scans)
        ]
        anatomy = scans[0].anatomy
        other = {
            "structure": anatomy.structures,
            "tissue": anatomy.tissues,
            "compartment": anatomy.compartments,
        }[coarse]
        stack = torch.stack(
            [*intensity, anatomy.tissues.float().cpu(), other.float().cpu()]
        )
        stack = (
            stack.permute(0, *(1 + play.permutation(3)).tolist())
            if play.random() < 0.5
            else stack
        )
        stack = torch.flip(stack, [axis for axis in (1, 2, 3) if play.random() < 0.5])
        images += list(stack[: len(scans)])
        tissues.append(stack[-2].long())
        others.append(stack[-1].long())
        clean_image_ids.append(tuple(scan.clean_image_id for scan in scans))
        kinds.append(
            tuple(
                KINDS.index(scan.contrast)
                if scan.contrast in KINDS and scan.anatomy.family != "shapes"
                else None
                for scan in scans
            )
        )
    tissue, other = torch.stack(tissues), torch.stack(others)
    return Batch(
        torch.stack(images)[:, None].contiguous(),
        (tissue, tissue, other, other),
        tuple(clean_image_ids),
        tuple(kinds),
    )


def patch_intensity(
    scan: SyntheticScan, foreground: np.ndarray, play: np.random.Generator
) -> np.ndarray:
    """Return the intensity of a synthetic scan, scaled to [0, 1], (z, y, x) float32.

    It is scaled about as `preprocess` would scale the whole scan, varied at random.
    """
    data = scan.image.cpu().numpy()
    if scan.is_ct:
        return scale_intensity(data + play.normal(0, 6), "ct")
    image = np.clip(
        scale_intensity(data, "mr") * play.uniform(0.7, 1.1)
        + play.uniform(-0.02, 0.05),
        0,
        1,
        dtype=np.float32,
    )
    image = image ** np.float32(play.uniform(0.6, 1.6))
    if play.random() < 0.75 and foreground.any():
        image = image ** np.float32(
            gamma_to_middle(image[foreground]) * play.uniform(0.85, 1.18)
        )
    return image
