"""Settings: limits, TOML and unknown names."""

import pytest

from napari_strata.encoder.identity import read_recipe
from napari_strata.errors import SettingsError
from napari_strata.settings import (
    RECIPES,
    AdaptSettings,
    PretrainSettings,
    ProposeSettings,
    RunSettings,
)


def test_defaults_are_valid_and_survive_a_round_trip():
    for settings in (ProposeSettings, RunSettings, PretrainSettings):
        assert settings.from_dict(settings().to_dict()) == settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"memory_gb": -1.0}, "must lie between"),
        ({"supervoxels": 3}, "must lie between"),
        ({"supervoxels": "many"}, "must be of type int"),
        ({"no_such_knob": 1}, "Unknown setting no_such_knob"),
    ],
)
def test_a_bad_value_is_named_with_its_limits(values, message):
    with pytest.raises(SettingsError, match=message):
        ProposeSettings.from_dict(values)


def test_a_bad_choice_lists_the_choices():
    with pytest.raises(SettingsError, match="'auto', 'cpu', 'cuda'"):
        RunSettings(device="tpu")


def test_toml_gives_a_table_and_leaves_the_rest_at_defaults(tmp_path):
    path = tmp_path / "strata.toml"
    path.write_text("[propose]\nsupervoxels = 5000\nfeature_weight = 2\n")
    settings = ProposeSettings.from_toml(path, "propose")
    assert settings.supervoxels == 5000
    assert settings.feature_weight == 2
    assert settings.memory_gb == ProposeSettings().memory_gb
    assert RunSettings.from_toml(path, "run") == RunSettings()


@pytest.mark.parametrize(
    "text", ["[propose\n", "[propose]\nmemory_gb = 'much'\n", "propose = 3\n"]
)
def test_a_damaged_toml_is_a_clear_error(tmp_path, text):
    path = tmp_path / "strata.toml"
    path.write_text(text)
    with pytest.raises(SettingsError):
        ProposeSettings.from_toml(path, "propose")
    with pytest.raises(SettingsError, match="Check the path"):
        ProposeSettings.from_toml(tmp_path / "missing.toml", "propose")


@pytest.mark.parametrize("settings", [PretrainSettings, AdaptSettings])
def test_a_patch_that_the_network_cannot_halve_is_a_clear_error(settings):
    with pytest.raises(
        SettingsError, match="patch_vox is 40; it must be a multiple of 16"
    ):
        settings(patch_vox=40)


def test_a_recipe_stays_what_made_the_shipped_weights():
    """A changed default must not change what `pretrain --recipe v1` makes."""
    recorded = read_recipe()
    recipe = RECIPES["v1"].to_dict()
    # settings that are newer than the weights are off
    newer = {"bootstrapped_share": 0.0, "prototype_weight": 0.0, "region_weight": 0.0}
    assert recipe == {name: {**newer, **recorded}[name] for name in recipe}
