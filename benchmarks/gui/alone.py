"""What napari takes by itself for steps of the session, in a window without Strata.

The longest block of each.

xvfb-run -a -s "-screen 0 1920x1080x24" python -m benchmarks.gui.alone [--side 256]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.gui.beat import Heartbeat, pump
from benchmarks.gui.session import prepared_napari

SETTLE_S = 1.0


def steps(viewer: Any, side: int) -> dict[str, Callable[[], object]]:
    """Give what napari is asked to do, in order, with arrays of (side, side, side) voxels."""
    grey = np.random.default_rng(0).integers(0, 1000, (side,) * 3, dtype=np.int16)
    labels = np.repeat(
        np.repeat(
            np.repeat(np.arange(1, 65, dtype=np.uint16).reshape(4, 4, 4), side // 4, 0),
            side // 4,
            1,
        ),
        side // 4,
        2,
    )

    def brush() -> None:
        viewer.layers["second"].mode = "paint"

    def clear() -> None:
        viewer.layers["second"].mode = "pan_zoom"
        viewer.layers.clear()

    return {
        "add an image (napari's first draw)": lambda: viewer.add_image(
            grey, name="scan", contrast_limits=(0, 1000)
        ),
        "add labels": lambda: viewer.add_labels(labels, name="first"),
        "add empty labels": lambda: viewer.add_labels(
            np.zeros_like(labels), name="second"
        ),
        "put the brush in hand": brush,
        "add empty labels again": lambda: viewer.add_labels(
            np.zeros_like(labels), name="third"
        ),
        "add a point": lambda: viewer.add_points([[side / 2] * 3], name="place"),
        "add a map (image)": lambda: viewer.add_image(
            np.zeros((side,) * 3, np.float32), name="map", contrast_limits=(0, 1)
        ),
        "go to another slice": lambda: viewer.dims.set_point(0, side // 3),
        "take a layer away": lambda: viewer.layers.remove("third"),
        "put the brush down, take all layers away": clear,
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256, help="voxels, a multiple of 4")
    arguments = parser.parse_args()
    viewer = prepared_napari().Viewer()
    viewer.window.resize(1500, 940)
    beat = Heartbeat()
    print(
        "| napari alone | longest block (ms) | other programs left out (ms) | window's"
        " own (ms) |\n|---|---|---|---|"
    )
    for name, act in steps(viewer, arguments.side).items():
        pump(SETTLE_S / 2)
        beat.reset()
        act()
        pump(SETTLE_S)
        print(
            f"| {name} | "
            + " | ".join(
                f"{1000 * gap:.0f}"
                for gap in (beat.worst, beat.worst_held, beat.worst_own)
            )
            + " |",
            flush=True,
        )
    viewer.close()


if __name__ == "__main__":
    main()
