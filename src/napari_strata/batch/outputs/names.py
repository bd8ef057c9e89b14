"""File names in the folder of a batch, in one place.

Tables are made in `tables.py`, the page in `page.py`, the files of each scan in
`batch/one_scan.py`. A new name of a file that is no BIDS file also belongs in `NOT_BIDS`,
a new ending in `UNFINISHED_SUFFIXES`.
"""

from __future__ import annotations

from napari_strata.filenames import CODEBOOK_SUFFIX

VOLUMES, SCANS, FAILURES = "volumes.tsv", "scans.tsv", "failures.tsv"
"""Tables that every batch writes."""
CHANGES, AGREEMENT, REPLAY = "changes.tsv", "agreement.tsv", "replay.tsv"
"""Tables that are written where there are follow-ups, references or replayed edits."""
PAGE = "qc.html"
"""The page over all scans."""
THUMBNAILS = "qc"
"""Folder of the pictures on the page."""
LOG = "batch.jsonl"
"""The log of all runs."""
COHORT_CODEBOOK = f"cohort{CODEBOOK_SUFFIX}"
"""The codebook that was fitted to a sample of the scans."""
LABELS_STEM = "_labels"
"""What follows the id of a scan in the names of its labels, sidecar and table."""
BIDS_LABELS_STEM = "_dseg"
"""The same in a BIDS derivative data set."""
NOT_BIDS = (
    "*.html",
    LOG,
    f"cohort*{CODEBOOK_SUFFIX}",
    VOLUMES,
    SCANS,
    FAILURES,
    CHANGES,
    AGREEMENT,
    REPLAY,
    THUMBNAILS,
)
"""Patterns for .bidsignore: outputs of a batch that BIDS does not know."""
UNFINISHED_SUFFIXES = (".tsv", ".html", ".webp", ".md", CODEBOOK_SUFFIX)
"""Endings of temporary files that only a batch writes, under names like .strata-*.

A killed batch may have left some; those of other commands have other endings.
"""
