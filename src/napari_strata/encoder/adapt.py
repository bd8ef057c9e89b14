"""Adapting the encoder to a user's own unlabelled scans in minutes.

Adapted weights are written only if no check gets worse.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from napari_strata.encoder.checks import CheckSet, Figures, check
from napari_strata.encoder.identity import read_recipe, weights_hash
from napari_strata.encoder.memory import kept_pages
from napari_strata.encoder.network import StrataEncoder, pick_device, torch_threads
from napari_strata.encoder.pretraining.patches import make_batch
from napari_strata.encoder.pretraining.real_patches import (
    WorkingScan,
    dress,
    real_views,
)
from napari_strata.encoder.pretraining.tasks import Batch, pretext_loss
from napari_strata.encoder.weights import (
    load_encoder,
    write_weights,
)
from napari_strata.errors import AdaptError, GeometryError, WriteError
from napari_strata.settings import AdaptSettings, PretrainSettings, names_in
from napari_strata.synthesis.synthesiser import Synthesiser
from napari_strata.volume import Progress, Volume, no_progress

logger = logging.getLogger(__name__)

Way = Literal["statistics", "steps"]

_SEED_OF_STEPS, _SEED_OF_CHECKS = 500_000_000, 600_000_000
"""First seeds of the synthetic patches for training and for checks.

They are far from the seeds of any pretraining.
"""
_SEED_DISTANCE = 1_000_000
"""Difference between the seeds of two patches of one step."""
_CHECKED_PAIRS, _CHECKED_PATCHES = 6, 10
"""Patches of the scans (in two renderings) and synthetic patches kept for the checks."""
_LEFT_OUT_ARTEFACTS = ("crop", "strip")
"""Artefacts that synthetic patches never have here: cut-off scans."""


@dataclass(frozen=True, slots=True)
class AdaptReport:
    """Result of an adaptation, with its check figures.

    Parameters
    ----------
    output : Path
        The weights that were written.
    way : {"statistics", "steps"}
        How the weights were adapted: only the statistics of the batch norms were
        re-estimated on the scans, or training steps were done as well.
    before, statistics, steps : Figures
        Figures of the original weights and of both candidates; `steps` is None if there
        was no time for training.
    steps_done : int
        Steps of self-supervised training.
    scans : int
        Scans that were used.
    seconds : float
        Total time.
    """

    output: Path
    way: Way
    before: Figures
    statistics: Figures
    steps: Figures | None
    steps_done: int
    scans: int
    seconds: float

    @property
    def after(self) -> Figures:
        """The figures of the weights that were written."""
        return (
            self.steps
            if self.way == "steps" and self.steps is not None
            else self.statistics
        )

    def table(self) -> str:
        """Return the figures as text, one per row."""
        return figures_table(self.before, self.statistics, self.steps)

    def summary(self) -> str:
        """Return one line that describes the written weights."""
        what = (
            f"statistics and {self.steps_done} steps"
            if self.way == "steps"
            else "statistics only"
        )
        return (
            f"{what}, from {self.scans} scan{'s' * (self.scans != 1)} in"
            f" {self.seconds:.0f} s"
        )


_ROWS = {
    "agreement": "agreement under re-rendering, your scans",
    "clusters": "10 clusters agree (ARI), your scans",
    "found_again": "voxels found again, your scans",
    "probe_alike": "20-voxel probe, synthetic in their look",
    "probe_known": "20-voxel probe, synthetic as before",
}


def figures_table(before: Figures, statistics: Figures, steps: Figures | None) -> str:
    """Return a text table of the figures of the original weights and both candidates."""
    columns = {"before": before, "statistics": statistics} | (
        {"steps": steps} if steps is not None else {}
    )
    lines = [" " * 42 + "".join(f"{name:>12}" for name in columns)]
    lines += [
        f"{text:<42}"
        + "".join(f"{getattr(column, name):>12.3f}" for column in columns.values())
        for name, text in _ROWS.items()
    ]
    return "\n".join(lines)


def adapt(
    scans: Sequence[Volume],
    output: Path,
    *,
    settings: AdaptSettings | None = None,
    weights: Path | None = None,
    device: str = "auto",
    threads: int = 0,
    on_progress: Progress = no_progress,
) -> AdaptReport:
    """Adapt the encoder to a kind of scan from a few unlabelled examples.

    First the batch norms' running statistics are moved toward those of the scans'
    patches (Li et al., Revisiting Batch Normalization for Practical Domain Adaptation,
    2016). Then the pretext tasks are trained for some steps: on two re-renderings of
    patches of the scans, and on synthetic patches with one plain view and one view that
    looks like the scans. Both candidates are checked on held-out patches. The better
    candidate is written if it makes no figure worse than allowed.

    Parameters
    ----------
    scans : sequence of Volume
        At least one scan; no labels are needed.
    output : Path
        Weights file to write (.safetensors). Nothing is written if no candidate is
        better.
    settings : AdaptSettings, optional
        Time, steps, and the largest allowed fall of a figure.
    weights : Path, optional
        The weights to start from; the shipped ones if not given.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    threads : int
        CPU threads; 0 takes every core.
    on_progress : callable
        Called as (done, total, stage); it may raise `Cancelled`.

    Returns
    -------
    AdaptReport
        Figures before and after.

    Raises
    ------
    AdaptError
        If there are no scans, or no candidate is better without making a figure worse.
    WriteError
        If `output` exists.
    WeightsError
        If `weights` cannot be read or belong to another network.

    Examples
    --------
    >>> from pathlib import Path
    >>> scans = [strata.read(path) for path in Path("my_scans").glob("*.nii.gz")]
    >>> try:
    ...     print(strata.adapt(scans, Path("mine.safetensors")).table())
    ... except strata.StrataError as reason:
    ...     print(reason)  # this folder is empty
    There are no scans to adapt to. Give at least one scan of the kind you work with.
    """
    if not scans:
        raise AdaptError(
            "There are no scans to adapt to. Give at least one scan of the kind you"
            " work with."
        )
    if output.exists():
        raise WriteError(f"{output} exists. Choose another name, or move it away.")
    with torch_threads(threads), kept_pages():
        return _Adaptation(
            settings or AdaptSettings(), weights, pick_device(device), on_progress
        ).run(scans, output)


class _Adaptation:
    """One run of `adapt`, with its start time, weights and synthesiser."""

    def __init__(
        self,
        settings: AdaptSettings,
        weights: Path | None,
        device: torch.device,
        on_progress: Progress,
    ) -> None:
        self.begun = time.monotonic()
        self.settings, self.weights, self.device, self.on_progress = (
            settings,
            weights,
            device,
            on_progress,
        )
        self.before = load_encoder(weights, fold=False).to(device)
        self.recipe = read_recipe(weights)
        self.tasks = tasks_of(self.recipe, settings)
        # Without labels, contrast would separate voxels of the same tissue. Measured:
        # the probe's Dice fell by 0.05.
        self.own_tasks = replace(self.tasks, contrast_weight=0.0)
        side = settings.patch_vox
        self.synthesiser = Synthesiser(
            (side, side, side), without=left_out(self.recipe)
        )

    def passed(self) -> float:
        return (time.monotonic() - self.begun) / (60 * self.settings.minutes)

    def run(self, scans: Sequence[Volume], output: Path) -> AdaptReport:
        working = self._prepare(scans)
        self.on_progress(0, 1, "checking the weights as they are")
        aside = self._aside(working)
        started = self.passed()
        before = check(self.before, aside, self.device)
        once = self.passed() - started
        self.on_progress(0, 1, "taking statistics")
        encoder = copy.deepcopy(self.before)
        reestimate(encoder, self._patches(working), self.settings.statistics_share)
        statistics = check(encoder, aside, self.device)
        settled = encoder
        encoder = copy.deepcopy(
            settled if gain(before, statistics) > 0 else self.before
        )
        done = self._train(encoder, working, until=1.0 - 1.3 * once)
        go_back(encoder, self.before, 1.0 - self.settings.steps_share)
        self.on_progress(0, 1, "checking the weights")
        steps = check(encoder, aside, self.device) if done else None
        way = choose(before, statistics, steps, self.settings)
        report = AdaptReport(
            output,
            way,
            before,
            statistics,
            steps,
            done,
            len(working),
            round(time.monotonic() - self.begun, 1),
        )
        write_weights(
            encoder if way == "steps" else settled,
            output,
            self._header(report, scans[: len(working)]),
        )
        return report

    def _prepare(self, scans: Sequence[Volume]) -> list[WorkingScan]:
        """Prepare as many scans as fit into a third of the time, at least one."""
        working: list[WorkingScan] = []
        for number, volume in enumerate(scans):
            if working and self.passed() > 0.33:
                logger.warning(
                    "Only %d of %d scans were used; give more minutes to use all.",
                    len(working),
                    len(scans),
                )
                break
            self.on_progress(number, len(scans), "preparing scans")
            try:
                working.append(WorkingScan.prepare(volume, self.settings.patch_vox))
            except GeometryError as err:
                raise GeometryError(
                    f"Cannot use {volume.path or volume.name or f'scan {number + 1}'}:"
                    f" {err}"
                ) from err
        return working

    def _aside(self, working: list[WorkingScan]) -> CheckSet:
        first = _SEED_OF_CHECKS + 100_000 * self.settings.seed
        chosen = [
            working[number % len(working)]
            for number in range(max(_CHECKED_PAIRS, _CHECKED_PATCHES))
        ]
        pairs = [
            real_views(chosen[k], self.settings.patch_vox, first + k)
            for k in range(_CHECKED_PAIRS)
        ]
        known = [
            dress(make_batch(self.synthesiser, [first + k]), chosen[k], first + k)
            for k in range(_CHECKED_PATCHES)
        ]
        return CheckSet(pairs, known)

    def _patches(self, working: list[WorkingScan]) -> Iterable[Tensor]:
        rng = np.random.default_rng(self.settings.seed)
        for number in range(self.settings.statistics_batches):
            scan = working[number % len(working)]
            yield torch.stack(
                [scan.patch(self.settings.patch_vox, rng)[None] for _ in range(2)]
            ).to(self.device)

    def _train(
        self, encoder: StrataEncoder, working: list[WorkingScan], *, until: float
    ) -> int:
        """Train with the pretext tasks until the time is up, and return the step count.

        Batch norms normalise by their own patches, as in pretraining. With frozen
        statistics the same steps brought no gain.
        """
        encoder.train().requires_grad_(True)
        optimiser = torch.optim.AdamW(
            encoder.parameters(), lr=self.settings.learning_rate, weight_decay=1e-5
        )
        start, slowest = self.passed(), 0.0
        for step in range(self.settings.steps):
            begun = self.passed()
            if begun + slowest > until:
                return step
            left = 1.0 - max(
                step / self.settings.steps, (begun - start) / max(until - start, 1e-9)
            )
            for group in optimiser.param_groups:
                group["lr"] = self.settings.learning_rate * min(
                    1.0, (step + 1) / 5, 2 * left + 0.05
                )
            scan = working[step % len(working)]
            loss = self._loss(
                encoder, scan, _SEED_OF_STEPS + 100_000 * self.settings.seed + step
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
            optimiser.step()
            slowest = max(slowest, self.passed() - begun)
            self.on_progress(step + 1, self.settings.steps, "training")
        return self.settings.steps

    def _loss(self, encoder: StrataEncoder, scan: WorkingScan, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        seeds = [
            seed + _SEED_DISTANCE * number for number in range(self.settings.batch)
        ]
        synthetic = dress(
            make_batch(self.synthesiser, seeds, coarse=self.tasks.coarse_labels),
            scan,
            seed,
        )
        loss = pretext_loss(encoder, synthetic.to(self.device), self.tasks, generator)[
            "total"
        ]
        if self.settings.real_weight:
            views = real_views(scan, self.settings.patch_vox, seed)
            own = Batch(views, (), ((0, 0),)).to(self.device)
            loss = (
                loss
                + self.settings.real_weight
                * pretext_loss(encoder, own, self.own_tasks, generator)["total"]
            )
        return loss

    def _header(self, report: AdaptReport, scans: Sequence[Volume]) -> dict[str, Any]:
        figures = {"before": report.before.to_dict(), "after": report.after.to_dict()}
        own = {
            "from_sha256": weights_hash(self.weights),
            "scans": len(scans),
            "way": report.way,
            "steps": report.steps_done if report.way == "steps" else 0,
            "seconds": report.seconds,
            "settings": self.settings.to_dict(),
            "figures": figures,
        }
        return {**self.recipe, "adapted": [*self.recipe.get("adapted", []), own]}


def choose(
    before: Figures, statistics: Figures, steps: Figures | None, settings: AdaptSettings
) -> Way:
    """Return the candidate with the largest gain among those that make nothing worse.

    Raises
    ------
    AdaptError
        If there is none, or its gain is below `settings.least_gain`.
    """
    candidates: dict[Way, Figures] = {"statistics": statistics}
    if steps is not None:
        candidates["steps"] = steps
    gains = {
        way: gain(before, figures)
        for way, figures in candidates.items()
        if not harms(before, figures, settings)
    }
    best = max(gains, key=lambda way: gains[way], default=None)
    if best is None or gains[best] < settings.least_gain:
        raise AdaptError(
            "Adapting did not make the encoder better for these scans without making"
            " something worse; nothing was written. Go on with the weights you have, or"
            " give more --minutes.",
            figures_table(before, statistics, steps),
        )
    return best


def gain(before: Figures, after: Figures) -> float:
    """Return the gain of `after` over `before`.

    It is the gain of the probe on patches that look like the scans, plus half the gain
    in agreement.
    """
    return (
        after.probe_alike
        - before.probe_alike
        + 0.5 * (after.agreement - before.agreement)
    )


def harms(before: Figures, after: Figures, settings: AdaptSettings) -> bool:
    """Return whether any figure fell by more than is allowed.

    The probes and `found_again` may fall by `settings.most_fall`, agreement by twice and
    the cluster agreement by ten times as much.
    """
    fall = settings.most_fall
    allowed = {
        "probe_known": fall,
        "probe_alike": fall,
        "found_again": fall,
        "agreement": 2 * fall,
        "clusters": 10 * fall,
    }
    return any(
        getattr(after, name) < getattr(before, name) - most
        for name, most in allowed.items()
    )


def reestimate(encoder: nn.Module, patches: Iterable[Tensor], share: float) -> None:
    """Move the running statistics of every batch norm toward those of patches, in place.

    Parameters
    ----------
    encoder : nn.Module
        With unfolded batch norms.
    patches : iterable of (n, 1, z, y, x) tensors
        Intensity in [0, 1].
    share : float
        Weight of the new statistics, 0 to 1; the old ones get the rest.
    """
    norms = [
        module
        for module in encoder.modules()
        if isinstance(module, nn.BatchNorm3d) and module.track_running_stats
    ]
    old = [
        (norm.running_mean.clone(), norm.running_var.clone(), norm.momentum)  # type: ignore
        for norm in norms
    ]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for patch in patches:
            last = patch.contiguous(memory_format=torch.channels_last_3d)
            encoder.decode(last)  # type: ignore[operator]
    for norm, (mean, variance, momentum) in zip(norms, old, strict=True):
        norm.running_mean.lerp_(mean, 1.0 - share)  # type: ignore[union-attr]
        norm.running_var.lerp_(variance, 1.0 - share)  # type: ignore[union-attr]
        norm.momentum = momentum
        norm.eval()


def go_back(encoder: nn.Module, before: nn.Module, share: float) -> None:
    """Interpolate an encoder's weights and statistics toward the original ones, in place.

    Averaging the weights from before and after keeps most of what was learnt and
    forgets less (Wortsman et al., Robust fine-tuning of zero-shot models, 2022).
    """
    kept = before.state_dict()
    for name, value in encoder.state_dict().items():
        if value.is_floating_point():
            value.lerp_(kept[name], share)


def tasks_of(recipe: dict[str, Any], settings: AdaptSettings) -> PretrainSettings:
    """Return the pretext tasks of a recipe, set up for the patch pairs of an adaptation.

    A recipe with single views has no agreement loss. An adaptation is also judged by
    agreement, so it always gets that loss.
    """
    known = {parameter.name for parameter in fields(PretrainSettings)}
    values = {name: value for name, value in recipe.items() if name in known}
    if values.get("views", 2) < 2:
        values["agreement_weight"] = PretrainSettings().agreement_weight
    return PretrainSettings.from_dict(
        {**values, "patch_vox": settings.patch_vox, "batch": 1, "views": 2}
    )


def left_out(recipe: dict[str, Any]) -> tuple[str, ...]:
    """Return the artefacts that synthetic patches leave out.

    These are the ones that pretraining left out, and cut-off scans.
    """
    return tuple(
        dict.fromkeys((*names_in(str(recipe.get("without", ""))), *_LEFT_OUT_ARTEFACTS))
    )
