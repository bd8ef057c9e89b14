"""Names of the first versions still work, with a warning that says what they are called today."""

import importlib
from pathlib import Path

import pytest

from napari_strata.deprecated import MODULES, NAMES

OLD_FILES = Path(__file__).parent / "old_files"


@pytest.mark.parametrize("old", sorted({*MODULES, *NAMES}))
def test_old_modules_are_found_with_their_names(old):
    module = importlib.import_module(f"napari_strata.{old}")
    for name, today in NAMES.get(old, {}).items():
        home, _, name_today = today.partition(":")
        with pytest.warns(DeprecationWarning, match=f"{name} is napari_strata.{home}"):
            value = getattr(module, name)
        assert value is getattr(
            importlib.import_module(f"napari_strata.{home}"), name_today
        )
    if old in MODULES:
        importlib.import_module(f"napari_strata.{MODULES[old]}")


def test_a_moved_name_is_the_same_object():
    with pytest.warns(
        DeprecationWarning, match="refine.session.refinement.Refinement now"
    ):
        from napari_strata.refine.refinement import Refinement
    with pytest.warns(DeprecationWarning, match="preprocess.body.body_mask now"):
        from napari_strata.body import body_mask
    import napari_strata as strata
    from napari_strata.preprocess import body

    assert Refinement is strata.Refinement
    assert body_mask is body.body_mask


def test_what_never_existed_is_an_attribute_error():
    module = importlib.import_module("napari_strata.gui.layers")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("napari_strata.gui.nothing")


@pytest.mark.parametrize("stayed", sorted({*NAMES} - {*MODULES}))
def test_modules_that_stayed_refuse_what_they_never_had(stayed):
    module = importlib.import_module(f"napari_strata.{stayed}")
    assert not hasattr(module, "nothing")


def test_attributes_of_a_teaching_keep_their_old_names():
    from napari_strata.refine.transfer import Teaching

    teaching = Teaching.load(OLD_FILES / "teaching.strata-teaching")
    with pytest.warns(DeprecationWarning, match="Teaching.looks is Teaching.features"):
        assert teaching.looks is teaching.features
    with pytest.warns(DeprecationWarning, match="is Teaching.example_regions now"):
        assert teaching.taught is teaching.example_regions
    with pytest.raises(AttributeError, match="'Teaching' object has no attribute"):
        _ = teaching.nothing
