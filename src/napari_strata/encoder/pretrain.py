"""Pretraining without a human label: voxel contrast inside one synthetic scan, and painting masked blocks back in."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from napari_strata.encoder.network import StrataEncoder, pick_device, torch_threads
from napari_strata.encoder.weights import write_tensors, write_weights
from napari_strata.errors import WeightsError
from napari_strata.preprocess import brightness
from napari_strata.settings import PretrainSettings
from napari_strata.synthesis.synthesiser import Synthesiser, SyntheticScan
from napari_strata.volume import Progress, no_progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Synthetic patches with their truth.

    Parameters
    ----------
    image : (batch, 1, z, y, x) float32 tensor
        Brightness in [0, 1].
    tissues, structures : (batch, z, y, x) int64 tensors
        Labels for the fine and for the coarse levels.
    """

    image: Tensor
    tissues: Tensor
    structures: Tensor


def make_batch(synthesiser: Synthesiser, seeds: list[int]) -> Batch:
    """Synthesise patches, map them to brightness with a little play in the range, and turn them about."""
    images, tissues, structures = [], [], []
    for seed in seeds:
        scan = synthesiser.make(seed)
        play = np.random.default_rng(seed)
        image = torch.from_numpy(_patch_brightness(scan, play))
        stack = torch.stack([image, scan.anatomy.tissues.float().cpu(), scan.anatomy.structures.float().cpu()])
        stack = stack.permute(0, *(1 + play.permutation(3)).tolist()) if play.random() < 0.5 else stack
        stack = torch.flip(stack, [axis for axis in (1, 2, 3) if play.random() < 0.5])
        images.append(stack[0])
        tissues.append(stack[1].long())
        structures.append(stack[2].long())
    return Batch(torch.stack(images)[:, None].contiguous(), torch.stack(tissues), torch.stack(structures))


def _patch_brightness(scan: SyntheticScan, play: np.random.Generator) -> np.ndarray:
    data = scan.image.cpu().numpy()
    if scan.is_ct:
        return brightness(data + play.normal(0, 6), "ct")
    image = brightness(data, "mr")
    image = image * play.uniform(0.65, 1.1) + play.uniform(-0.02, 0.06)
    return np.clip(image, 0, 1, dtype=np.float32) ** np.float32(play.uniform(0.75, 1.35))


def mask_blocks(image: Tensor, generator: torch.Generator, *, share: float) -> Tensor:
    """Choose random 8-voxel blocks to hide: bool, same shape as `image`."""
    batch, _, z, y, x = image.shape
    coarse = torch.rand((batch, 1, -(-z // 8), -(-y // 8), -(-x // 8)), generator=generator) < share
    return F.interpolate(coarse.float(), scale_factor=8, mode="nearest")[:, :, :z, :y, :x].bool().to(image.device)


def sample_voxels(labels: Tensor, allowed: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw voxels of one patch, balanced over its labels: flat indices (n,), n <= count.

    Each label gets an equal share (rare ones are taken whole), at most 24 labels are used.
    """
    flat = labels.flatten()
    order = torch.randperm(flat.numel(), generator=generator).to(flat.device)
    order = order[allowed.flatten()[order]]
    sizes = torch.bincount(flat[order])
    present = torch.nonzero(sizes >= 8).flatten()
    if len(present) > 24:
        present = present[torch.randperm(len(present), generator=generator).to(flat.device)[:24]]
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
    Khosla et al., Supervised Contrastive Learning, 2020 (the form with the sum outside the logarithm), with labels
    that a program made up rather than a person.
    """
    similarity = features @ features.T / temperature
    own = torch.eye(len(features), dtype=torch.bool, device=features.device)
    similarity = similarity.masked_fill(own, -1e4)
    log_chance = similarity - similarity.logsumexp(dim=1, keepdim=True)
    positive = (labels[:, None] == labels[None]) & ~own
    count = positive.sum(1)
    per_voxel = -(log_chance * positive).sum(1) / count.clamp_min(1)
    return per_voxel[count > 0].mean()


def read_at(level: Tensor, index: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Read a feature map (channel, z', y', x') at flat indices of the full grid, interpolated: (n, channel)."""
    z, y, x = shape
    place = torch.stack([index % x, (index // x) % y, index // (x * y)], dim=1).float()
    size = torch.tensor([x, y, z], device=index.device).float()
    where = (2 * (place + 0.5) / size - 1).view(1, -1, 1, 1, 3)
    found = F.grid_sample(level[None], where, mode="bilinear", padding_mode="border", align_corners=False)
    return F.normalize(found[0, :, :, 0, 0].T, dim=1)


def pretext_loss(encoder: StrataEncoder, batch: Batch, settings: PretrainSettings, generator: torch.Generator) -> dict[str, Tensor]:
    """Compute the losses of one batch: "contrast" (mean over levels and patches), "inpaint", and their "total"."""
    hidden = mask_blocks(batch.image, generator, share=settings.masked_share)
    seen = torch.where(hidden, torch.rand_like(batch.image[:, :, :1, :1, :1]), batch.image)
    maps = encoder.decode(seen.contiguous(memory_format=torch.channels_last_3d))
    levels = encoder.levels(maps)
    terms = []
    for patch in range(len(batch.image)):
        z, y, x = batch.tissues.shape[1:]
        allowed = ~hidden[patch, 0]
        for truth, chosen in ((batch.tissues[patch], levels[:2]), (batch.structures[patch], levels[2:])):
            index = sample_voxels(truth, allowed, settings.voxels_per_patch, generator)
            if len(index) < 16:
                continue
            labels = truth.flatten()[index]
            terms += [voxel_contrast(read_at(level[patch], index, (z, y, x)), labels, settings.temperature) for level in chosen]
    contrast = torch.stack(terms).mean() if terms else maps[0].sum() * 0
    painted = encoder.paint(maps[0])
    inpaint = (painted - batch.image).abs()[hidden].mean() if hidden.any() else maps[0].sum() * 0
    return {"contrast": contrast, "inpaint": inpaint, "total": contrast + settings.inpaint_weight * inpaint}


def pretrain(
    output: Path,
    settings: PretrainSettings,
    *,
    device: str = "auto",
    threads: int = 0,
    minutes: float | None = None,
    on_progress: Progress = no_progress,
) -> Path:
    """Pretrain an encoder, or go on where an earlier run stopped.

    Parameters
    ----------
    output : Path
        Where the weights go (safetensors); `output.with_suffix(".state")` keeps what a later run needs to go on.
    settings : PretrainSettings
        The recipe.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    threads : int
        CPU threads; 0 takes every core.
    minutes : float, optional
        Stop after this long, having saved; otherwise after `settings.steps`.
    on_progress : callable
        Called as (step, steps, "contrast 3.21, inpaint 0.08").

    Returns
    -------
    Path
        `output`.
    """
    with torch_threads(threads):
        _train(_Run.start(output, settings, pick_device(device)), minutes, on_progress)
    return output


def _train(run: _Run, minutes: float | None, on_progress: Progress) -> None:
    settings = run.settings
    started = saved = time.monotonic()
    while run.step < settings.steps:
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            break
        run.advance()
        if run.step % 10 == 0:
            recent = np.mean(run.curve[-50:], axis=0)
            on_progress(run.step, settings.steps, f"contrast {recent[0]:.3f}, inpaint {recent[1]:.4f}")
        if time.monotonic() - saved > 60 * settings.checkpoint_minutes:
            run.save()
            saved = time.monotonic()
    run.save()


@dataclass(slots=True)
class _Run:
    """A training run that can be saved and taken up again."""

    output: Path
    settings: PretrainSettings
    device: torch.device
    encoder: StrataEncoder
    optimiser: torch.optim.AdamW
    synthesiser: Synthesiser
    step: int
    curve: list[tuple[float, float]]
    seconds: float = 0.0

    @classmethod
    def start(cls, output: Path, settings: PretrainSettings, device: torch.device) -> _Run:
        torch.manual_seed(settings.seed)
        encoder = StrataEncoder().to(device)
        encoder.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate, weight_decay=1e-5)
        side = settings.patch_vox
        run = cls(output, settings, device, encoder, optimiser, Synthesiser((side, side, side), device=device.type), 0, [])
        if run.state_path.exists():
            run._resume()
        return run

    @property
    def state_path(self) -> Path:
        return self.output.with_suffix(".state")

    def advance(self) -> None:
        """Do one optimiser step."""
        begun = time.monotonic()
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        first = self.settings.seed * 10_000_000 + self.step * self.settings.batch
        batch = make_batch(self.synthesiser, list(range(first, first + self.settings.batch)))
        moved = Batch(batch.image.to(self.device), batch.tissues.to(self.device), batch.structures.to(self.device))
        generator = torch.Generator().manual_seed(first)
        self.encoder.train()
        losses = pretext_loss(self.encoder, moved, self.settings, generator)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 5.0)
        self.optimiser.step()
        self.curve.append((float(losses["contrast"].detach()), float(losses["inpaint"].detach())))
        self.step += 1
        self.seconds += time.monotonic() - begun

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 50)
        left = 1.0 - self.step / self.settings.steps
        return self.settings.learning_rate * warm * min(1.0, max(0.02, 2.5 * left))

    def save(self) -> None:
        """Write the weights, and what the next run needs to go on."""
        recipe = {**self.settings.to_dict(), "step": self.step, "seconds": round(self.seconds)}
        write_weights(self.encoder, self.output, recipe)
        tensors: dict[str, Tensor] = {f"model.{k}": v.contiguous().cpu() for k, v in self.encoder.state_dict().items()}
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{number}.{k}": torch.as_tensor(v).contiguous().cpu() for k, v in state.items()}
        tensors["curve"] = torch.tensor(self.curve, dtype=torch.float32).reshape(-1, 2)
        write_tensors(tensors, self.state_path, {"step": str(self.step), "recipe": json.dumps(recipe)})

    def _resume(self) -> None:
        try:
            tensors = load_file(str(self.state_path))
            self.encoder.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        except (OSError, RuntimeError, SafetensorError, ValueError) as err:
            raise WeightsError(f"Cannot go on from {self.state_path}: {err}. Move it away to start afresh.") from err
        packed = self.optimiser.state_dict()
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".")
                packed["state"].setdefault(int(number), {})[name] = value
        self.optimiser.load_state_dict(packed)
        self.curve = [(row[0], row[1]) for row in tensors["curve"].tolist()]
        self.step = len(self.curve)
        logger.info("Going on from step %d of %s.", self.step, self.state_path)
