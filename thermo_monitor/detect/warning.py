"""Does a series slow down? Before some transitions a system recovers more and more slowly from its own noise.

The lag-one correlation and the variance of its fluctuations then rise together. Kendall's tau of each against time, in
the halves that a window contains, and the smaller of the two is compared with the same number for stationary AR(1)
noise with the coefficient of the series (a surrogate test). The plain recipe, tau > .5, is wrong for every fifth
stationary series.

Found not to tell runs apart: the smallest p-value over the watched quantities before a generalization had an AUROC of
.62 against runs that never generalize, on 38 runs for development of the transitions benchmark. It is therefore no part
of a run's ``detect/early_warning`` (``simpler``), and is here for series of one's own.

Source: Dakos et al. 2012, PLoS ONE 7(7) e41010 (indicators and surrogates); Dablander & Bury 2022 (why to de-trend).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.streaming import autoregression, scale

LENGTHS = (256, 128, 64)  # of the window, the longest that there are readings for
POSITIONS = 16  # rolling halves of it that are compared
SURROGATES = 499
Matrix = NDArray[np.float64]


@functools.lru_cache(maxsize=8)
def _curves(n: int) -> Matrix:
    """Orthonormal basis of the parabolas on n readings, shape (n, 3)."""
    return np.asarray(np.linalg.qr(np.vander(np.linspace(-1.0, 1.0, n), 3))[0])


def detrended(rows: Matrix) -> Matrix:
    """Rows without their best parabola, what is further than four robust deviations out brought in.

    Example:
        >>> bool(np.allclose(detrended(np.arange(64.0)[None] ** 2), 0.0, atol=1e-9))
        True
    """
    basis = _curves(rows.shape[1])
    rest = rows - (rows @ basis) @ basis.T
    size = np.median(np.abs(rest), axis=1, keepdims=True) / scale.NORMAL_QUARTILE
    return np.asarray(np.clip(rest, -4.0 * size, 4.0 * size))


def kendall(rows: Matrix) -> Matrix:
    """Kendall's tau of each row against time: concordant minus discordant pairs, over all pairs.

    Example:
        >>> kendall(np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])).round(3).tolist()
        [1.0, -0.333]
    """
    early, late = np.triu_indices(rows.shape[1], 1)
    return np.asarray(np.mean(np.sign(rows[:, late] - rows[:, early]), axis=1))


def indicators(rows: Matrix) -> tuple[Matrix, Matrix]:
    """Lag-one correlation and variance in each rolling half of each row, both of shape (rows, POSITIONS + 1).

    With prefix sums; ``sum (r_t - m)(r_{t-1} - m)`` is ``sum r_t r_{t-1} - m (sum of both) + (half - 1) m^2``.
    """
    half = rows.shape[1] // 2
    first = np.arange(0, rows.shape[1] - half + 1, half // POSITIONS)
    last = first + half

    def prefix(terms: Matrix) -> Matrix:
        return np.pad(np.cumsum(terms, axis=1), ((0, 0), (1, 0)))

    sums, squares, products = prefix(rows), prefix(rows**2), prefix(rows[:, 1:] * rows[:, :-1])
    total = sums[:, last] - sums[:, first]
    mean = total / half
    variance = np.maximum((squares[:, last] - squares[:, first]) / half - mean**2, 1e-300)
    both = 2.0 * total - rows[:, first] - rows[:, last - 1]
    together = products[:, last - 1] - products[:, first] - mean * both + (half - 1) * mean**2
    return np.asarray(together / (half * variance)), np.asarray(variance)


def trend(rows: Matrix) -> Matrix:
    """The smaller tau of the two indicators, for each row: large only if correlation *and* variance rise."""
    correlation, variance = indicators(detrended(rows))
    return np.minimum(kendall(correlation), kendall(variance))


@functools.lru_cache(maxsize=64)
def _stationary(n: int, percent: int) -> Matrix:
    """The trend of stationary AR(1) noise with coefficient ``percent / 100``, sorted. Computed once, milliseconds."""
    rng, phi = np.random.default_rng([n, percent]), percent / 100.0
    rows = np.empty((SURROGATES, n))
    level = rng.standard_normal(SURROGATES)
    for t, innovation in enumerate(rng.standard_normal((n, SURROGATES)) * math.sqrt(1.0 - phi * phi)):
        rows[:, t] = level = phi * level + innovation
    return np.sort(trend(rows))


def p_value(values: Matrix) -> float:
    """Probability that stationary AR(1) noise as correlated as ``values`` shows such a rise of both indicators.

    ``(1 + surrogates with a trend as large) / (1 + surrogates)``. The coefficient is that of the de-trended values, its
    bias undone, to the next twentieth.

    Args:
        values: shape (n,), equally spaced, 64 or more; the last 64, 128 or 256 are used.

    Returns:
        Within (0, 1]; NaN for fewer values, or such as do not vary.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal(256)
        >>> slower = np.zeros(256)
        >>> for t in range(1, 256):
        ...     slower[t] = t / 256 * slower[t - 1] + noise[t]  # the coefficient rises from 0 to 1
        >>> p_value(noise) > 0.05 > p_value(slower)
        True
    """
    n = next((length for length in LENGTHS if len(values) >= length), 0)
    if n == 0:
        return math.nan
    rows = np.asarray(values[-n:], dtype=np.float64)[None]
    rest = detrended(rows)[0]
    if not np.ptp(rest) > 1e-9 * np.max(np.abs(rows)):
        return math.nan
    phi = autoregression.lag_one(rest)
    phi = min(phi + (3.0 + 7.0 * phi) / n, autoregression.LARGEST)  # three fitted coefficients lower it further
    null = _stationary(n, min(5 * round(20.0 * phi), 98))
    above = null.size - int(np.searchsorted(null, trend(rows)[0], side="left"))
    return (1 + above) / (1 + null.size)
