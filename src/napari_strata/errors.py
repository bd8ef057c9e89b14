"""Typed exceptions; a message says what happened, with which input, and what to do.

The command line's top and the GUI worker's error slot turn a `StrataError` into one
line for the user. Anything else is a bug and keeps its traceback.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from napari_strata.filenames import printable


class StrataError(Exception):
    """Base of every error that a user can fix.

    Its text is one printable line, whatever file names it contains.

    Examples
    --------
    >>> try:
    ...     strata.read("no_such_scan.nii.gz")
    ... except strata.StrataError as reason:
    ...     print(type(reason).__name__)
    ReadError
    """

    def __str__(self) -> str:
        """Return the message, with unprintable characters of file names escaped."""
        return printable(super().__str__())


class ReadError(StrataError):
    """A file or folder could not be read as a scan or as labels."""


class ChoiceError(ReadError):
    """The input holds several scans (4D volumes, DICOM series); one has to be chosen.

    Parameters
    ----------
    message : str
        What the input holds, and which flag chooses.
    options : sequence of (str, dict)
        The choices: a description, and the arguments for `read` ("index" or
        "series").
    """

    def __init__(
        self, message: str, options: Sequence[tuple[str, Mapping[str, Any]]] = ()
    ) -> None:
        super().__init__(message)
        self.options = tuple(options)


class GeometryError(StrataError):
    """A scan's affine, shape or spacing cannot be used, or two grids do not match."""


class WriteError(StrataError):
    """An output could not be written; no file has its final name."""


class SettingsError(StrataError):
    """A setting is outside its limits, or unknown."""


class WeightsError(StrataError):
    """Encoder weights are missing, damaged or made for another network."""


class AdaptError(StrataError):
    """The encoder was not adapted; nothing was written.

    There are no scans, or adapting does not improve it.

    Parameters
    ----------
    message : str
        What happened and what to do.
    table : str
        The scores that speak against it, one per row; empty if none were computed.
    """

    def __init__(self, message: str, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class EditError(StrataError):
    """An edit cannot be carried out on the current regions; nothing was changed."""


class RegionError(StrataError):
    """A region does not exist, or a region table belongs to another proposal."""


class CaseError(StrataError):
    """A case file cannot be read, or belongs to another scan."""


class CodebookError(StrataError):
    """A codebook cannot be read, fitted or applied.

    It has another version, encoder or modality, or there is nothing to fit it to.
    """


class TeachingError(StrataError):
    """A teaching cannot be read, made or applied.

    Nothing was taught yet, or it has another version, encoder or modality.
    """


class ClusterError(StrataError):
    """Workers cannot be started or used.

    Dask is not installed, no worker answers, or a worker has other package versions.
    """


class WorkerError(StrataError):
    """The process that computes for a window ended before it was done.

    Parameters
    ----------
    message : str
        What happened and what to do.
    has_started : bool
        Whether it had begun with the job.
    """

    def __init__(self, message: str, *, has_started: bool = True) -> None:
        super().__init__(message)
        self.has_started = has_started


class Cancelled(StrataError):
    """Raised by a progress callable to stop the running work."""


class ServeError(StrataError):
    """The server cannot be started, or a client's request cannot be carried out.

    Parameters
    ----------
    message : str
        What happened and what to do.
    status : int
        HTTP status code of the answer to the client.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status
