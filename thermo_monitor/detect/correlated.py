"""Cuts that are not changes: correlated noise wanders, and a wandering series looks like levels.

The correlation is that of the residuals from the levels themselves, as differences know it badly in a short series.
Each cut has to lower the sum of squares by more than chance does in noise of that correlation; the one that lowers it
least is dropped first, and the correlation is estimated anew.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.streaming import autoregression

FEW = 500  # readings
WALK = 0.97  # lag-one coefficient of a walk
Matrix = NDArray[np.float64]


def drop_explained(series: Matrix, cuts: list[int]) -> list[int]:
    """The cuts that are worth more than ``(d + 2) log n`` in units of the long-run variance of the noise.

    Args:
        series: shape (n, d), not long.
        cuts: first samples of the segments after the first one.

    Returns:
        0-based indices, ascending.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal(200)
        >>> drop_explained((noise + 3.0 * (np.arange(200) >= 90))[:, None], [40, 90])
        [90]
    """
    cuts, (n, d) = list(cuts), series.shape
    while cuts:
        residuals = _residuals(series, cuts)
        phi = coefficients(residuals, len(cuts) + 1)
        scaled = series / _long_run(residuals, phi)
        edges = [0, *cuts, n]
        gains = [gain(scaled[a:c])[b - a - 1] for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)]
        worst = int(np.argmin(gains))
        if gains[worst] >= (d + 2) * math.log(n):
            break
        del cuts[worst]
    return cuts


def is_walk(series: Matrix, cuts: list[int]) -> bool:
    """Whether even the residuals from the levels look like a random walk: a lag-one coefficient of .97 or more.

    To tell a walk from levels, ``n (1 - phi)`` has to be above some 14 to 22, the critical values of unit-root tests
    without and with a trend (Dickey & Fuller 1979); 500 readings or fewer then cannot. Noise with a coefficient of .9
    passes for a walk at .95 in one of twenty series of 300 readings, at .97 in none of sixty.
    """
    phi = coefficients(_residuals(series, cuts), len(cuts) + 1)
    return float(phi.max()) >= WALK


def gain(series: Matrix) -> NDArray[np.float64]:
    """Fall of the sum of squares when the series is cut after 1, 2, ... readings.

    Example:
        >>> gain(np.array([0.0, 0.0, 1.0, 1.0])[:, None]).round(3).tolist()
        [0.333, 1.0, 0.333]
    """
    n = len(series)
    total = np.cumsum(series - series.mean(axis=0), axis=0)[:-1]
    first = np.arange(1, n)
    return np.asarray((total**2).sum(axis=1) * n / (first * (n - first)))


def _residuals(series: Matrix, cuts: list[int]) -> list[Matrix]:
    edges = [0, *cuts, len(series)]
    return [series[a:b] - series[a:b].mean(axis=0) for a, b in itertools.pairwise(edges)]


def coefficients(residuals: list[Matrix], levels: int) -> NDArray[np.float64]:
    """Lag-one coefficient of each column, from residuals within segments.

    Every estimated level makes it low by ``(1 + 3 phi) / n`` (Kendall 1954), which is undone.
    """
    n = sum(map(len, residuals))
    above = sum((r[1:] * r[:-1]).sum(axis=0) for r in residuals)
    below = sum((r * r).sum(axis=0) for r in residuals)
    phi = np.asarray(above / np.maximum(below, 1e-300))
    return np.asarray(phi + (1.0 + 3.0 * np.maximum(phi, 0.0)) * levels / n)


def _long_run(residuals: list[Matrix], phi: NDArray[np.float64]) -> NDArray[np.float64]:
    """Long-run standard deviation ``sigma / (1 - phi)``, phi raised by half its standard error."""
    joined = np.concatenate(residuals)
    n = len(joined)
    careful = np.clip(phi + 0.5 * np.sqrt(np.maximum(1.0 - phi * phi, 0.0) / n), 0.0, autoregression.LARGEST)
    u = joined[1:] - careful * joined[:-1]
    low, high = np.quantile(u, [0.02, 0.98], axis=0)
    sigma = np.sqrt(np.mean(np.clip(u, low, high) ** 2, axis=0)) / autoregression.CLIPPED
    return np.asarray(np.maximum(sigma / (1.0 - careful), 1e-12))
