"""The command `strata teach`, and what `--taught` needs in `strata propose`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.cli.terminal import check_writable
from napari_strata.errors import WriteError
from napari_strata.filenames import printable
from napari_strata.settings import ProposeSettings

if TYPE_CHECKING:
    from napari_strata.proposal.proposal import Proposal
    from napari_strata.refine.transfer import Teaching, TransferredLabels

_SUFFIX = ".strata-teaching"


def add_commands(commands: Any) -> None:
    """Add `teach` to the command line."""
    parser = commands.add_parser(
        "teach",
        help=(
            "take what strokes on one scan taught, to apply it to others (propose"
            " --taught)"
        ),
    )
    parser.add_argument(
        "case", type=Path, help="case (.strata) with strokes or named regions"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=f"teaching to write ({_SUFFIX})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the choice of examples (default: 0)"
    )
    parser.set_defaults(run=_teach)


def open_teaching(
    path: Path, settings: ProposeSettings, weights: Path | None
) -> Teaching:
    """Read a teaching, and refuse another encoder before a scan is read.

    Raises
    ------
    TeachingError
        If it cannot be used.
    """
    from napari_strata.pipeline import encoder_in_use
    from napari_strata.refine.transfer import Teaching

    teaching = Teaching.load(path)
    teaching.check(teaching.modality, encoder_in_use(settings, weights))
    return teaching


def taught_labels(teaching: Teaching, proposal: Proposal) -> TransferredLabels:
    """Give a scan the taught regions; say so on stderr where the scan does not fit."""
    found = teaching.apply(proposal)
    if not found.fits:
        print(f"warning: {found.warning()}", file=sys.stderr)
    return found


def _teach(arguments: argparse.Namespace) -> None:
    check_writable(arguments.output)
    if arguments.output.suffix != _SUFFIX:
        raise WriteError(
            f"Cannot write {arguments.output}: the name must end in {_SUFFIX}."
        )
    from napari_strata.refine.session.refinement import Refinement

    teaching = Refinement.load(arguments.case).teach(seed=arguments.seed)
    teaching.save(arguments.output)
    print(
        f"{printable(arguments.output)}:"
        f" {', '.join(region.name for region in teaching.regions)}"
    )
