"""Print the lowest version that pyproject.toml allows of each dependency, as pip constraints.

    python packaging/lowest.py gui dicom > lowest.txt
    python -m pip install -c lowest.txt -e ".[gui,dicom]"

Only direct dependencies are pinned. Names on the command line are extras to include.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def list_lowest(extras: Sequence[str] = ()) -> list[str]:
    """Return one `name==version` per dependency, of the base install and of `extras`."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += project["optional-dependencies"][extra]
    pins = []
    for requirement in requirements:
        limits, _, marker = requirement.partition(";")
        name = re.match(r"[\w.-]+", limits)
        floor = re.search(r">=\s*([\w.]+)", limits)
        if name is None or floor is None:
            continue  # our own package with other extras
        pins.append(f"{name[0]}=={floor[1]}" + (f" ;{marker}" if marker else ""))
    return pins


if __name__ == "__main__":
    sys.stdout.write("\n".join(list_lowest(sys.argv[1:])) + "\n")
