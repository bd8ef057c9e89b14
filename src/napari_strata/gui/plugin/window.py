"""Opening napari with the panel docked, and the checks before it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.errors import ChoiceError, StrataError
from napari_strata.filenames import CASE_SUFFIX, printable
from napari_strata.gui.canvas.layers import LayerTuple, image_tuple
from napari_strata.gui.plugin.napari_open import read_case
from napari_strata.gui.preferences import starts_maximised

if TYPE_CHECKING:
    import napari.viewer

    from napari_strata.gui.panel.panel import StrataPanel

PLUGIN = "napari-strata"
WIDGET = "Strata"
"""The panel's display name in napari.yaml."""
OLDEST_NAPARI = (0, 7)
"""Oldest napari that the panel works with; pyproject.toml has the same number."""


def dock_panel(viewer: napari.viewer.Viewer) -> StrataPanel:
    """Return the panel docked in a viewer; dock it first if it is not."""
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    docked: StrataPanel = widget
    return docked


def open_viewer(
    path: str | Path | None = None, **read_options: Any
) -> napari.viewer.Viewer:
    """Open napari with the panel docked and, if a path is given, that scan or case.

    If the path holds several scans, the window asks which one. The caller starts the
    event loop with `napari.run()`.

    Parameters
    ----------
    path : str, Path or None
        A scan file, a DICOM folder, or a case (.strata).
    **read_options
        Passed to `napari_strata.read`: index, series, modality; none for a case.

    Raises
    ------
    StrataError
        If napari or a Qt binding is missing, napari is too old, or options are given
        for a case.
    ReadError, CaseError
        If the scan or case cannot be read; no window is opened then.
    """
    require_napari()
    require_qt()
    _share_contexts()
    import napari

    source = None if path is None else Path(path)
    layers, choices = (
        ([], ()) if source is None else _read_to_view(source, read_options)
    )
    viewer = napari.Viewer(
        title="Strata" if source is None else f"Strata: {printable(source.name)}",
        show_welcome_screen=source is None,
    )
    panel = dock_panel(viewer)
    if source is not None and choices:
        from napari_strata.gui.widgets.dialogs import ask_choice

        options = ask_choice(panel, source, choices)
        if options is not None:
            layers, _ = _read_to_view(source, {**read_options, **options})
    for data, kwargs, kind in layers:
        viewer.add_layer(napari.layers.Layer.create(data, kwargs, kind))
    if layers:
        panel.views.show_default_view()
    if starts_maximised():
        panel.window().showMaximized()
    return viewer


def view_scan(path: str | Path | None = None, **read_options: Any) -> None:
    """Open a scan in napari with the panel docked, and wait until the window is closed.

    See `open_viewer`.
    """
    open_viewer(path, **read_options)
    import napari

    napari.run()


def __getattr__(name: str) -> Any:
    """Return the panel's class, imported once napari is known to be recent enough."""
    if name != "StrataPanel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_napari()
    from napari_strata.gui.panel.panel import StrataPanel

    return StrataPanel


def require_napari() -> None:
    """Check that napari is installed and recent enough for the panel.

    Raises
    ------
    StrataError
        If it is missing, or older than `OLDEST_NAPARI`.
    """
    try:
        installed = version("napari")
    except PackageNotFoundError as err:
        raise StrataError(
            "Opening a window needs napari, which is not installed. Run: pip install"
            ' "napari-strata[gui]"'
        ) from err
    numbers = tuple(int(part) for part in re.findall(r"\d+", installed)[:2])
    if numbers < OLDEST_NAPARI:
        oldest = ".".join(str(part) for part in OLDEST_NAPARI)
        raise StrataError(
            f"This is napari {installed}, and Strata needs {oldest} or newer. Run: pip"
            ' install --upgrade "napari-strata[gui]"'
        )


def require_qt() -> None:
    """Check that a window can be opened.

    Raises
    ------
    StrataError
        If no Qt binding is installed.
    """
    try:
        import qtpy.QtWidgets  # noqa: F401
    except ImportError as err:
        raise StrataError(
            "Opening a window needs a Qt binding, and none is installed. Run: pip"
            ' install "napari-strata[gui]"'
        ) from err


def _read_to_view(
    path: Path, options: Mapping[str, Any]
) -> tuple[list[LayerTuple], Sequence[tuple[str, Mapping[str, Any]]]]:
    """Read a scan or a case as layers.

    If the path holds several scans, return no layers and the choices: a text and the
    options of `read` for each.
    """
    from napari_strata.io.files import read

    given = [name for name, value in options.items() if value is not None]
    if path.suffix == CASE_SUFFIX:
        if given:
            raise StrataError(
                f"{path.name} is a case and holds one scan. Leave out"
                f" {', '.join(given)}."
            )
        return read_case(path), ()
    try:
        return [image_tuple(read(path, **options))], ()
    except ChoiceError as err:
        if not err.options:
            raise
        return [], err.options


def _share_contexts() -> None:
    """Let the canvases of all windows share their objects on the graphics card.

    Works only before the application is made. Without it, vispy, which hears late of
    deleted layers, may delete what another window's canvas holds under the same number,
    and that window crashes when it is drawn next.
    """
    from qtpy.QtCore import QCoreApplication, Qt

    if QCoreApplication.instance() is None:
        QCoreApplication.setAttribute(Qt.ApplicationAttribute.AA_ShareOpenGLContexts)
