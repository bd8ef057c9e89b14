"""Classifier of a teaching from labelled scans: multinomial logistic regression.

A labelled scan teaches every supervoxel, so that a linear classifier can be fitted beside
the nearest examples. It reads intensity in soft codes, encoder features and the position,
with the squares of the position.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class HeadConstants:
    """Constants of the classifier.

    They were chosen on three synthetic trunks, each teaching the others
    (docs/teaching.md).
    """

    codes: int = 12
    """Soft codes of intensity, evenly spaced over [0, 1]."""
    code_width: float = 0.06
    """Standard deviation of a code, about the distance between two."""
    feature_weight: float = 2.0
    """Scale of encoder features before standardisation, against `least_spread`."""
    regularisation: float = 0.03
    """C of the regression; small, because features differ between scans."""
    least_spread: float = 0.05
    """Added to the standard deviation of each column, so that rare columns stay small."""
    iterations: int = 300
    """Most iterations of L-BFGS."""


_CONSTANTS = HeadConstants()


@dataclass(frozen=True, slots=True, eq=False)
class TransferHead:
    """A fitted logistic regression over the regions of a teaching.

    Parameters
    ----------
    regions : (class,) int32 array
        Region id of each class, 0 for background.
    middle, spread : (d,) float32 arrays
        By which inputs are standardised.
    weights : (class, d) float32 array
        Coefficients.
    offsets : (class,) float32 array
        Intercepts.
    """

    regions: NDArray[np.int32]
    middle: NDArray[np.float32]
    spread: NDArray[np.float32]
    weights: NDArray[np.float32]
    offsets: NDArray[np.float32]

    @classmethod
    def fit(
        cls, inputs: NDArray[np.float32], regions: NDArray[np.integer]
    ) -> TransferHead | None:
        """Fit to examples; None if they are all of one region.

        Each example counts by one over the root of its region's number, so that small
        organs are not drowned.
        """
        names, count = np.unique(regions, return_counts=True)
        if len(names) < 2:
            return None
        # imported here: the import takes longer than a small proposal
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        middle = inputs.mean(axis=0)
        spread = inputs.std(axis=0) + np.float32(_CONSTANTS.least_spread)
        weight = (1 / np.sqrt(count))[np.searchsorted(names, regions)]
        model = LogisticRegression(
            C=_CONSTANTS.regularisation, max_iter=_CONSTANTS.iterations
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(
                (inputs - middle) / spread,
                regions,
                sample_weight=weight * len(weight) / weight.sum(),
            )
        weights, offsets = model.coef_, model.intercept_
        if len(names) == 2:  # scikit-learn keeps the second class only
            weights, offsets = (
                np.vstack([-weights, weights]) / 2,
                np.array([-offsets[0], offsets[0]]) / 2,
            )
        return cls(
            names.astype(np.int32),
            middle.astype(np.float32),
            spread.astype(np.float32),
            weights.astype(np.float32),
            offsets.astype(np.float32),
        )

    def probability(
        self, inputs: NDArray[np.float32], regions: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """Return the probability (n, len(regions)) of the given regions, in that order."""
        total = ((inputs - self.middle) / self.spread) @ self.weights.T + self.offsets
        total = np.exp(total - total.max(axis=1, keepdims=True))
        total /= total.sum(axis=1, keepdims=True)
        return np.asarray(total[:, np.searchsorted(self.regions, regions)], np.float64)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Arrays by their names in the file of a teaching."""
        return {f"head {name}": getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> TransferHead | None:
        """Build it from the arrays of a file; None if the file has none.

        Raises
        ------
        ValueError
            If the arrays do not fit one another.
        """
        if "head regions" not in arrays:
            return None
        head = cls(**{name: arrays[f"head {name}"] for name in cls.__slots__})
        classes, width = head.weights.shape
        if not (
            head.regions.shape == head.offsets.shape == (classes,)
            and head.middle.shape == head.spread.shape == (width,)
            and all(np.isfinite(one).all() for one in head.arrays.values())
        ):
            raise ValueError("the classifier's arrays do not match")
        return head


def head_inputs(
    intensity: NDArray[np.floating],
    features: NDArray[np.floating],
    place: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Return the inputs of the classifier, (n, d) float32.

    Parameters
    ----------
    intensity : (n,) array
        Mean intensity in [0, 1], on the teaching's scale.
    features : (n, channel) array
        Encoder features, averaged over near neighbours.
    place : (n, axis) array
        Position as a share of the body's extent, 0 to 1.
    """
    centers = np.linspace(0.0, 1.0, _CONSTANTS.codes)
    codes = np.exp(-0.5 * ((intensity[:, None] - centers) / _CONSTANTS.code_width) ** 2)
    middle = 2 * place - 1
    pairs = [
        middle[:, one] * middle[:, other]
        for one in range(middle.shape[1])
        for other in range(one, middle.shape[1])
    ]
    return np.concatenate(
        [
            codes,
            _CONSTANTS.feature_weight * features,
            middle,
            *(pair[:, None] for pair in pairs),
        ],
        axis=1,
    ).astype(np.float32)
