"""What a worker process does for a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_strata.proposal.proposal import Proposal
from napari_strata.refine.state.proposal_index import ProposalIndex
from napari_strata.volume import Progress, Volume


@dataclass(frozen=True, slots=True, eq=False)
class PreparedProposal:
    """A proposal, and lookups that edits need.

    Parameters
    ----------
    proposal : Proposal
        The proposal.
    lookups : mapping
        `ProposalIndex.slow_lookups` of it; empty if they are still to be computed.
    """

    proposal: Proposal
    lookups: Mapping[str, Any] = field(default_factory=dict)


def propose_prepared(
    volume: Volume, *, on_progress: Progress, **arguments: Any
) -> PreparedProposal:
    """Propose as `napari_strata.pipeline.propose` does, and prepare the first edit."""
    # the window imports this module, and does without the pipeline
    from napari_strata.pipeline import propose

    proposal = propose(volume, on_progress=on_progress, **arguments)
    on_progress(1, 1, "Preparing the edits")
    return PreparedProposal(proposal, ProposalIndex(proposal).slow_lookups())
