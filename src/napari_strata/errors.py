"""Typed exceptions: each says what happened, with which input, and what to do.

The command line's top and the GUI worker's error slot turn a `StrataError` into one
line for the user. Anything else is a bug and keeps its traceback.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from napari_strata.filenames import printable


class StrataError(Exception):
    """Base of every error that a user can mend.

    Its text is one line that can be shown, whatever names stand in it.

    Examples
    --------
    >>> try:
    ...     strata.read("no_such_scan.nii.gz")
    ... except strata.StrataError as reason:
    ...     print(type(reason).__name__)
    ReadError
    """

    def __str__(self) -> str:
        """Give the message, with characters of file names that cannot be shown escaped."""
        return printable(super().__str__())


class ReadError(StrataError):
    """A file or folder could not be read as a scan or as labels."""


class ChoiceError(ReadError):
    """The input holds several scans (4D volumes, DICOM series) and one has to be chosen.

    Parameters
    ----------
    message : str
        What it holds, and how a command chooses.
    options : sequence of (str, dict)
        What can be chosen: words for people, and what `read` takes for it ("index" or
        "series").
    """

    def __init__(
        self, message: str, options: Sequence[tuple[str, Mapping[str, Any]]] = ()
    ) -> None:
        super().__init__(message)
        self.options = tuple(options)


class GeometryError(StrataError):
    """The affine, shape or spacing of a scan cannot be used, or two grids do not match."""


class WriteError(StrataError):
    """An output could not be written; nothing stands under its final name."""


class SettingsError(StrataError):
    """A setting is outside its limits or not known."""


class WeightsError(StrataError):
    """Encoder weights are missing, damaged or made for another network."""


class AdaptError(StrataError):
    """The encoder was not adapted.

    There are no scans, or it would not have got better; nothing was written.

    Parameters
    ----------
    message : str
        What happened and what to do.
    table : str
        The figures that spoke against it, a row each; empty if it did not come so far.
    """

    def __init__(self, message: str, table: str = "") -> None:
        super().__init__(message)
        self.table = table


class EditError(StrataError):
    """An edit cannot be carried out on the current regions; nothing was changed."""


class RegionError(StrataError):
    """A region that is asked about is not there.

    Or the table of regions belongs to another proposal.
    """


class CaseError(StrataError):
    """A case file cannot be read, or belongs to another scan."""


class CodebookError(StrataError):
    """A codebook cannot be read, fitted or applied.

    Another version, encoder or modality, or nothing to fit it to.
    """


class TeachingError(StrataError):
    """A teaching cannot be read, made or applied.

    Nothing taught yet, or another version, encoder or modality.
    """


class ClusterError(StrataError):
    """Workers cannot be started or used.

    Dask is not installed, nobody answers, or a worker is not like this machine.
    """


class Cancelled(StrataError):
    """Raised by a progress callable to stop the work in hand."""
