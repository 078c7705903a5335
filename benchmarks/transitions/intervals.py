"""Intervals for shares, medians and rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, chi2


def share(hits: int, of: int, level: float = 0.95) -> tuple[float, float, float]:
    """A share and its Clopper-Pearson interval."""
    if not of:
        return math.nan, math.nan, math.nan
    tail = (1 - level) / 2
    low = beta.ppf(tail, hits, of - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, of - hits) if hits < of else 1.0
    return hits / of, float(low), float(high)


def rate(events: int, exposure: float, level: float = 0.95) -> tuple[float, float, float]:
    """Events per unit of exposure and the exact Poisson interval."""
    if not exposure:
        return math.nan, math.nan, math.nan
    tail = (1 - level) / 2
    low = chi2.ppf(tail, 2 * events) / 2 if events else 0.0
    high = chi2.ppf(1 - tail, 2 * events + 2) / 2
    return events / exposure, float(low) / exposure, float(high) / exposure


def bootstrap(
    values: Sequence[float], statistic: Callable[[NDArray[np.float64]], float] = np.median, draws: int = 2000
) -> tuple[float, float, float]:
    """A statistic and its 95 % percentile interval over resampled runs."""
    array = np.asarray([v for v in values if math.isfinite(v)])
    if not len(array):
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(0)
    drawn = [statistic(array[rng.integers(0, len(array), len(array))]) for _ in range(draws)]
    return float(statistic(array)), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))
