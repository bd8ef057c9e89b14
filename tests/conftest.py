"""What every test gets."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run and on every machine; nothing is kept between runs.
settings.register_profile(
    "strata", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("strata")


@pytest.fixture(autouse=True)
def own_config_folder(tmp_path_factory, monkeypatch):
    """Keep a person's own names and settings out of the tests, and the tests out of theirs."""
    for variable in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path_factory.mktemp("own")))
