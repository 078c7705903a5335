"""Bayesian change points, offline: the most probable segmentation under one normal model per segment.

Each segment has its own mean and variance with a normal-inverse-gamma prior, and a new one starts with probability h
at each reading. ``l_r`` is the predictive density of a reading when the segment has run for r readings,

    ``l_r = t_{2a}(x; m, b (k + 1) / (a k))``,
    ``m' = (k m + x) / (k + 1),  b' = b + k (x - m)^2 / (2 (k + 1)),  k' = k + 1,  a' = a + 1/2``,

and the path of run lengths with the largest probability is found by dynamic programming over the run length.

Source: Adams & MacKay 2007, arXiv:0710.3742, with the maximum in place of the sum.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def most_probable(values: NDArray[np.float64], hazard: float = 0.01) -> list[int]:
    """First samples of the segments after the first one; columns are independent given the segments.

    Args:
        values: standardised series, shape (n, d).
        hazard: probability that a new segment starts.

    Returns:
        0-based indices, ascending.

    Example:
        >>> most_probable(np.repeat([-1.0, 1.0], 20)[:, None])
        [20]
    """
    n, d = values.shape
    constants = _constants(n)
    mean, scale = np.zeros((n + 1, d)), np.ones((n + 1, d))
    score = np.full(n + 1, -np.inf)
    score[0] = 0.0
    born: list[int] = []  # run length that the segment before a start at t had
    stay, start = math.log1p(-hazard), math.log(hazard)
    for t in range(n):
        size = t + 1
        k = 1.0 + np.arange(size)[:, None]
        a = 1.0 + 0.5 * np.arange(size)[:, None]
        difference = values[t] - mean[:size]
        ratio = k / (2.0 * (k + 1.0)) * difference**2
        log_density = (
            constants[:size, None]
            - 0.5 * np.log(2.0 * scale[:size] * (k + 1.0) / k)
            - (a + 0.5) * np.log1p(ratio / scale[:size])
        )
        joint = score[:size] + log_density.sum(axis=1)
        best = int(np.argmax(joint))
        born.append(best)
        score[1 : size + 1] = joint + stay
        score[0] = joint[best] + start
        score[: size + 1] -= score[: size + 1].max()
        # Run length r + 1 remembers one reading more than r; run length 0 is the prior.
        mean[1 : size + 1] = (k * mean[:size] + values[t]) / (k + 1.0)
        scale[1 : size + 1] = scale[:size] + ratio
        mean[0], scale[0] = 0.0, 1.0
    changes, end = [], n
    length = int(np.argmax(score[1:])) + 1
    while end - length > 0:
        end -= length
        changes.append(end)
        length = born[end - 1] + 1
    return changes[::-1]


def _constants(n: int) -> NDArray[np.float64]:
    """``log Gamma(a + 1/2) - log Gamma(a) - log(pi) / 2`` for ``a = 1 + r / 2``, r = 0 .. n."""
    gamma = [math.lgamma(1.0 + 0.5 * r) for r in range(n + 2)]
    return np.array([gamma[r + 1] - gamma[r] - 0.5 * math.log(math.pi) for r in range(n + 1)])
