"""Series of a PACS, fetched through DICOMweb (QIDO-RS and WADO-RS) when a client names them.

Only the server's own address is asked, and no redirect is followed: what a client sends
is a UID, digits and dots, and can name no other place.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from napari_strata.errors import ServeError
from napari_strata.serve.uploads import MAX_FILES, SLICES

logger = logging.getLogger(__name__)

LOGIN_VARIABLE = "STRATA_DICOMWEB_LOGIN"
"""Environment variable with "user:password" or "Bearer TOKEN" for the PACS."""
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64
_STUDY = "0020000D"
_TIMEOUT_S = 60.0
_CHUNK = 1 << 16
_LONGEST_HEAD = 10_000


class DicomWeb:
    """A PACS that answers DICOMweb requests.

    Parameters
    ----------
    url : str
        Its address, such as http://localhost:8042/dicom-web.
    max_bytes : int
        Largest series that is fetched.
    login : str
        "user:password", "Bearer TOKEN", or "" for none.

    Raises
    ------
    ServeError
        If the address is none.
    """

    def __init__(self, url: str, max_bytes: int, login: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServeError(
                f"{url!r} is no address. Write one as http://localhost:8042/dicom-web."
            )
        if parts.username or parts.password:
            raise ServeError(f"Put user and password into {LOGIN_VARIABLE}.")
        self._url = urlunsplit(
            (parts.scheme, parts.netloc, parts.path.rstrip("/"), "", "")
        )
        self._max_bytes = max_bytes
        self._headers = _authorization(login)
        self._opener = build_opener(_NoRedirect())

    @classmethod
    def from_environment(cls, url: str, max_bytes: int) -> DicomWeb:
        """Return a PACS with the log-in of the environment, if there is one."""
        return cls(url, max_bytes, os.environ.get(LOGIN_VARIABLE, ""))

    def pull(self, image_id: str, folder: Path) -> str | None:
        """Fetch a series by its UID; see `ImageSource.pull`.

        Raises
        ------
        ServeError
            If the PACS cannot be reached, or the series is too large or damaged.
        """
        if len(image_id) > _LONGEST_UID or not _UID.fullmatch(image_id):
            return None
        study = self._study_of(image_id)
        if study is None:
            return None
        (folder / SLICES).mkdir()
        with self._ask(
            f"/studies/{study}/series/{image_id}",
            'multipart/related; type="application/dicom"; transfer-syntax=*',
        ) as answer:
            count = self._store_parts(answer, folder / SLICES)
        if count == 0:
            return None
        logger.info("pulled a series of %d files", count)
        return SLICES

    def _study_of(self, series: str) -> str | None:
        """Return the study of a series; None if the PACS has no such series."""
        with self._ask(
            f"/series?SeriesInstanceUID={series}&includefield={_STUDY}",
            "application/dicom+json",
        ) as answer:
            if answer.status == 204:
                return None
            text = answer.read(self._max_bytes)
        try:
            found = json.loads(text)
            study = str(found[0][_STUDY]["Value"][0]) if found else ""
        except (ValueError, KeyError, IndexError, TypeError) as err:
            raise ServeError("The PACS gave a damaged answer.", 502) from err
        if not study:
            return None
        if len(study) > _LONGEST_UID or not _UID.fullmatch(study):
            raise ServeError("The PACS named a study that is no UID.", 502)
        return study

    def _ask(self, path: str, accept: str) -> HTTPResponse:
        """Return the answer of the PACS, to be read and closed."""
        request = Request(self._url + path, headers={"Accept": accept, **self._headers})
        try:
            answer: HTTPResponse = self._opener.open(request, timeout=_TIMEOUT_S)
        except HTTPError as err:
            with err:
                status = 404 if err.code == 404 else 502
                raise ServeError(
                    f"The PACS answered {err.code}. Check --dicomweb and the log-in.",
                    status,
                ) from err
        except (URLError, OSError, HTTPException) as err:
            raise ServeError(
                "The PACS cannot be reached. Check --dicomweb, and that it runs.", 502
            ) from err
        return answer

    def _store_parts(self, answer: HTTPResponse, folder: Path) -> int:
        """Write each part of a multipart answer to a file; return how many there were."""
        boundary = answer.headers.get_param("boundary")
        if not isinstance(boundary, str) or not boundary:
            raise ServeError("The PACS gave a damaged answer.", 502)
        reader = _Parts(answer, b"--" + boundary.encode("latin-1"), self._max_bytes)
        count = 0
        try:
            while reader.next_part():
                if count == MAX_FILES:
                    raise ServeError("The series has too many files.", 413)
                with (folder / f"{count:06d}.dcm").open("xb") as file:
                    reader.copy(file)
                count += 1
        except (OSError, HTTPException) as err:
            raise ServeError(
                "The connection to the PACS broke. Try again.", 502
            ) from err
        return count


class _NoRedirect(HTTPRedirectHandler):
    """Follow no redirect: the PACS is where the command says."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        """Return nothing, so that the answer counts as an error."""


def _authorization(login: str) -> dict[str, str]:
    if not login:
        return {}
    if login.startswith("Bearer "):
        return {"Authorization": login}
    coded = base64.b64encode(login.encode()).decode("ascii")
    return {"Authorization": f"Basic {coded}"}


class _Parts:
    """Reader of the parts of a multipart body, in pieces."""

    def __init__(self, source: Any, mark: bytes, most: int) -> None:
        self._source, self._mark, self._left = source, mark, most
        self._held, self._is_begun = b"", False

    def _more(self) -> bool:
        chunk = self._source.read(_CHUNK)
        self._left -= len(chunk)
        if self._left < 0:
            raise ServeError("The series is larger than allowed.", 413)
        self._held += chunk
        return bool(chunk)

    def next_part(self) -> bool:
        """Go to the start of the next part; return whether there is one.

        Raises
        ------
        ServeError
            If the body ends early.
        """
        if not self._is_begun:
            while self._mark not in self._held:
                if len(self._held) > _LONGEST_HEAD or not self._more():
                    return False
            self._held = self._held.split(self._mark, 1)[1]
            self._is_begun = True
        while b"\r\n\r\n" not in self._held:
            if self._held.startswith(b"--"):
                return False
            if len(self._held) > _LONGEST_HEAD or not self._more():
                raise _cut_short()
        self._held = self._held.split(b"\r\n\r\n", 1)[1]
        return True

    def copy(self, target: IO[bytes]) -> None:
        """Write the part to a file.

        Raises
        ------
        ServeError
            If the body ends early.
        """
        end = b"\r\n" + self._mark
        while (place := self._held.find(end)) < 0:
            keep = len(end) - 1
            target.write(self._held[:-keep])
            self._held = self._held[-keep:]
            if not self._more():
                raise _cut_short()
        target.write(self._held[:place])
        self._held = self._held[place + len(end) :]
        while len(self._held) < 2 and self._more():
            pass


def _cut_short() -> ServeError:
    return ServeError("The answer of the PACS ended early. Try again.", 502)
