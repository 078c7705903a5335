"""Means over sentences with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with an interval.

    Attributes:
        value: the estimate; NaN if nothing could be measured.
        low: lower end, NaN with fewer than two values.
        high: upper end.
        count: number of values that it stands on.
        level: confidence.
    """

    value: float
    low: float
    high: float
    count: int
    level: float = 0.95

    def __str__(self) -> str:
        """As in a text: value [low, high]."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def mean_interval(values: ArrayLike, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean of independent values, with a bootstrap interval (bias corrected and accelerated, scipy).

    Args:
        values: [N]; NaN are left out.
        level: confidence.
        resamples: of the bootstrap.
        seed: of the resamples.

    Returns:
        The interval. Equal values give an interval of no width: nothing in them says how far others might lie.

    Example:
        >>> mean_interval([1.0, 2.0, 3.0, float("nan")]).count, str(mean_interval([2.0, 2.0]))
        (3, '2.000 [2.000, 2.000]')
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[np.isfinite(x)]
    if len(x) < 2:
        return Interval(float(x[0]) if len(x) else math.nan, math.nan, math.nan, len(x), level)
    mean = float(x.mean())
    if np.ptp(x) <= 1e-12 * np.abs(x).max():
        return Interval(mean, mean, mean, len(x), level)
    found = stats.bootstrap(
        (x,), np.mean, confidence_level=level, n_resamples=resamples, rng=np.random.default_rng(seed), batch=256
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high), len(x), level)


def share_interval(hits: int, count: int, level: float = 0.95) -> Interval:
    """A share with Wilson's interval.

    Example:
        >>> str(share_interval(5, 10)), share_interval(0, 0).value
        ('0.500 [0.237, 0.763]', nan)
    """
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0, level)
    found = stats.binomtest(hits, count).proportion_ci(level, method="wilson")
    return Interval(hits / count, float(found.low), float(found.high), count, level)


def percentile_interval(value: float, resampled: Sequence[float] | Array, count: int, level: float = 0.95) -> Interval:
    """An estimate between the percentiles of what resamples gave; NaN without any that is finite.

    Example:
        >>> percentile_interval(0.5, [0.0, 1.0, float("nan")], 3, level=0.5)
        Interval(value=0.5, low=0.25, high=0.75, count=3, level=0.5)
    """
    x = np.asarray(resampled, dtype=np.float64)
    x = x[np.isfinite(x)]
    if not len(x):
        return Interval(value, math.nan, math.nan, count, level)
    low, high = np.quantile(x, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), count, level)
