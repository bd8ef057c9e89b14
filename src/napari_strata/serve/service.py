"""What the server does, without the web: scans in, labels out.

`routes` turns requests into calls of `Service` and its results into answers.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_strata._version import __version__
from napari_strata.errors import ServeError, StrataError
from napari_strata.export.files import read_labels
from napari_strata.io.atomic import file_suffix
from napari_strata.io.files import hash_file, raw_labels
from napari_strata.labelling import label_proposal
from napari_strata.proposal.codebook.codebook import Codebook
from napari_strata.proposal.proposal import Proposal
from napari_strata.serve.answers import label_names
from napari_strata.serve.models import STRUCTURE, Model
from napari_strata.serve.open_scans import OpenScan, OpenScans, Proposer
from napari_strata.serve.sources import ImageSource
from napari_strata.serve.store import Store, StoredLabel, StoredScan
from napari_strata.serve.strokes import StrokeWork, stroke_request
from napari_strata.serve.uploads import (
    RAW_SUFFIX,
    Upload,
    check_scan,
    store_labels,
    store_scan,
)
from napari_strata.settings import ServeSettings
from napari_strata.volume import Segmentation, Volume

logger = logging.getLogger(__name__)

STRATEGIES = {
    "first": "The first image without submitted labels",
    "random": "Any image without submitted labels",
}
"""How the next image is chosen, and what that means."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Labels for a client.

    Parameters
    ----------
    segmentation : Segmentation
        The labels.
    volume : Volume
        The scan.
    params : dict
        What is told beside them.
    folder : Path
        The scan's folder, for the answer's file.
    """

    segmentation: Segmentation
    volume: Volume
    params: dict[str, Any]
    folder: Path


class Service:
    """The server without the web.

    Parameters
    ----------
    store : Store
        Scans and labels.
    models : dict of Model
        What clients can ask for, by name.
    proposer : callable
        Makes a proposal of a volume.
    settings : ServeSettings
        The bounds.
    source : ImageSource or None
        Where scans come from that clients name but did not send.
    """

    def __init__(
        self,
        store: Store,
        models: Mapping[str, Model],
        proposer: Proposer,
        settings: ServeSettings,
        *,
        source: ImageSource | None = None,
    ) -> None:
        self.store, self.models, self.settings = store, models, settings
        self._scans = OpenScans(proposer, settings, keeps=store.keeps)
        self._source = source
        self._pulling = threading.Lock()

    # What there is

    def info(self) -> dict[str, Any]:
        """Return the answer to `/info/`."""
        names = {STRUCTURE: None}
        for model in self.models.values():
            names.update(dict.fromkeys(model.labels))
        return {
            "name": "Strata",
            "description": "Regions of 3D MRI and CT scans; it proposes, a person decides",
            "version": __version__,
            # OHIF drops the first label, 3D Slicer skips this name
            "labels": ["background", *names],
            "models": {name: model.info() for name, model in self.models.items()},
            "trainers": {},
            "strategies": {
                name: {"description": text} for name, text in STRATEGIES.items()
            },
            "scoring": {},
            "train_stats": {},
            "datastore": self.statistics(),
        }

    def statistics(self) -> dict[str, Any]:
        """Return how many images there are, and how many have labels."""
        images = self.store.images()
        tags: dict[str, int] = {}
        for image in images:
            for tag in image.labels:
                tags[tag] = tags.get(tag, 0) + 1
        return {
            "total": len(images),
            "completed": sum(bool(image.labels) for image in images),
            "label_tags": tags,
        }

    def scan(self, scan_id: str) -> StoredScan:
        """Return a scan by the client's name for it, or by its session.

        Raises
        ------
        ServeError
            If there is none.
        """
        scan = self.store.get(scan_id)
        if scan is None and self._source is not None:
            scan = self._pulled(self._source, scan_id)
        if scan is None:
            raise ServeError("The server has no such scan. Send it first.", 404)
        return scan

    def _pulled(self, source: ImageSource, scan_id: str) -> StoredScan | None:
        """Fetch a scan that a client named; None if the source has none."""
        with self._pulling:
            if (scan := self.store.get(scan_id)) is not None:
                return scan  # another request fetched it meanwhile
            folder = self.store.new_folder(scan_id)
            try:
                file = source.pull(scan_id, folder)
                if file is None:
                    shutil.rmtree(folder, ignore_errors=True)
                    return None
                check_scan(folder / file, self.settings.max_scan_mvox)
                return self._added(folder, file, scan_id, 0.0)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise

    def message(self, err: StrataError) -> str:
        """Return the text of an error, without folders of the server."""
        return re.sub(rf"{re.escape(str(self.store.root))}(/[^/\s]+/?)?", "", str(err))

    # Scans come and go

    def add_scan(
        self,
        uploads: Sequence[Upload],
        *,
        scan_id: str = "",
        expiry_s: float = 0.0,
        unpack: bool = False,
    ) -> StoredScan:
        """Store a scan that a client sent.

        Parameters
        ----------
        uploads : sequence of Upload
            One file, or the files of a DICOM series.
        scan_id : str
            The client's name for it; "" for a session.
        expiry_s : float
            Time after its last use at which it is removed, in seconds.
        unpack : bool
            Whether the file is an archive.

        Raises
        ------
        ServeError, ReadError
            If it is not accepted; nothing of it stays then.
        """
        self.sweep()
        folder = self.store.new_folder(scan_id)
        try:
            file = store_scan(
                uploads,
                folder,
                max_mvox=self.settings.max_scan_mvox,
                max_bytes=self.settings.max_upload_mb * 1_000_000,
                unpack=unpack,
            )
            return self._added(folder, file, scan_id, expiry_s)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _added(
        self, folder: Path, file: str, scan_id: str, expiry_s: float
    ) -> StoredScan:
        before = self.store.get(scan_id) if scan_id else None
        if before and hash_file(before.path) == hash_file(folder / file):
            # 3D Slicer sends a scan again with its labels
            shutil.rmtree(folder, ignore_errors=True)
            return before
        scan, removed = self.store.add(folder, file, scan_id=scan_id, expiry_s=expiry_s)
        for one in removed:
            self._scans.drop(one)
        return scan

    def remove_scan(self, scan_id: str) -> StoredScan:
        """Remove a scan, its proposal and its labels.

        Raises
        ------
        ServeError
            If there is none.
        """
        scan = self.store.remove(scan_id)
        if scan is None:
            raise ServeError("The server has no such scan.", 404)
        self._scans.drop(scan)
        return scan

    def sweep(self) -> None:
        """Remove the scans whose time is over."""
        for scan in self.store.scans():
            if self._scans.is_busy(scan):
                self.store.get(scan.id)  # it is in use
        for scan in self.store.sweep():
            self._scans.drop(scan)

    def close(self) -> None:
        """End all work."""
        self._scans.close()

    # Labels

    def infer(
        self,
        model_name: str,
        scan: StoredScan,
        params: dict[str, Any],
        label: Upload | None,
    ) -> Labelled:
        """Return the labels that a model gives a scan.

        Parameters
        ----------
        model_name : str
            The model.
        scan : StoredScan
            The scan.
        params : dict
            What the client chose.
        label : Upload or None
            The client's labels with strokes.

        Raises
        ------
        StrataError
            If it cannot be done.
        """
        model = self.models.get(model_name)
        if model is None:
            raise ServeError(
                f"There is no model {model_name[:80]!r}. There are:"
                f" {', '.join(self.models)}.",
                404,
            )
        start = time.perf_counter()
        with self._scans.use(scan) as open_scan:
            was_there = open_scan.proposal is not None
            proposal = self._scans.proposal(open_scan)
            proposed = time.perf_counter()
            labelled = (
                self._taught(open_scan, proposal, params, label)
                if model.source is None
                else self._labelled(model, proposal, params)
            )
        end = time.perf_counter()
        segmentation, told = labelled
        told["label_names"] = label_names(segmentation)
        told["latencies"] = {
            "proposal": 0.0 if was_there else round(proposed - start, 3),
            "labels": round(end - proposed, 3),
            "total": round(end - start, 3),
        }
        return Labelled(segmentation, proposal.volume, told, scan.folder)

    def _labelled(
        self, model: Model, proposal: Proposal, params: dict[str, Any]
    ) -> tuple[Segmentation, dict[str, Any]]:
        source = model.chosen(params)
        if isinstance(source, Codebook):
            source.check_modality(proposal.volume.modality)
        labelled = label_proposal(proposal, source)
        return labelled.segmentation, {
            "cut": labelled.cut,
            **labelled.provenance,
            **({"warning": labelled.warning} if labelled.warning else {}),
        }

    def _taught(
        self,
        open_scan: OpenScan,
        proposal: Proposal,
        params: dict[str, Any],
        label: Upload | None,
    ) -> tuple[Segmentation, dict[str, Any]]:
        """Return what the strokes in a client's labels teach."""
        if label is None:
            raise ServeError("Strokes come as a label file, the part called label.")
        given = self._read_labels(open_scan.stored, label, proposal.volume)
        request = stroke_request(given, params, proposal)
        work = open_scan.work or StrokeWork(proposal)
        return work.answer(request), {}

    def _read_labels(
        self, scan: StoredScan, label: Upload, volume: Volume
    ) -> Segmentation:
        path = store_labels(
            label,
            scan.folder,
            "strokes",
            raw=True,
            max_mvox=self.settings.max_scan_mvox,
        )
        try:
            if file_suffix(path) == RAW_SUFFIX:
                return raw_labels(path, volume.geometry)
            return read_labels(path)
        finally:
            path.unlink(missing_ok=True)

    def save_label(
        self, scan: StoredScan, tag: str, label: Upload, info: dict[str, Any]
    ) -> StoredLabel:
        """Store labels that a client submits; they must be readable as labels.

        Raises
        ------
        StrataError
            If they are not.
        """
        self.store.check_disk()
        folder = self.store.new_folder()
        try:
            path = store_labels(
                label, folder, "labels", raw=True, max_mvox=self.settings.max_scan_mvox
            )
            suffix = file_suffix(path)
            if suffix != RAW_SUFFIX:
                read_labels(path)
            moved = scan.folder / folder.name
            path.rename(moved)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return self.store.put_label(scan, tag, moved, suffix, info)
