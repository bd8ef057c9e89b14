"""A linear probe: a few labelled voxels per class, mean Dice over classes on the rest."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

PER_CLASS = (5, 20, 100)


def probe(
    features: NDArray[np.float32],
    classes: NDArray[np.integer],
    seed: int,
    *,
    per_class: int = 20,
) -> float:
    """Fit on a few voxels per class of one table, (n, channel) and (n,).

    Give the mean Dice over classes on the others.
    """
    rng = np.random.default_rng(seed)
    drawn = np.zeros(len(classes), bool)
    drawn[_draw(classes, per_class, rng)] = True
    return _fit_and_score(
        features[drawn], classes[drawn], features[~drawn], classes[~drawn]
    )


def probe_score(
    taught: NDArray[np.float32],
    taught_class: NDArray[np.uint8],
    probed: NDArray[np.float32],
    probed_class: NDArray[np.uint8],
    *,
    per_class: int,
    seed: int,
) -> float:
    """Fit logistic regression on a few voxels per class and score it on others.

    Parameters
    ----------
    taught, taught_class : (n, channel) and (n,) arrays
        Voxels to draw the labelled ones from.
    probed, probed_class : (m, channel) and (m,) arrays
        Voxels to score.
    per_class : int
        Labelled voxels per class (fewer where a class has fewer).
    seed : int
        Which voxels are drawn.

    Returns
    -------
    float
        Mean Dice over the classes.
    """
    drawn = _draw(taught_class, per_class, np.random.default_rng(seed))
    return _fit_and_score(taught[drawn], taught_class[drawn], probed, probed_class)


def _draw(
    classes: NDArray[np.integer], per_class: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    return np.concatenate(
        [
            rng.permutation(np.flatnonzero(classes == label))[:per_class]
            for label in np.unique(classes)
        ]
    )


def _fit_and_score(
    taught: NDArray[np.float32],
    taught_class: NDArray[np.integer],
    probed: NDArray[np.float32],
    probed_class: NDArray[np.integer],
) -> float:
    with warnings.catch_warnings():
        # 500 iterations are the rule of the bench
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=10, max_iter=500).fit(taught, taught_class)
    return mean_dice(model.predict(probed), probed_class)


def mean_dice(found: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """Give the Dice of each class of `truth`, averaged."""
    scores = []
    for label in np.unique(truth):
        one, other = found == label, truth == label
        scores.append(2 * (one & other).sum() / (one.sum() + other.sum()))
    return float(np.mean(scores))
