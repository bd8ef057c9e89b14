"""Where scans come from that clients name but did not send, such as a PACS."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ImageSource(Protocol):
    """A place to fetch scans from.

    OHIF names a series and expects the server to fetch it; a source for DICOMweb makes
    that possible.
    """

    def pull(self, image_id: str, folder: Path) -> str | None:
        """Fetch a scan into a folder.

        Parameters
        ----------
        image_id : str
            The client's name for it; OHIF sends the SeriesInstanceUID.
        folder : Path
            An empty folder.

        Returns
        -------
        str or None
            Name of the scan's file, or of the folder with its slices, in `folder`; None
            if the source has no such scan.

        Raises
        ------
        ServeError
            If the source cannot be reached.
        """
        ...
