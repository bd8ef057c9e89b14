"""What the manifest names but for writers.

Reader, sample data and commands (Qt only where a command needs it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_strata.errors import ChoiceError, StrataError
from napari_strata.filenames import SCAN_SUFFIXES, printable
from napari_strata.gui.canvas.layers import LayerTuple, image_tuple, labels_tuple
from napari_strata.gui.canvas.placement import METADATA_KEY
from napari_strata.gui.plugin.writers import CASE_SUFFIX, has_window

if TYPE_CHECKING:
    import napari.viewer

    from napari_strata.gui.panel.panel import StrataPanel

PLUGIN = "napari-strata"
WIDGET = "Strata"
OLDEST_NAPARI = (0, 7)
"""As pyproject.toml has it."""

_NO_LAYERS: Any = ((None,),)
"""How a reader tells napari that it read the file and there is nothing to show."""


def get_reader(
    path: str | Sequence[str],
) -> Callable[[str | Sequence[str]], list[LayerTuple]] | None:
    """Give a reader for scans and label files, None for what is neither.

    A folder is taken when it holds DICOM files. Several paths are read one by one.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return read_layers if paths and all(_is_known(Path(one)) for one in paths) else None


def read_layers(path: str | Sequence[str]) -> list[LayerTuple]:
    """Read scans as image layers, exported labels as labels layers, and cases as both.

    The panel goes on with a case.
    """
    from napari_strata.io.files import read_labels

    layers: list[LayerTuple] = []
    for one in [path] if isinstance(path, str) else path:
        source = Path(one)
        if source.suffix == CASE_SUFFIX:
            layers += _read_case(source)
        elif _has_region_table(source):
            layers.append(labels_tuple(read_labels(source), name=_stem(source)))
        else:
            layers += _read_scan(source)
    return layers or list(_NO_LAYERS)


def sample_head_t1() -> list[LayerTuple]:
    """Make the sample head, T1-weighted MR."""
    return _sample("head_t1")


def sample_chest_ct() -> list[LayerTuple]:
    """Make the sample chest and abdomen CT."""
    return _sample("chest_ct")


def sample_thick_t2() -> list[LayerTuple]:
    """Make the sample head, T2-weighted MR in thick slices."""
    return _sample("thick_t2")


def propose(viewer: napari.viewer.Viewer) -> None:
    """Open the panel and propose regions for the scan in hand."""
    panel(viewer).start_proposal()


def merge(viewer: napari.viewer.Viewer) -> None:
    """Merge the selected regions."""
    panel(viewer).edit("merge")


def split(viewer: napari.viewer.Viewer) -> None:
    """Split the selected regions."""
    panel(viewer).edit("split")


def update(viewer: napari.viewer.Viewer) -> None:
    """Apply the strokes."""
    panel(viewer).edit("update")


def undo(viewer: napari.viewer.Viewer) -> None:
    """Undo the last edit."""
    panel(viewer).edit("undo")


def redo(viewer: napari.viewer.Viewer) -> None:
    """Redo the last edit that was undone."""
    panel(viewer).edit("redo")


def scribble(viewer: napari.viewer.Viewer) -> None:
    """Take the scribble brush in hand."""
    panel(viewer).use_tool("scribble")


def paint(viewer: napari.viewer.Viewer) -> None:
    """Take the paint brush in hand."""
    panel(viewer).use_tool("paint")


def cut(viewer: napari.viewer.Viewer) -> None:
    """Take the cutting line in hand."""
    panel(viewer).use_tool("cut")


def accept(viewer: napari.viewer.Viewer) -> None:
    """Accept the selected regions."""
    panel(viewer).editor.use_region_tool("accept")


def next_place(viewer: napari.viewer.Viewer) -> None:
    """Go to the next place worth a look."""
    panel(viewer).looker.next()


def why(viewer: napari.viewer.Viewer) -> None:
    """Explain the selected region."""
    panel(viewer).explain("card")


def surfaces(viewer: napari.viewer.Viewer) -> None:
    """Show the selected regions as surfaces."""
    panel(viewer).viewing.show_surfaces()


def three_planes(viewer: napari.viewer.Viewer) -> None:
    """Show the other two planes beside the canvas, or take them away."""
    panel(viewer).scan.buttons["planes"].toggle()


def ruler(viewer: napari.viewer.Viewer) -> None:
    """Take the ruler in hand, or put it down."""
    panel(viewer).scan.buttons["ruler"].toggle()


def export(viewer: napari.viewer.Viewer) -> None:
    """Ask where labels go, and export them."""
    panel(viewer).export.export.click()


def save_case(viewer: napari.viewer.Viewer) -> None:
    """Ask where the case goes, and save it."""
    panel(viewer).export.save.click()


def compare(viewer: napari.viewer.Viewer) -> None:
    """Show the scan in hand beside an earlier one."""
    panel(viewer).compare()


def keys(viewer: napari.viewer.Viewer) -> None:
    """Show every key and mouse gesture."""
    panel(viewer).show_help()


def tour(viewer: napari.viewer.Viewer) -> None:
    """Take the tour of the panel."""
    panel(viewer).tour.begin()


def panel(viewer: napari.viewer.Viewer) -> StrataPanel:
    """Give the panel docked in a viewer; docks it first where it is not."""
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, WIDGET)
    docked: StrataPanel = widget
    return docked


def open_viewer(
    path: str | Path | None = None, **read_options: Any
) -> napari.viewer.Viewer:
    """Open napari with the panel docked and, where a path is given, that scan or case.

    Where there are several scans, a person is asked in the window which one. The caller
    starts the event loop with `napari.run()`.

    Parameters
    ----------
    path : str, Path or None
        A scan file, a DICOM folder, or a case (.strata).
    **read_options
        Passed to `napari_strata.read`: index, series, modality; none for a case.

    Raises
    ------
    StrataError
        If no Qt binding is installed, napari is too old, or options are given for a
        case.
    ReadError, CaseError
        If the scan or case cannot be read; no window is opened then.
    """
    require_qt()
    require_napari()
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
    docked = panel(viewer)
    if source is not None and choices:
        from napari_strata.gui.widgets.dialogs import ask_choice

        options = ask_choice(docked, source, choices)
        if options is not None:
            layers, _ = _read_to_view(source, {**read_options, **options})
    for data, kwargs, kind in layers:
        viewer.add_layer(napari.layers.Layer.create(data, kwargs, kind))
    if layers:
        docked.viewing.show_default_view()
    return viewer


def view_scan(path: str | Path | None = None, **read_options: Any) -> None:
    """Open a scan in napari with the panel docked, and return when the window is closed.

    See `open_viewer`.
    """
    open_viewer(path, **read_options)
    import napari

    napari.run()


def __getattr__(name: str) -> Any:
    """Give napari the panel's class.

    Is imported only once napari is known to be recent enough for it.
    """
    if name != "StrataPanel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require_napari()
    from napari_strata.gui.panel.panel import StrataPanel

    return StrataPanel


def require_napari() -> None:
    """Check that napari is recent enough for the panel.

    Raises
    ------
    StrataError
        If it is older than `OLDEST_NAPARI`.
    """
    found = version("napari")
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < OLDEST_NAPARI:
        needed = ".".join(str(part) for part in OLDEST_NAPARI)
        raise StrataError(
            f"This is napari {found}, and Strata needs {needed} or newer. Run: pip"
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


def _read_scan(path: Path) -> list[LayerTuple]:
    """Read a scan; where there are several and a window to ask in.

    The one that a person chooses, or none of them.
    """
    from napari_strata.io.files import read

    try:
        return [image_tuple(read(path))]
    except ChoiceError as err:
        if not err.options or not has_window():
            raise
        from napari_strata.gui.widgets.dialogs import ask_choice

        options = ask_choice(None, path, err.options)
    return [] if options is None else [image_tuple(read(path, **options))]


def _read_to_view(
    path: Path, options: Mapping[str, Any]
) -> tuple[list[LayerTuple], Sequence[tuple[str, Mapping[str, Any]]]]:
    """Read a scan or a case.

    Where there are several scans, give what can be chosen instead (options of `read`).
    """
    from napari_strata.io.files import read

    given = [name for name, value in options.items() if value is not None]
    if path.suffix == CASE_SUFFIX:
        if given:
            raise StrataError(
                f"{path.name} is a case and holds one scan. Leave out"
                f" {', '.join(given)}."
            )
        return _read_case(path), ()
    try:
        return [image_tuple(read(path, **options))], ()
    except ChoiceError as err:
        if not err.options:
            raise
        return [], err.options


def _share_contexts() -> None:
    """Let the canvases of all windows share what they hold on the graphics card.

    Only before the application is made.

    Otherwise vispy, which is told of deleted layers late, may delete what another
    window's canvas holds under the same number, and that window goes down when it is
    drawn next.
    """
    from qtpy.QtCore import QCoreApplication, Qt

    if QCoreApplication.instance() is None:
        QCoreApplication.setAttribute(Qt.ApplicationAttribute.AA_ShareOpenGLContexts)


def _read_case(path: Path) -> list[LayerTuple]:
    from napari_strata.gui.canvas.layers import case_labels_tuple
    from napari_strata.refine.session.refinement import Refinement

    work = Refinement.load(path)
    layers = [
        image_tuple(work.volume),
        case_labels_tuple(work, name=f"{_stem(path)} regions"),
    ]
    for _, kwargs, _ in layers:
        kwargs["metadata"][METADATA_KEY] |= {"work": work, "saved": work.history}
    return layers


def _sample(name: str) -> list[LayerTuple]:
    from napari_strata.synthesis.samples import make_sample

    volume, truth = make_sample(name)
    data, kwargs, kind = labels_tuple(truth, name=f"{volume.name} truth")
    return [image_tuple(volume), (data, {**kwargs, "visible": False}, kind)]


def _is_known(path: Path) -> bool:
    if path.is_dir():
        from napari_strata.io.dicom.series import is_dicom

        return any(
            is_dicom(file)
            for file in islice(
                (file for file in path.rglob("*") if file.is_file()), 200
            )
        )
    from napari_strata.io.dicom.series import is_segmentation

    return path.name.lower().endswith((*SCAN_SUFFIXES, CASE_SUFFIX)) or is_segmentation(
        path
    )


def _has_region_table(path: Path) -> bool:
    """Say whether a file holds labels.

    With our region table beside them, or 3D Slicer's or DICOM's with theirs inside.
    """
    from napari_strata.export.outputs import outputs_beside
    from napari_strata.io.files import holds_segments
    from napari_strata.io.sidecar import has_table

    return path.is_file() and (
        holds_segments(path) or has_table(outputs_beside(path).sidecar)
    )


def _stem(path: Path) -> str:
    return path.name.split(".")[0]
