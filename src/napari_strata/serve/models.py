"""What clients can ask for: tissues, regions, strokes, teachings and codebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from napari_strata._version import __version__
from napari_strata.errors import ServeError
from napari_strata.labelling import (
    Cut,
    LabelSource,
    TreeKind,
    load_codebook,
    load_teaching,
)
from napari_strata.settings import ProposeSettings

ModelKind = Literal["segmentation", "scribbles"]
SCRIBBLES = "scribbles"
"""Name of the model that strokes teach."""
STRUCTURE = "structure"
"""Name of the empty segment that a client offers to stroke in."""
MOST_REGIONS = 1_000_000
_COUNTS: dict[TreeKind, int] = {"tissues": 16, "regions": 100}
"""Numbers that a client shows before anybody chose one."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a client calls a model: a way to label a scan.

    Parameters
    ----------
    name : str
        Its name in addresses.
    kind : {"segmentation", "scribbles"}
        Under which part of the client's window it stands.
    description : str
        One sentence for people.
    source : Cut, Codebook or Teaching, or None
        What decides the labels, without the client's choice of a number; None for
        strokes.
    labels : dict
        Names and ids of the labels, where they are known before a scan is.
    config : dict
        Parameters that the client may set, with their defaults; a list is a choice.
    """

    name: str
    kind: ModelKind
    description: str
    source: LabelSource | None
    labels: dict[str, int] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        """Return what `/info/` says about it."""
        return {
            "type": self.kind,
            "labels": self.labels,
            "dimension": 3,
            "description": self.description,
            "version": __version__,
            "config": self.config,
        }

    def chosen(self, params: dict[str, Any]) -> LabelSource:
        """Return what decides the labels, with the number that a client asks for.

        Raises
        ------
        ServeError
            If the number is no whole number from 1 up.
        """
        if not isinstance(self.source, Cut):
            if self.source is None:
                raise ServeError(f"The model {self.name} needs strokes.")
            return self.source
        count = params.get("n")
        if count is None or params.get("auto", False) is True:
            return Cut(self.source.tree)
        if isinstance(count, bool) or not isinstance(count, int):
            raise ServeError(
                f"n is {str(count)[:40]!r}. Give a whole number from 1 up."
            )
        if not 1 <= count <= MOST_REGIONS:
            raise ServeError(f"n is {count}. Give a number from 1 to {MOST_REGIONS}.")
        return Cut(self.source.tree, count)


def build_models(
    taught: Sequence[Path],
    codebooks: Sequence[Path],
    settings: ProposeSettings,
    weights: Path | None,
) -> dict[str, Model]:
    """Return the models of a server by name.

    Parameters
    ----------
    taught, codebooks : sequence of Path
        Teachings and codebooks; each gives a model with the name of its file.
    settings, weights : ProposeSettings, Path or None
        How the server proposes; they must belong to the same encoder.

    Raises
    ------
    TeachingError, CodebookError
        If one cannot be read, or belongs to another encoder.
    ServeError
        If two would have the same name.
    """
    models = [_cut_model("tissues"), _cut_model("regions"), _scribbles()]
    for path in taught:
        teaching = load_teaching(path, settings, weights)
        models.append(
            Model(
                f"taught:{path.stem}",
                "segmentation",
                f"The regions that strokes on another scan taught ({path.stem})",
                teaching,
                {region.name: region.id for region in teaching.regions},
            )
        )
    for path in codebooks:
        codebook = load_codebook(path, settings, weights)
        models.append(
            Model(
                f"codebook:{path.stem}",
                "segmentation",
                f"Tissues with the same numbers in every scan ({path.stem})",
                codebook,
                {region.name: region.id for region in codebook.regions},
            )
        )
    by_name = {model.name: model for model in models}
    if len(by_name) < len(models):
        raise ServeError(
            "Two teachings or codebooks have the same file name. Rename one of them."
        )
    return by_name


def _cut_model(tree: TreeKind) -> Model:
    what = (
        "Classes of similar regions, anywhere in the scan"
        if tree == "tissues"
        else "Connected regions"
    )
    return Model(
        tree,
        "segmentation",
        f"{what}; n of them, or with auto as many as the scan suggests",
        Cut(tree),
        config={"auto": True, "n": _COUNTS[tree]},
    )


def _scribbles() -> Model:
    return Model(
        SCRIBBLES,
        "scribbles",
        "Strokes on the structure and beside it teach what belongs to it",
        None,
        {STRUCTURE: 1},
        {"scope": ["everywhere", "here"]},
    )
