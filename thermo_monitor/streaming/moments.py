"""Mean and variance of a stream, without keeping it and without cancellation.

State: ``[n, m, M]`` with n the number of values, m their mean and M the sum of squared deviations from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Moments = list[float]


def init() -> Moments:
    """The state that has seen nothing."""
    return [0.0, 0.0, 0.0]


def update(state: Moments, value: float) -> Moments:
    """One more value, in place: ``D = x - m; m += D / n; M += D (x - m)``.

    The obvious sums of x and x^2 lose every digit when the mean is large against the spread; these do not.

    Source: Welford 1962, Technometrics 4(3).

    Example:
        >>> state = init()
        >>> for x in (1e9 + 1, 1e9 + 2, 1e9 + 3):
        ...     state = update(state, x)
        >>> value(state)
        (1000000002.0, 1.0)
    """
    state[0] += 1.0
    difference = value - state[1]
    state[1] += difference / state[0]
    state[2] += difference * (value - state[1])
    return state


def fold(values: Sequence[float]) -> Moments:
    """The state after all of ``values``."""
    state = init()
    for x in values:
        update(state, x)
    return state


def merge(first: Moments, second: Moments) -> Moments:
    """The state of two parts put together, in either order.

    With ``D = m_b - m_a``: ``m = m_a + D n_b / n`` and ``M = M_a + M_b + D^2 n_a n_b / n``.

    Source: Chan, Golub, LeVeque 1983, The American Statistician 37(3).

    Example:
        >>> merge(fold([1.0, 2.0]), fold([3.0])) == fold([1.0, 2.0, 3.0])
        True
    """
    n = first[0] + second[0]
    if n == 0.0:
        return init()
    difference = second[1] - first[1]
    mean = first[1] + difference * second[0] / n
    return [n, mean, first[2] + second[2] + difference * difference * first[0] * second[0] / n]


def value(state: Moments) -> tuple[float, float]:
    """Mean and unbiased variance; NaN where too few values make them undefined.

    Example:
        >>> value(fold([4.0]))
        (4.0, nan)
    """
    n, mean, squares = state
    return (mean if n >= 1 else math.nan), (squares / (n - 1) if n >= 2 else math.nan)
