"""What the manifest offers.

Reading, writing, samples, commands, and opening a window on a scan.
"""

from __future__ import annotations

import sys
import time
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import trimesh
from napari.layers import Image, Labels
from npe2 import PluginManifest

from napari_strata import write
from napari_strata.cli import main
from napari_strata.errors import ReadError, StrataError, WriteError
from napari_strata.gui.canvas.layers import case_labels_tuple
from napari_strata.gui.plugin import commands, napari_open, samples
from napari_strata.gui.plugin import napari_save as writing
from napari_strata.gui.plugin import window as opening
from napari_strata.gui.widgets import dialogs
from napari_strata.io.files import read, read_labels
from napari_strata.refine.session.refinement import Refinement
from phantoms import phantom_proposal, phantom_volume
from test_export_dicom import segmented

OBLIQUE = np.array(
    [[1.9, 0.2, 0.1, -20], [-0.2, 1.4, 0.3, -30], [-0.1, -0.3, 2.9, 10], [0, 0, 0, 1.0]]
)

MANIFEST = Path(opening.__file__).parents[2] / "napari.yaml"


@pytest.fixture
def scan(tmp_path):
    path = tmp_path / "scan.nii.gz"
    data = phantom_volume().data.transpose(2, 1, 0)
    nib.save(nib.Nifti1Image(data, OBLIQUE), path)
    return path


def only_layer(path):
    reader = napari_open.get_reader(str(path))
    assert reader is not None
    ((data, kwargs, kind),) = reader(str(path))
    return {"image": Image, "labels": Labels}[kind](data, **kwargs)


def test_a_scan_is_read_and_its_labels_go_back_on_its_grid(scan, tmp_path):
    image = only_layer(scan)
    labels = Labels(
        (image.data > 50).astype(np.uint8), scale=image.scale, metadata=image.metadata
    )
    data, attributes, _ = labels.as_layer_data_tuple()
    written = writing.write_labels(str(tmp_path / "labels.nii.gz"), data, attributes)
    assert written[0] == str(tmp_path / "labels.nii.gz")
    back, source = nib.load(written[0]), nib.load(scan)
    np.testing.assert_array_equal(back.affine, source.affine)
    np.testing.assert_array_equal(
        np.asarray(back.dataobj), np.asarray(source.dataobj) > 50
    )


def test_exported_labels_open_as_a_labels_layer_with_their_names(scan, tmp_path):
    work = Refinement(phantom_proposal(read(scan)), tissues=4)
    region = work.regions[0].id
    work.rename(region, "liver")
    work.edits.recolor(region, (10, 200, 30))
    image = only_layer(scan)
    layer = Labels(
        work.labels,
        metadata={
            "strata": {
                "geometry": work.proposal.volume.geometry,
                "regions": work.regions,
            }
        },
    )
    data, attributes, _ = layer.as_layer_data_tuple()
    writing.write_labels(str(tmp_path / "labels.nii.gz"), data, attributes)
    labels = only_layer(tmp_path / "labels.nii.gz")
    np.testing.assert_array_equal(labels.data, work.labels)
    np.testing.assert_allclose(
        labels.get_color(region)[:3] * 255, (10, 200, 30), atol=1
    )
    assert "liver" in list(labels.features["region"])
    np.testing.assert_allclose(
        labels.data_to_world((3, 4, 5)), image.data_to_world((3, 4, 5))
    )


def test_a_labels_layer_is_saved_as_surfaces_a_table_names_or_its_case(scan, tmp_path):
    work = Refinement(phantom_proposal(read(scan)), tissues=4)
    work.merge([row.id for row in work.regions][:2])
    data, kwargs, _ = case_labels_tuple(work, name="regions")
    kwargs["metadata"]["strata"]["work"] = work
    parts = data, kwargs
    for name in ("a.stl", "a.csv", "a.label"):
        assert writing.write_other(str(tmp_path / name), *parts) == [
            str(tmp_path / name)
        ]
    assert trimesh.load(tmp_path / "a.stl").is_watertight
    assert writing.write_case(str(tmp_path / "a.strata"), [(*parts, "labels")]) == [
        str(tmp_path / "a.strata")
    ]
    assert Refinement.load(tmp_path / "a.strata").history == work.history
    with pytest.raises(StrataError, match="whose regions Strata proposed"):
        writing.write_case(str(tmp_path / "b.strata"), [(data, {}, "labels")])


def test_a_json_file_of_others_is_not_replaced(scan, tmp_path):
    (tmp_path / "bold.json").write_text('{"EchoTime": 0.03}')
    image = only_layer(scan)
    data, attributes, _ = Labels(
        (image.data > 50).astype(np.uint8), metadata=image.metadata
    ).as_layer_data_tuple()
    with pytest.raises(WriteError, match="is not Strata's"):
        writing.write_labels(str(tmp_path / "bold.nii.gz"), data, attributes)
    assert not (tmp_path / "bold.nii.gz").exists()
    assert (tmp_path / "bold.json").read_text() == '{"EchoTime": 0.03}'


def test_of_dcm_files_only_segmentations_are_read(tmp_path):
    series, labels, _ = segmented(tmp_path / "ct")
    segmentation = write(labels, tmp_path / "seg.dcm", scan=series)
    (reader,) = PluginManifest.from_file(MANIFEST).contributions.readers
    assert "*.dcm" in reader.filename_patterns
    layer = only_layer(segmentation)
    assert isinstance(layer, Labels)
    assert np.count_nonzero(layer.data) == np.count_nonzero(labels.labels)
    # other readers take a slice as an image of its own
    one_slice = next((tmp_path / "ct").iterdir())
    assert napari_open.get_reader(str(one_slice)) is None


@pytest.mark.parametrize("name", ["notes.txt", "picture.png", "empty_folder"])
def test_what_is_no_scan_is_left_to_other_readers(tmp_path, name):
    path = tmp_path / name
    if "." in name:
        path.write_text("nothing")
    else:
        path.mkdir()
    assert napari_open.get_reader(str(path)) is None


def test_a_case_opens_as_scan_and_labels_that_share_the_work(scan, tmp_path):
    work = Refinement(phantom_proposal(read(scan)), tissues=4)
    work.merge([row.id for row in work.regions][:2])
    work.save(tmp_path / "case.strata")
    (data, kwargs, kind), (labels, more, other) = napari_open.read_layers(
        str(tmp_path / "case.strata")
    )
    assert (kind, other) == ("image", "labels")
    np.testing.assert_array_equal(data, read(scan).data)
    np.testing.assert_array_equal(labels, work.labels)
    assert kwargs["metadata"]["strata"]["work"] is more["metadata"]["strata"]["work"]


@pytest.mark.parametrize(
    "make",
    [
        samples.sample_head_t1,
        samples.sample_chest_ct,
        samples.sample_thick_t2,
    ],
)
def test_samples_come_with_their_truth(make):
    (data, kwargs, _), (truth, more, _) = make()
    assert data.shape == truth.shape
    assert truth.max() > 0
    assert not more["visible"]
    np.testing.assert_allclose(kwargs["scale"], more["scale"])


def test_without_qt_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "qtpy.QtWidgets", None)
    with pytest.raises(StrataError, match=r"napari-strata\[gui\]"):
        opening.open_viewer("scan.nii.gz")


def test_without_napari_view_ends_in_one_sentence(monkeypatch, scan, capsys):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(opening, "version", missing)
    monkeypatch.setitem(sys.modules, "napari", None)
    assert main(["view", str(scan)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert 'napari, which is not installed. Run: pip install "napari-strata[gui]"' in (
        line
    )


def test_a_napari_that_is_too_old_is_named_with_what_to_do(monkeypatch, scan):
    monkeypatch.setattr(opening, "version", lambda _name: "0.6.10rc1")
    for opens in (
        lambda: opening.open_viewer(scan),
        lambda: opening.StrataPanel,
    ):
        with pytest.raises(
            StrataError,
            match=(
                r"napari 0\.6\.10rc1, and Strata needs 0\.7 or newer. Run: pip install"
                r" --upgrade"
            ),
        ):
            opens()
    monkeypatch.setattr(opening, "version", lambda _name: "0.10.1")
    assert opening.StrataPanel.__name__ == "StrataPanel"
    requirements = tomllib.loads(
        (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]
    oldest = ".".join(str(part) for part in opening.OLDEST_NAPARI)
    assert f"napari[pyqt6]>={oldest}" in requirements["optional-dependencies"]["gui"]


@pytest.mark.gui
class TestWindow:
    @pytest.fixture
    def window(self, make_napari_viewer, npe2pm, monkeypatch):
        """Return a viewer in which napari knows the plugin, and let `open_viewer` use it."""
        from importlib.resources import files

        import napari
        from npe2 import PluginManifest

        npe2pm.register(
            PluginManifest.from_file(str(files("napari_strata") / "napari.yaml"))
        )
        viewer = make_napari_viewer()
        monkeypatch.setattr(napari, "Viewer", lambda **_: viewer)
        return viewer

    def test_a_scan_opens_with_the_panel_docked(self, window, scan):
        viewer = opening.open_viewer(scan)
        panel = opening.dock_panel(viewer)
        assert [layer.name for layer in viewer.layers] == ["scan"] or len(
            viewer.layers
        ) == 1
        assert panel.scans.image == viewer.layers[0]
        assert viewer.dims.order == (0, 1, 2)
        assert opening.dock_panel(viewer) is panel

    def test_a_case_opens_with_its_regions_in_hand(self, window, scan, tmp_path):
        work = Refinement(phantom_proposal(read(scan)), tissues=4)
        work.save(tmp_path / "case.strata")
        viewer = opening.open_viewer(
            tmp_path / "case.strata", index=None, series=None, modality=None
        )
        np.testing.assert_array_equal(
            opening.dock_panel(viewer).case.work.labels, work.labels
        )
        with pytest.raises(StrataError, match="Leave out index"):
            opening.open_viewer(tmp_path / "case.strata", index=1)

    def test_of_several_scans_the_person_chooses_one(
        self, window, tmp_path, monkeypatch
    ):
        paths = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
        for path in paths:
            nib.save(
                nib.Nifti1Image(
                    np.random.default_rng(0).random((8, 8, 8, 3), np.float32), np.eye(4)
                ),
                path,
            )
        monkeypatch.setattr(
            dialogs,
            "ask_choice",
            lambda _parent, path, options: (
                None if path.name == "a.nii.gz" else options[1][1]
            ),
        )
        (only,) = napari_open.read_layers([str(path) for path in paths])
        assert only[1]["name"] == "b, volume 1"
        assert napari_open.read_layers(str(paths[0])) == [(None,)]
        assert len(opening.open_viewer(paths[0], index=None).layers) == 0
        assert [
            layer.name for layer in opening.open_viewer(paths[1], index=None).layers
        ] == ["b, volume 1"]

    def test_a_scan_that_cannot_be_read_opens_no_window(self, monkeypatch, tmp_path):
        monkeypatch.setattr(
            "napari.Viewer", lambda **_: pytest.fail("a window was opened")
        )
        with pytest.raises(ReadError, match=r"nowhere\.nii"):
            opening.open_viewer(tmp_path / "nowhere.nii")

    def test_the_panel_goes_on_with_an_opened_case(self, window, scan, tmp_path):
        work = Refinement(phantom_proposal(read(scan)), tissues=4)
        work.merge([row.id for row in work.regions][:2])
        work.save(tmp_path / "case.strata")
        panel = opening.dock_panel(window)
        window.open(str(tmp_path / "case.strata"), plugin="napari-strata")
        assert panel.case is not None
        assert len(window.layers) == 2
        commands.undo(window)
        panel.settle()
        assert len(panel.case.work.regions) == 4
        np.testing.assert_array_equal(
            np.asarray(panel.case.labels.data), panel.case.work.labels
        )

    def test_file_save_never_replaces_a_scan_that_is_open(self, window, scan):
        before = scan.read_bytes()
        window.open(str(scan), plugin="napari-strata")
        labels = window.add_labels(
            (window.layers[0].data > 50).astype(np.uint8),
            metadata=window.layers[0].metadata,
        )
        window.layers.selection = {labels}
        with pytest.raises(WriteError, match="would be replaced"):
            window.layers.save(str(scan), selected=True, plugin="napari-strata")
        assert scan.read_bytes() == before
        assert not scan.with_name("scan.json").exists()

    def test_file_save_of_a_case_holds_all_that_is_asked_for_and_on_screen(
        self, window, scan, tmp_path
    ):
        Refinement(phantom_proposal(read(scan)), tissues=4).save(
            tmp_path / "case.strata"
        )
        panel = opening.dock_panel(window)
        image, labels = window.open(
            str(tmp_path / "case.strata"), plugin="napari-strata"
        )
        first, second = (row.id for row in panel.case.work.regions[:2])
        labels.data[0, 0, :3] = second
        panel.case.submit(
            lambda: time.sleep(0.05) or panel.case.work.merge([second, first])
        )
        window.layers.selection = {image, labels}
        # over the file that it was opened from, as Ctrl+S does
        window.layers.save(
            str(tmp_path / "case.strata"), selected=True, plugin="napari-strata"
        )
        back = Refinement.load(tmp_path / "case.strata")
        assert len(back.history) == 2
        np.testing.assert_array_equal(back.labels, labels.data)
        assert not panel.case.has_unsaved_edits
        panel.case.submit(lambda: time.sleep(0.05) or panel.case.work.undo())
        window.layers.selection = {labels}
        window.layers.save(
            str(tmp_path / "now.nii.gz"), selected=True, plugin="napari-strata"
        )
        np.testing.assert_array_equal(
            read_labels(tmp_path / "now.nii.gz").labels, panel.case.work.labels
        )
        window.layers.selection = {
            image,
            window.add_labels(np.zeros(labels.data.shape, np.uint8)),
        }
        with pytest.raises(StrataError, match="whose regions Strata proposed"):
            window.layers.save(
                str(tmp_path / "other.strata"), selected=True, plugin="napari-strata"
            )

    def test_commands_run_from_the_palette(self, window, scan):
        from napari._app_model import get_app_model

        window.open(str(scan), plugin="napari-strata")
        get_app_model().commands.execute_command("napari-strata.merge").result()
        assert opening.dock_panel(window).case is None
