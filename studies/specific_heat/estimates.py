"""Estimates and how well they are known: shares, medians, rank correlations, power laws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

Values = NDArray[np.float64]
DRAWN = 1000  # bootstrap samples


def correlation(a: Values, b: Values, group: Values) -> list[float]:
    """Rank correlation within groups, with a 95 % bootstrap interval over runs.

    Ranks are taken in each group and centred there. Over all groups together, two times that both grow with the
    modulus would be correlated whatever the one says about the other.
    """
    if len(a) < 5:
        return [math.nan] * 3
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    drawn = _ranked(a, b, _resampled(members))
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (math.nan, math.nan)
    return [float(_ranked(a, b, [own[None] for own in members])[0]), float(low), float(high)]


def _resampled(members: Sequence[NDArray[np.intp]]) -> list[NDArray[np.intp]]:
    """Bootstrap samples of each group: [DRAWN, n] for each."""
    rng = np.random.default_rng(0)
    return [rng.choice(own, (DRAWN, len(own))) for own in members]


def _ranked(a: Values, b: Values, samples: Sequence[NDArray[np.intp]]) -> Values:
    """Correlation of the centred ranks of each line of the samples; NaN where one of them is constant."""
    x, y = (np.concatenate([_centred(values[own]) for own in samples], axis=1) for values in (a, b))
    scale = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return np.divide((x * y).sum(1), scale, out=np.full(len(x), math.nan), where=scale > 0)


def _centred(values: Values) -> Values:
    ranks: Values = rankdata(values, axis=1)
    return ranks - ranks.mean(1, keepdims=True)


def exponent(p: NDArray[np.integer], height: Values) -> list[float]:
    """Least-squares slope of ln height on ln p, with a 95 % bootstrap interval over the runs of each modulus."""
    found = np.isfinite(height) & (height > 0)
    x, y = np.log(p[found].astype(float)), np.log(height[found])
    members = [np.flatnonzero(x == g) for g in np.unique(x)]
    if len(members) < 3:
        return [math.nan] * 3
    low, high = np.quantile(_slope(x, y, np.concatenate(_resampled(members), axis=1)), [0.025, 0.975])
    return [float(_slope(x, y, np.concatenate(members)[None])[0]), float(low), float(high)]


def _slope(x: Values, y: Values, samples: NDArray[np.intp]) -> Values:
    u = x[samples] - x[samples].mean(1, keepdims=True)
    return (u * y[samples]).sum(1) / (u * u).sum(1)


def share(before: int, of: int) -> list[float]:
    """A share and its exact 95 % interval (Clopper and Pearson).

    Example:
        >>> [round(x, 3) for x in share(10, 10)]
        [1.0, 0.692, 1.0]
    """
    if not of:
        return [math.nan] * 3
    interval = binomtest(before, of).proportion_ci(method="exact")
    return [before / of, float(interval.low), float(interval.high)]


def interval(values: Values) -> list[float]:
    """A median and its 95 % bootstrap interval."""
    if len(values) < 2:
        return [math.nan] * 3
    low, high = np.quantile(np.median(values[_resampled([np.arange(len(values))])[0]], axis=1), [0.025, 0.975])
    return [float(np.median(values)), float(low), float(high)]


def quartiles(values: Values) -> list[float]:
    """Median, lower and upper quartile."""
    if not len(values):
        return [math.nan] * 3
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return [float(middle), float(low), float(high)]


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return float(np.mean(values)) if len(values) else math.nan
