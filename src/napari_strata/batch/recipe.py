"""What is done with every scan of a batch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from napari_strata.batch.inputs.scans import PlannedScan
from napari_strata.errors import SettingsError
from napari_strata.io.files import hash_file
from napari_strata.pipeline import check_weights, encoder_in_use
from napari_strata.proposal.codebook.codebook import Codebook, check_encoder
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
        Into how many tissues or regions; at least 1.
    settings : ProposeSettings
        Knobs of the proposal.
    run : RunSettings
        Device, threads and seed. Threads are per scan; 0 takes one, so that labels do
        not depend on the machine.
    modality : {"ct", "mr"} or None
        How to read intensities, where the scans do not say.
    weights : Path or None
        Another encoder than the shipped one; see `propose`.
    codebook : Codebook or None
        Gives every scan the same tissue numbers; `tree` and `n` are then "tissues" and
        the codebook's.
    teaching : Teaching or None
        Gives every scan the regions that another scan's strokes taught; `tree` and `n`
        are then "tissues" and how many those are. Not together with a codebook.

    Raises
    ------
    SettingsError
        If `n` is less than 1, `tree` and `n` are not the codebook's or the teaching's,
        both are given, or weights are given to a method without an encoder.
    """

    tree: Literal["tissues", "regions"]
    n: int
    settings: ProposeSettings = field(default_factory=ProposeSettings)
    run: RunSettings = field(default_factory=RunSettings)
    modality: Modality | None = None
    weights: Path | None = None
    codebook: Codebook | None = None
    teaching: Teaching | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SettingsError(f"Asked for {self.n} {self.tree}. Ask for at least 1.")
        if self.codebook is not None and (self.tree, self.n) != (
            "tissues",
            self.codebook.n,
        ):
            raise SettingsError(
                f"Asked for {self.n} {self.tree}, but the codebook has"
                f" {self.codebook.n} tissues. Ask for those."
            )
        if self.teaching is not None and self.codebook is not None:
            raise SettingsError(
                "A scan gets the tissues of a codebook or the regions of a teaching,"
                " not both. Leave one out."
            )
        if self.teaching is not None and (self.tree, self.n) != (
            "tissues",
            len(self.teaching.regions),
        ):
            raise SettingsError(
                f"Asked for {self.n} {self.tree}, but {len(self.teaching.regions)}"
                " regions were taught. Ask for those."
            )
        check_weights(self.settings, self.weights)

    @property
    def threads(self) -> int:
        """CPU threads per scan."""
        return self.run.threads or 1

    @property
    def shared(self) -> tuple[Region, ...]:
        """All regions of the codebook or the teaching.

        Whose numbers mean the same in every scan; none without.
        """
        source = self.codebook or self.teaching
        return source.regions if source is not None else ()

    @property
    def shared_sha256(self) -> str | None:
        """Hash of what `shared` comes from."""
        source = self.codebook or self.teaching
        return source.sha256 if source is not None else None

    def with_codebook(self, codebook: Codebook) -> Recipe:
        """Give the same recipe with a codebook's tissues."""
        return replace(self, codebook=codebook, tree="tissues", n=codebook.n)

    def in_words(self) -> str:
        """Say how the labels are made.

        The cut, the seed, and the settings that are not the usual ones.
        """
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
        """Fail at once where every scan would.

        Without loading torch for a method that has no encoder.

        Raises
        ------
        WeightsError, SettingsError, CodebookError, TeachingError
            If the weights, the device, the codebook or the teaching cannot be used for
            any scan.
        """
        if find_method(self.settings.method).needs_encoder:
            from napari_strata.encoder.custom_network import open_encoder
            from napari_strata.encoder.network import pick_device

            open_encoder(self.weights)
            pick_device(self.run.device)
        if self.codebook is not None:
            check_encoder(self.codebook, encoder_in_use(self.settings, self.weights))
        if self.teaching is not None:
            self.teaching.check(
                self.teaching.modality, encoder_in_use(self.settings, self.weights)
            )

    def of(self, scan: PlannedScan) -> Recipe:
        """Give the recipe for one scan: its own codebook and modality go before.

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
        codebook = Codebook.load(scan.codebook)
        check_encoder(codebook, encoder_in_use(self.settings, self.weights))
        return own.with_codebook(codebook)

    def asked(self, scan: PlannedScan) -> dict[str, Any]:
        """Give what decides a scan's outputs besides its own contents, as the sidecar keeps it.

        `of` comes first.

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
