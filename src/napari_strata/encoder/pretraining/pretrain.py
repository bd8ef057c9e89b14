"""Self-supervised pretraining on synthetic scans; a run can be stopped and resumed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from napari_strata.encoder.memory import kept_pages
from napari_strata.encoder.network import (
    NetworkShape,
    StrataEncoder,
    pick_device,
    torch_threads,
)
from napari_strata.encoder.pretraining.patches import KINDS, SyntheticBatches
from napari_strata.encoder.pretraining.tasks import (
    Batch,
    TissuePrototypes,
    pretext_loss,
)
from napari_strata.encoder.weights import load_encoder, write_tensors, write_weights
from napari_strata.errors import SettingsError, WeightsError
from napari_strata.filenames import plain_name
from napari_strata.settings import PretrainSettings, names_in
from napari_strata.synthesis.anatomy import TISSUES
from napari_strata.volume import Progress, no_progress

logger = logging.getLogger(__name__)

LOSSES = ("contrast", "agreement", "inpaint", "next_slice", "prototype", "region")
"""The columns of a run's loss curve."""
_LEVELS = 4
"""Levels of features of the encoder."""
_FREE = ("steps", "checkpoint_minutes")
"""Settings that may differ when a run is resumed."""


def pretrain(
    output: Path,
    settings: PretrainSettings,
    *,
    device: str = "auto",
    threads: int = 0,
    workers: int = 0,
    minutes: float | None = None,
    batches: Dataset[Batch] | None = None,
    start_from: Path | None = None,
    on_progress: Progress = no_progress,
) -> Path:
    """Pretrain an encoder, or resume an earlier run.

    Parameters
    ----------
    output : Path
        Weights file to write (safetensors). `output.with_suffix(".state")` keeps what
        is needed to resume.
    settings : PretrainSettings
        The recipe.
    device : {"auto", "cpu", "cuda"}
        Where to train.
    threads : int
        CPU threads; 0 takes every core.
    workers : int
        Processes that synthesise the next scans in the background; 0 synthesises in
        this process. The result is the same, as scans are always made on the CPU.
    minutes : float, optional
        Save and stop after this time; by default after `settings.steps`.
    batches : Dataset of Batch, optional
        The batch of every step, so that several recipes can train on the same scans. By
        default batches are synthesised from the recipe's seed.
    start_from : Path, optional
        Weights of a network of the same shape to start from; by default random ones. A
        run that goes on starts where it stopped.
    on_progress : callable
        Called as (step, steps, "contrast 3.21, inpaint 0.08").

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    WeightsError
        If the state of an earlier run cannot be read, or belongs to another recipe, or
        the weights to start from are of a network of another shape.
    SettingsError
        If a batch is too small for the batch norms.
    """
    if settings.batch * settings.views * (settings.patch_vox // 16) ** 3 < 2:
        raise SettingsError(
            "One patch of 16 voxels is too little for the batch norms. Give --batch 2,"
            " --views 2 or --patch-vox 32."
        )
    with torch_threads(threads), kept_pages():
        run = _Run.start(output, settings, pick_device(device), start_from)
        left = Subset(
            batches or SyntheticBatches(settings), range(run.step, settings.steps)
        )
        loader = DataLoader(
            left,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )
        _train(run, iter(loader), minutes, on_progress)
    return output


def _train(
    run: _Run, batches: Iterator[Batch], minutes: float | None, on_progress: Progress
) -> None:
    settings = run.settings
    started = saved = time.monotonic()
    while run.step < settings.steps:
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            break
        begun = time.monotonic()
        run.advance(next(batches))
        run.seconds += time.monotonic() - begun
        if run.step % 10 == 0:
            recent = np.mean(run.curve[-50:], axis=0)
            on_progress(
                run.step,
                settings.steps,
                ", ".join(
                    f"{name} {value:.3f}"
                    for name, value in zip(LOSSES, recent, strict=True)
                ),
            )
        if time.monotonic() - saved > 60 * settings.checkpoint_minutes:
            run.save()
            saved = time.monotonic()
    run.save()


@dataclass(slots=True)
class _Run:
    """A training run that can be saved and resumed."""

    output: Path
    settings: PretrainSettings
    device: torch.device
    encoder: StrataEncoder
    optimiser: torch.optim.AdamW
    step: int
    curve: list[tuple[float, ...]]
    prototypes: TissuePrototypes | None = None
    seconds: float = 0.0

    @classmethod
    def start(
        cls,
        output: Path,
        settings: PretrainSettings,
        device: torch.device,
        start_from: Path | None,
    ) -> _Run:
        torch.manual_seed(settings.seed)
        shape = NetworkShape(settings.network, settings.width, settings.channels)
        encoder = StrataEncoder(shape)
        if start_from is not None:
            start = load_encoder(start_from, fold=False)
            if start.shape != shape:
                raise WeightsError(
                    f"Cannot start from {start_from}: its network is {start.shape}, the"
                    f" recipe's {shape}. Give --network, --width and --channels as it"
                    " has them."
                )
            encoder.load_state_dict(start.state_dict())
        encoder.to(device)
        encoder.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        prototypes = (
            TissuePrototypes(
                len(KINDS),
                len(TISSUES),
                _LEVELS * settings.channels,
                settings.temperature,
            ).to(device)
            if settings.prototype_weight
            else None
        )
        optimiser = torch.optim.AdamW(
            [
                *encoder.parameters(),
                *(() if prototypes is None else prototypes.parameters()),
            ],
            lr=settings.learning_rate,
            weight_decay=1e-5,
        )
        run = cls(output, settings, device, encoder, optimiser, 0, [], prototypes)
        if run.state_path.exists():
            run._resume()
        return run

    @property
    def state_path(self) -> Path:
        return self.output.with_suffix(".state")

    def advance(self, batch: Batch) -> None:
        """Do one optimiser step."""
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate()
        first = self.settings.seed * 10_000_000 + self.step * self.settings.batch
        generator = torch.Generator().manual_seed(first)
        torch.manual_seed(first)
        self.encoder.train()
        losses = pretext_loss(
            self.encoder,
            batch.to(self.device),
            self.settings,
            generator,
            self.prototypes,
        )
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.encoder.parameters(), 5.0)
        self.optimiser.step()
        self.curve.append(tuple(float(losses[name].detach()) for name in LOSSES))
        self.step += 1

    def _learning_rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 50)
        left = 1.0 - self.step / self.settings.steps
        return self.settings.learning_rate * warm * min(1.0, max(0.02, 2.5 * left))

    def save(self) -> None:
        """Write the weights, and the state that is needed to resume."""
        recipe = {
            **self.settings.to_dict(),
            "step": self.step,
            "seconds": round(self.seconds),
        }
        write_weights(self.encoder, self.output, recipe)
        tensors: dict[str, Tensor] = {
            f"model.{k}": v.contiguous().cpu()
            for k, v in self.encoder.state_dict().items()
        }
        if self.prototypes is not None:
            tensors["prototypes"] = self.prototypes.vectors.detach().contiguous().cpu()
        for number, state in self.optimiser.state_dict()["state"].items():
            tensors |= {
                f"optimiser.{number}.{k}": torch.as_tensor(v).contiguous().cpu()
                for k, v in state.items()
            }
        tensors["curve"] = torch.tensor(self.curve, dtype=torch.float32).reshape(
            -1, len(LOSSES)
        )
        write_tensors(
            tensors,
            self.state_path,
            {"step": str(self.step), "recipe": json.dumps(recipe)},
        )

    def _check_recipe(self, recipe: dict[str, Any]) -> None:
        """Refuse to resume with settings other than those of the saved state.

        A setting that the state does not contain counts as its default.
        """
        kept = {
            parameter.name: recipe.get(parameter.name, parameter.default)
            for parameter in fields(PretrainSettings)
        }
        given = self.settings.to_dict()
        kept["without"], given["without"] = (
            sorted(names_in(str(one["without"]))) for one in (kept, given)
        )
        if other := [
            f"{name} ({kept[name]!r}, now {given[name]!r})"
            for name in given
            if name not in _FREE and kept[name] != given[name]
        ]:
            raise WeightsError(
                f"{self.state_path} was begun with other settings: {', '.join(other)}. "
                "Give the same ones to go on, or move it away to start afresh."
            )

    def _resume(self) -> None:
        try:
            with (
                plain_name(self.state_path) as name,
                safe_open(name, framework="pt") as store,
            ):
                recipe = dict(json.loads(store.metadata()["recipe"]))
                self._check_recipe(recipe)
                tensors = {key: store.get_tensor(key) for key in store.keys()}  # noqa: SIM118
            self.encoder.load_state_dict(
                {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}
            )
            if self.prototypes is not None:
                self.prototypes.load_state_dict({"vectors": tensors["prototypes"]})
            # states of earlier versions know fewer losses
            width = tensors["curve"].shape[-1] if tensors["curve"].ndim == 2 else 4
            curve = tensors["curve"].reshape(-1, width)
            self.curve = [
                tuple(row)
                for row in torch.nn.functional.pad(
                    curve, (0, len(LOSSES) - width)
                ).tolist()
            ]
        except (
            OSError,
            RuntimeError,
            KeyError,
            TypeError,
            SafetensorError,
            ValueError,
        ) as err:
            raise WeightsError(
                f"Cannot go on from {self.state_path}: {err}. Move it away to start"
                " afresh."
            ) from err
        packed = self.optimiser.state_dict()
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".")
                packed["state"].setdefault(int(number), {})[name] = value
        self.optimiser.load_state_dict(packed)
        self.step, self.seconds = len(self.curve), float(recipe.get("seconds", 0.0))
        logger.info("Going on from step %d of %s.", self.step, self.state_path)
