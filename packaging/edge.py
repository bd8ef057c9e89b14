"""Print the complete pinned list for an install without torch and MONAI.

    python packaging/edge.py > requirements-edge.txt
    python -m pip install --no-deps -r requirements-edge.txt napari_strata-*.whl

It holds everything that the base install needs, at the versions of constraints.txt, but
for the packages in `LEFT_OUT`. Run it where all of them are installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LEFT_OUT = {
    "torch": "OpenVINO runs the encoder",
    "monai": "it builds the network for torch",
    "openvino-telemetry": "OpenVINO runs without it, and Strata never imports it",
}


def list_edge() -> list[str]:
    """Return one `name==version` per package, sorted."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pins = dict(
        line.strip().split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if re.match(r"[\w.-]+==", line)
    )
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    found: dict[str, str] = {}
    waiting = [Requirement(text) for text in project["project"]["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found and requirement.marker is None:
            found[name] = ""  # needed on every platform after all
        if name in found or name in LEFT_OUT:
            continue
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        found[name] = f" ; {requirement.marker}" if requirement.marker else ""
        waiting += [Requirement(text) for text in requires(name) or ()]
    return [f"{name}=={pins[name]}{found[name]}" for name in sorted(found)]


if __name__ == "__main__":
    head = [
        "# Made by packaging/edge.py: an install without torch and MONAI (pip install --no-deps).",
        *(f"# Left out: {name} ({reason})." for name, reason in LEFT_OUT.items()),
    ]
    sys.stdout.write("\n".join([*head, *list_edge()]) + "\n")
