"""What this process may use of the machine: cores, and the limits of its container."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

_CGROUPS = Path("/sys/fs/cgroup")


def core_count() -> int:
    """Return how many cores this process may use, by affinity and container limit."""
    try:
        cores = len(psutil.Process().cpu_affinity())
    except AttributeError:  # macOS has no affinity
        cores = psutil.cpu_count() or 1
    shares = [
        [int(part) for part in text.split()]
        for text in control_group_limits("cpu.max")
        if not text.startswith("max")
    ]
    return max(1, min([cores, *(-(-quota // period) for quota, period in shares)]))


def control_group_limits(name: str) -> list[str]:
    """Return the values of a limit of the control groups of this process (Linux).

    Containers and cluster jobs set such limits.
    """
    try:
        own = [
            line.split(":", 2)[2].strip("/")
            for line in os.fsdecode(Path("/proc/self/cgroup").read_bytes()).splitlines()
        ]
    except (OSError, IndexError):
        own = []
    folders = {
        base / part
        for path in (*own, "")
        for base in (_CGROUPS, _CGROUPS / "memory")
        for part in (path, *map(str, Path(path).parents))
    }
    values = []
    for folder in sorted(folders):
        try:
            values.append((folder / name).read_text(encoding="ascii").strip())
        except OSError:
            continue
    return values
