"""Names of the clustering methods, for settings, flags, forms and the registry.

To add a method, add its name here and one line to `METHODS` in
`proposal/methods/registry.py`. A test compares the two.
"""

from __future__ import annotations

from typing import Literal

MethodName = Literal["strata", "gmm-mrf"]
"""Names of the clustering methods, the default one first."""
