"""Errors as napari notifications."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from napari.utils.notifications import show_error

from napari_strata.errors import StrataError


@contextmanager
def notify_errors() -> Generator[None]:
    """Show a `StrataError` as a napari notification; raise any other error, it is a bug."""
    try:
        yield
    except StrataError as err:
        show_error(str(err))
