"""What every test gets."""

from __future__ import annotations

import gc
import os
from itertools import count
from pathlib import Path

# Before numpy and torch are imported: on phantoms a second thread waits, spinning, more
# than it works. Tests of several threads ask for them by name.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# Most windows compute in place: a worker process takes seconds to start.
os.environ.setdefault("STRATA_WORKER", "0")

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from windows import SharedWindow  # noqa: E402

# The same examples in every run and on every machine; nothing is kept between runs.
settings.register_profile(
    "strata",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("strata")

NUMERIC = frozenset(
    {
        "adapt",
        "batch_cohort",
        "batch_taught",
        "benchmark_encoder",
        "benchmark_proposal",
        "body",
        "codebook",
        "encoder",
        "encoder_custom_network",
        "explain",
        "explain_voxel",
        "hierarchy",
        "measure",
        "measure_agreement",
        "preprocess",
        "proposal",
        "proposal_divisive_clustering",
        "proposal_gmm_mrf",
        "proposal_region_merging",
        "refine_labels",
        "refine_regions",
        "refine_scribble",
        "refine_teaching",
        "supervoxels",
        "synthesis",
        "synthesis_faults",
        "synthesis_gallery",
        "teach",
    }
)
"""Files whose assertions stand on what processors compute each in their own way.

`make any-cpu` runs them, see any_cpu.py.
"""

_numbers = count()


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix("test_") in NUMERIC:
            item.add_marker("numeric")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Share the tests by file where two processes run them, and give all windows to one.

    Loads napari once.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "windows" if "/test_gui_" in file else file

    return ByFile(config, log)


def pytest_sessionstart(session):
    """Tell what is in force, or stop, where an older processor was asked for."""
    if os.environ.get("STRATA_ANY_CPU"):
        import any_cpu

        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        for line in any_cpu.in_force():
            terminal.write_line(f"held back: {line}")


@pytest.fixture(scope="session")
def own_config_folders(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.fixture(autouse=True)
def own_config_folder(own_config_folders, monkeypatch):
    """Keep a person's own names and settings out of the tests, and the tests out of theirs."""
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        folder = own_config_folders / str(next(_numbers))
        folder.mkdir()
        monkeypatch.setenv(variable, str(folder))


@pytest.fixture(scope="session", autouse=True)
def plugins_found_once():
    """Read the manifests of the installed napari plugins once, not for every window."""
    from npe2 import PluginManifest

    found = []

    def discover(cls, paths=()):
        if paths:
            return read(paths)
        if not found:
            found.extend(read())
        return iter(found)

    read = PluginManifest.discover
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManifest, "discover", classmethod(discover))
        yield


@pytest.fixture(scope="session", autouse=True)
def own_napari_settings():
    """Keep napari from writing a person's settings at every dock widget.

    The fixtures of windows reset what it read.
    """
    from napari.settings import get_settings

    get_settings()._save_on_change = False


def _keep_what_is_loaded() -> None:
    """Take what is loaded so far out of what Python's garbage collector looks through.

    napari collects garbage whenever a layer goes, and would look through a million
    objects of modules each time.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_finish():
    _keep_what_is_loaded()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item):
    """The first window loads the rest of napari, and every window leaves a little behind."""
    done = yield
    if item.get_closest_marker("gui"):
        _keep_what_is_loaded()
    return done


@pytest.fixture(scope="session")
def shared_window(qapp, plugins_found_once, own_napari_settings):
    window = SharedWindow()
    yield window
    window.close()


@pytest.fixture
def shared_viewer(request, shared_window, qtbot, monkeypatch):
    """Give a napari viewer without a scan in a window that other tests have used.

    Where a test opens no other window.
    """
    if "make_napari_viewer_proxy" in request.fixturenames:
        yield request.getfixturevalue("make_napari_viewer_proxy")()
        return
    from napari.utils._proxies import PublicOnlyProxy

    monkeypatch.setenv("NAPARI_ENSURE_PLUGIN_MAIN_THREAD", "True")
    yield PublicOnlyProxy(shared_window.open())
    if request.node.rep_call.failed:
        shared_window.close()
    shared_window.empty()


@pytest.fixture
def no_shared_window(shared_window):
    shared_window.close()


@pytest.fixture
def make_napari_viewer(no_shared_window, make_napari_viewer):
    """Give napari's own fixture, which wants to find no other window."""
    return make_napari_viewer
