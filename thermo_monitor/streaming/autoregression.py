"""The lag-one coefficient of a series, and the innovations that it leaves.

Autocorrelated readings are the reason why textbook detectors do not work on training curves: at ``phi = .9`` every
one of them alarms every fifty steps. The innovations ``u_t = r_t - phi r_{t-1}`` of an AR(1) series are independent.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LARGEST = 0.98  # a larger coefficient would hide every change: a shift of D shows as (1 - phi) D
WALK = 0.95  # from here on a finite series looks like a random walk
CLIPPED = 0.959  # root mean square of a standard normal clipped to its 2 % and 98 % quantiles
State = list[float]


def lag_one(residuals: NDArray[np.float64], largest: float = LARGEST) -> float:
    """Lag-one coefficient of detrended values, within ``[0, largest]``.

    ``sum r_i r_{i-1} / sum r_{i-1}^2`` on values clipped to their 2 % and 98 % quantiles, so that a spike is not
    taken for independence. Zero where the values do not vary.

    Example:
        >>> lag_one(np.array([1.0, -1.0] * 20))
        0.0
        >>> lag_one(np.sin(np.arange(200) / 100.0))
        0.98
    """
    if residuals.size < 3:
        return 0.0
    low, high = np.quantile(residuals, [0.02, 0.98])
    clipped = np.clip(residuals, low, high)
    below = float(np.dot(clipped[:-1], clipped[:-1]))
    above = float(np.dot(clipped[1:], clipped[:-1]))
    return min(max(above / below, 0.0), largest) if below > 0.0 and math.isfinite(below) else 0.0


def from_differences(values: NDArray[np.float64], largest: float = WALK) -> float:
    """Lag-one coefficient of a series that may contain shifts: ``1 + 2 rho_1(differences)``.

    An AR(1) series has ``rho_1(diff) = -(1 - phi) / 2``, and a shift touches one difference only; the price is a
    standard error about three times that of :func:`lag_one`.

    Example:
        >>> step = np.repeat([0.0, 8.0], 500) + np.random.default_rng(0).standard_normal(1000)
        >>> from_differences(step) < 0.15 < 0.8 < lag_one(step - step.mean())
        True
    """
    return _coefficient(_clipped(values), largest) if values.size >= 4 else 0.0


def _clipped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    differences = np.diff(values)
    low, high = np.quantile(differences, [0.02, 0.98])
    return np.clip(differences, low, high)


def _coefficient(differences: NDArray[np.float64], largest: float) -> float:
    below = float(np.dot(differences, differences))
    if not below > 0.0 or not math.isfinite(below):
        return 0.0
    return min(max(1.0 + 2.0 * float(np.dot(differences[1:], differences[:-1])) / below, 0.0), largest)


def marginal(values: NDArray[np.float64]) -> float:
    """Variance of AR(1) noise in a series that may contain shifts: ``Var(diff) / (2 (1 - phi))``.

    The differences are clipped to their 2 % and 98 % quantiles, and the variance is that which normal ones would have.

    Example:
        >>> step = np.repeat([0.0, 50.0], 2000) + np.random.default_rng(0).standard_normal(4000)
        >>> 0.9 < marginal(step) < 1.1
        True
    """
    if values.size < 4:
        return 0.0
    differences = _clipped(values)
    size = float(np.dot(differences, differences)) / differences.size / CLIPPED**2
    return size / (2.0 * (1.0 - _coefficient(differences, WALK)))


def cautious(phi: float, n: float, largest: float = LARGEST) -> float:
    """The coefficient to whiten with when it was estimated from n detrended values.

    The estimate is low by ``(2 + 4 phi) / n`` (Kendall 1954, with a fitted line), and one that is too low leaves
    correlation behind, which costs false alarms, whereas one that is too high only costs delay. So the bias is undone
    and half a standard error ``sqrt((1 - phi^2) / n)`` is added; both vanish as n grows.

    Example:
        >>> round(cautious(0.9, 200.0), 3), round(cautious(0.9, 20_000.0), 3)
        (0.943, 0.902)
    """
    return min(phi + (2.0 + 4.0 * phi) / n + 0.5 * math.sqrt(max(1.0 - phi * phi, 0.0) / n), largest)


def init(phi: float, variance: float, n: float) -> State:
    """State that stands for n values with this coefficient and variance: ``[n, sum r r_prev, sum r_prev^2]``."""
    return [n, phi * variance * n, variance * n]


def update(state: State, previous: float, current: float, memory: float) -> State:
    """One more pair of neighbouring residuals, in place; about ``memory`` pairs are remembered."""
    keep = 1.0 - 1.0 / memory if state[0] >= memory else 1.0
    state[0] = state[0] * keep + 1.0
    state[1] = state[1] * keep + previous * current
    state[2] = state[2] * keep + previous * previous
    return state


def value(state: State, largest: float = LARGEST) -> float:
    """The coefficient, within ``[0, largest]``.

    Example:
        >>> state = init(0.5, 1.0, 100.0)
        >>> value(state)
        0.5
        >>> for _ in range(5000):
        ...     state = update(state, 1.0, 0.9, 500.0)
        >>> round(value(state), 3)
        0.9
    """
    return min(max(state[1] / state[2], 0.0), largest) if state[2] > 0.0 else 0.0
