"""Spread that outliers cannot move: the median absolute deviation, of an array and of a stream."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

NORMAL_QUARTILE = 0.6744897501960817  # median of |x| for standard normal x
# Gain with the smallest asymptotic variance: 1 / (density of log|x| at its median) for normal x.
_GAIN = 1.0 / (2.0 * NORMAL_QUARTILE * math.exp(-0.5 * NORMAL_QUARTILE**2) / math.sqrt(2.0 * math.pi))


def mad(values: NDArray[np.float64]) -> float:
    """Median absolute deviation from the median, scaled to be the standard deviation of normal values.

    ``1.4826 median |x - median x|``: half of the values may be arbitrary before it breaks. NaN for no values.

    Source: Hampel 1974, JASA 69(346).

    Example:
        >>> round(mad(np.array([1.0, 2.0, 3.0, 4.0, 1e6])), 4)
        1.4826
    """
    if values.size == 0:
        return math.nan
    return float(np.median(np.abs(values - np.median(values)))) / NORMAL_QUARTILE


def track(scale: float, deviation: float, n: float) -> float:
    """The scale after one more deviation from zero, n values being remembered.

    ``log s += (c / n) (1[|x| > .6745 s] - 1/2)``: a stochastic approximation of the median of |x|, multiplicative so
    that it is equivariant and stays positive.

    Source: Robbins & Monro 1951, Ann. Math. Stat. 22(3).

    Example:
        >>> s = 5.0
        >>> for i in range(4000):
        ...     s = track(s, math.sin(i) * 2.0, 200.0)  # median of |2 sin| is sqrt(2)
        >>> abs(s / (math.sqrt(2) / NORMAL_QUARTILE) - 1) < 0.03
        True
    """
    step = 0.5 * _GAIN / n
    return scale * math.exp(step if abs(deviation) > NORMAL_QUARTILE * scale else -step)
