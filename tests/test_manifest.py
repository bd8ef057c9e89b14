"""The napari manifest: found, valid, and every command in it importable."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from npe2 import PluginManifest

from napari_strata.export.formats import EXPORT_SUFFIXES
from napari_strata.filenames import CASE_SUFFIX
from napari_strata.gui.actions import ACTIONS, Key
from napari_strata.gui.plugin import commands

ROOT = Path(__file__).parents[1]
PACKAGED = Path(str(files("napari_strata"))) / "napari.yaml"


def test_the_manifest_at_the_root_says_what_the_packaged_one_says():
    beside_readme = ROOT / "napari.yaml"
    text = beside_readme.read_text(encoding="utf-8")
    if text.strip() == "src/napari_strata/napari.yaml":
        pytest.skip(
            "this checkout has no symbolic links; the root manifest is a pointer"
        )
    assert text == PACKAGED.read_text(encoding="utf-8")


def test_every_command_can_be_imported():
    PluginManifest.from_file(PACKAGED).validate_imports()


def test_napari_finds_the_plugin_by_its_entry_point():
    manifest = PluginManifest.from_distribution("napari-strata")
    assert (manifest.name, manifest.display_name) == ("napari-strata", "Strata")


def test_it_offers_a_reader_a_writer_sample_data_and_a_widget():
    contributions = PluginManifest.from_file(PACKAGED).contributions
    assert contributions.readers
    assert contributions.writers
    assert contributions.sample_data
    assert contributions.widgets


def test_icons_ship_in_a_dark_and_a_light_version_and_commands_name_none():
    manifest = PluginManifest.from_file(PACKAGED)
    for named in (manifest.icon.light, manifest.icon.dark):
        package, resource = named.split(":")
        assert "<svg" in (files(package) / resource).read_text(encoding="utf-8")
    icons = {path.name for path in (PACKAGED.parent / "gui" / "icons").iterdir()}
    assert {name.replace("_dark", "_light") for name in icons if "_dark" in name} == {
        name for name in icons if "_light" in name
    }
    # napari takes a command's icon for a key of an icon service, which it would ask
    # over the network
    assert all(command.icon is None for command in manifest.contributions.commands)


def test_the_manifest_names_the_commands_of_the_action_table():
    manifest = PluginManifest.from_file(PACKAGED)
    room = "napari_strata.gui.plugin.commands:"
    listed = {
        (command.id.removeprefix("napari-strata."), command.title)
        for command in manifest.contributions.commands
        if str(command.python_name).startswith(room)
    }
    table = [action for action in ACTIONS if action.is_command]
    assert listed == {(action.id, action.title) for action in table}
    assert all(getattr(commands, action.id).__name__ == action.id for action in table)
    ids = [action.id for action in ACTIONS]
    keys = [(key.text, key.when) for action in ACTIONS for key in action.keys]
    assert len(set(ids)) == len(ids)
    assert len(set(keys)) == len(keys)
    assert (
        next(
            action.id
            for action in ACTIONS
            if Key("Ctrl+Z", "our layers") in action.keys
        )
        == "undo"
    )


def test_file_save_of_napari_writes_every_export_suffix():
    """A format that is added to `EXPORT_FORMATS` must be added to the manifest too."""
    contributions = PluginManifest.from_file(PACKAGED).contributions
    listed = {
        suffix
        for writer in contributions.writers
        for suffix in writer.filename_extensions
    }
    # napari asks a writer by the last suffix: .seg.nrrd comes as .nrrd. A .dcm or .txt
    # means something else to other plugins; the panel's export writes them.
    left_out = {".dcm", ".seg.nrrd", ".txt"}
    assert listed == {*EXPORT_SUFFIXES, CASE_SUFFIX} - left_out
