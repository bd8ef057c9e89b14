"""CT or MR, from the histogram alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_strata.io.modality import guess_modality

RNG = np.random.default_rng(0)
SHAPE = (24, 24, 24)


def mixture(*parts: tuple[float, float, float]) -> NDArray[np.float64]:
    """Voxels drawn from (share, mean, deviation) parts."""
    shares = np.array([part[0] for part in parts])
    which = RNG.choice(len(parts), SHAPE, p=shares / shares.sum())
    return RNG.normal(
        np.array([part[1] for part in parts])[which],
        np.array([part[2] for part in parts])[which],
    )


CHEST = mixture(
    (0.4, -1000, 15), (0.2, -850, 60), (0.1, -100, 20), (0.27, 45, 30), (0.03, 500, 200)
)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (CHEST.round().astype(np.int16), "ct"),
        (CHEST.astype(np.float32), "ct"),
        (np.where(CHEST < -950, -3024, CHEST).astype(np.int16), "ct"),
        (
            mixture((0.3, -100, 20), (0.65, 45, 30), (0.05, 400, 100))
            .round()
            .astype(np.int16),
            "ct",
        ),
        (mixture((0.5, 5, 3), (0.5, 400, 100)).clip(0).astype(np.uint16), "mr"),
        (mixture((0.6, -0.8, 0.1), (0.4, 1.2, 0.5)), "mr"),
        (mixture((0.6, 0, 0), (0.4, 300, 80)) + RNG.normal(0, 3, SHAPE), "mr"),
        (RNG.integers(-4096, 4096, SHAPE).astype(np.int16), "mr"),
        (mixture((0.5, 0, 0), (0.5, 0.4, 0.2)), "mr"),
    ],
    ids=[
        "chest",
        "resampled chest",
        "padded",
        "inside the body",
        "magnitude",
        "z-scored",
        "ringing",
        "phase",
        "unit range",
    ],
)
def test_guess(data: NDArray[np.generic], expected: str) -> None:
    assert guess_modality(data) == expected
