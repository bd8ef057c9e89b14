"""Registry of the clustering methods.

To add a method, write a module with a function `propose(inputs) -> MethodResult`, add
one line to `METHODS`, and add the name to `MethodName` in `method_names.py` and to the
help of `ProposeSettings.method`. Methods without the encoder are assumed to need as much
memory as gmm-mrf (`batch/workers/memory.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from napari_strata.errors import SettingsError
from napari_strata.method_names import MethodName

if TYPE_CHECKING:
    from napari_strata.proposal.methods.base import (
        ClusteringMethod,
        MethodInputs,
        MethodResult,
    )


@dataclass(frozen=True, slots=True)
class RegisteredMethod:
    """Clustering method whose module is imported when it is first used.

    Its name and needs can be read without loading scikit-learn, Higra or torch.

    Parameters
    ----------
    name : MethodName
        Name in settings, on the command line and in provenance.
    module : str
        Module with the function `propose`, relative to this package.
    needs_encoder : bool
        Whether the method uses the encoder.
    """

    name: MethodName
    module: str
    needs_encoder: bool

    def propose(self, inputs: MethodInputs) -> MethodResult:
        """Propose regions for a scan."""
        module = import_module(f"{__package__}.{self.module}")
        result: MethodResult = module.propose(inputs)
        return result


METHODS = (
    RegisteredMethod("strata", "learned", needs_encoder=True),
    RegisteredMethod("gmm-mrf", "gmm_mrf", needs_encoder=False),
)
"""Every clustering method, the default one first."""


def find_method(name: str) -> ClusteringMethod:
    """Return the method of this name.

    Raises
    ------
    SettingsError
        If there is no such method.
    """
    for method in METHODS:
        if method.name == name:
            return method
    raise SettingsError(
        f"There is no method {name!r}. Take one of {', '.join(one.name for one in METHODS)}."
    )


def method_names(*, needs_encoder: bool) -> str:
    """Return the names of the methods with or without an encoder, for messages."""
    names = [one.name for one in METHODS if one.needs_encoder == needs_encoder]
    return " or ".join(names)
