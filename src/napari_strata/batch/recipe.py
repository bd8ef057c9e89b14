"""Recipe of a batch: settings, cut, codebook or teaching for all scans."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.errors import SettingsError
from napari_strata.io.files import hash_file
from napari_strata.labelling import (
    Cut,
    LabelSource,
    TreeKind,
    check_source,
    load_codebook,
    region_count,
)
from napari_strata.pipeline import check_weights, encoder_in_use
from napari_strata.proposal.codebook.codebook import Codebook
from napari_strata.proposal.methods.registry import find_method
from napari_strata.refine.transfer import Teaching
from napari_strata.settings import ProposeSettings, RunSettings
from napari_strata.volume import Modality, Region


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done with every scan of a batch.

    Parameters
    ----------
    tree : {"tissues", "regions"}
        Which tree is cut.
    n : int
        Number of tissues or regions, at least 1.
    settings : ProposeSettings
        Settings of the proposal.
    run : RunSettings
        Device, threads and seed. Threads are per scan; 0 means one, so that labels do
        not depend on the machine.
    modality : {"ct", "mr"} or None
        How to read intensities, if the scans do not say.
    weights : Path or None
        Another encoder than the shipped one; see `propose`.
    codebook : Codebook or None
        Gives every scan the same tissue numbers; `tree` and `n` are then "tissues" and
        the codebook's.
    teaching : Teaching or None
        Gives every scan the regions that the strokes on another scan taught; `tree` and
        `n` are then "tissues" and their number. Not together with a codebook.

    Raises
    ------
    SettingsError
        If `n` is less than 1, `tree` and `n` are not the codebook's or the teaching's,
        both are given, or weights are given to a method without an encoder.
    """

    tree: TreeKind
    n: int
    settings: ProposeSettings = field(default_factory=ProposeSettings)
    run: RunSettings = field(default_factory=RunSettings)
    modality: Modality | None = None
    weights: Path | None = None
    codebook: Codebook | None = None
    teaching: Teaching | None = None

    def __post_init__(self) -> None:
        Cut(self.tree, self.n)  # checks the number
        if self.codebook is not None and (self.tree, self.n) != (
            "tissues",
            self.codebook.n,
        ):
            raise SettingsError(
                f"Asked for {self.n} {self.tree}, but the codebook has"
                f" {self.codebook.n} tissues. Ask for that many."
            )
        if self.teaching is not None and self.codebook is not None:
            raise SettingsError(
                "A scan gets the tissues of a codebook or the regions of a teaching,"
                " not both. Leave one out."
            )
        if self.teaching is not None and (self.tree, self.n) != (
            "tissues",
            region_count(self.teaching),
        ):
            raise SettingsError(
                f"Asked for {self.n} {self.tree}, but {len(self.teaching.regions)}"
                " regions were taught. Ask for that many tissues."
            )
        check_weights(self.settings, self.weights)

    @classmethod
    def of_source(
        cls,
        source: LabelSource,
        settings: ProposeSettings,
        run: RunSettings,
        *,
        modality: Modality | None = None,
        weights: Path | None = None,
    ) -> Recipe:
        """Return the recipe that labels every scan by a cut, a codebook or a teaching.

        Raises
        ------
        SettingsError
            If the number of regions of a cut is left to the scan: those of a batch
            could not be compared.
        """
        if isinstance(source, Cut):
            if source.n is None:
                raise SettingsError(
                    f"A batch needs a number of {source.tree}. Name one."
                )
            return cls(source.tree, source.n, settings, run, modality, weights)
        return cls(
            "tissues",
            region_count(source),
            settings,
            run,
            modality,
            weights,
            codebook=source if isinstance(source, Codebook) else None,
            teaching=source if isinstance(source, Teaching) else None,
        )

    @property
    def source(self) -> LabelSource:
        """What decides the labels: the codebook, the teaching, or a cut."""
        return self.codebook or self.teaching or Cut(self.tree, self.n)

    @property
    def threads(self) -> int:
        """CPU threads per scan."""
        return self.run.threads or 1

    @property
    def shared(self) -> tuple[Region, ...]:
        """Regions of the codebook or the teaching, the same in all scans; else none."""
        source = self.codebook or self.teaching
        return source.regions if source is not None else ()

    @property
    def shared_sha256(self) -> str | None:
        """Hash of the codebook or the teaching."""
        source = self.codebook or self.teaching
        return source.sha256 if source is not None else None

    def with_codebook(self, codebook: Codebook) -> Recipe:
        """Return the same recipe with a codebook's tissues."""
        return replace(self, codebook=codebook, tree="tissues", n=codebook.n)

    def in_words(self) -> str:
        """Return how the labels are made: cut, seed, and settings that are not defaults."""
        usual, own = ProposeSettings().to_dict(), self.settings.to_dict()
        shared = (
            "of a codebook "
            if self.codebook is not None
            else "that were taught "
            if self.teaching is not None
            else ""
        )
        source = self.codebook or self.teaching
        mark = f"({source.sha256[:12]}) " if source is not None else ""
        changed = "".join(
            f", {key} {value}" for key, value in own.items() if value != usual.get(key)
        )
        return (
            f"{self.n} {self.tree} {shared}{mark}".rstrip()
            + f", seed {self.run.seed}{changed}"
        )

    def check(self) -> None:
        """Check what would fail for every scan.

        Loads no runtime for a method without an encoder.

        Raises
        ------
        WeightsError, SettingsError, CodebookError, TeachingError
            If the weights, the device, the codebook or the teaching cannot be used for
            any scan.
        """
        if find_method(self.settings.method).needs_encoder:
            from napari_strata.encoder.runtime.select import open_runtime

            open_runtime(self.weights, runtime=self.run.runtime, device=self.run.device)
        check_source(self.source, self.settings, self.weights)

    def of(self, scan: PlannedScan) -> Recipe:
        """Return the recipe for one scan, with its own codebook and modality if it has some.

        Raises
        ------
        CodebookError
            If its codebook cannot be used.
        SettingsError
            If it has one, and a teaching is given for all.
        """
        own = replace(self, modality=scan.modality) if scan.modality else self
        if scan.codebook is None:
            return own
        codebook = load_codebook(scan.codebook, self.settings, self.weights)
        return own.with_codebook(codebook)

    def inputs_record(self, scan: PlannedScan) -> dict[str, Any]:
        """Return what decides a scan's outputs besides its contents, as sidecars keep it.

        Call it on the result of `of`.

        Raises
        ------
        ReadError
            If the scan's reference or case cannot be read.
        """
        batch: dict[str, Any] = {
            "id": scan.id,
            "series": scan.series,
            "modality": self.modality,
            "seed": self.run.seed,
        }
        if scan.index is not None:
            batch["index"] = scan.index
        if self.codebook is not None:
            batch["codebook"] = self.codebook.sha256
        if self.teaching is not None:
            batch["taught"] = self.teaching.sha256
        if scan.reference is not None:
            batch["reference"] = hash_file(scan.reference)
        if scan.replay is not None:
            batch["replay"] = hash_file(scan.replay)
        return {
            "settings": self.settings.to_dict(),
            "cut": {self.tree: self.n},
            "weights_sha256": encoder_in_use(self.settings, self.weights),
            "batch": batch,
        }
