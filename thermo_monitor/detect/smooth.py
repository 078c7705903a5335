"""Cuts of a short series that looks like a random walk: changes, unless its curve is simple.

A piecewise constant fit turns every slow decay into a staircase, and a cubic describes the decay.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

CUBIC = 3
DESCRIBED = 0.3  # of what two levels leave, that a cubic has to leave to describe the readings better
SHARE = 0.5  # of what the cubic leaves, that a step has to explain
ROUNDING = 1e-18  # of a sum of squares
REACH = 3.0  # a side counts up to this many times the shorter one


def drop_described(series: NDArray[np.float64], cuts: list[int]) -> list[int]:
    """The cuts around which a cubic does not describe the readings better than two levels do.

    A cut goes when the cubic leaves less than 30 % of what the levels leave, as a cubic finds a curve in any few
    readings, unless a step takes half of the rest: a decay goes, a transition on a decay stays.

    Args:
        series: readings, shape (n, d).
        cuts: first samples of the segments after the first one.

    Returns:
        0-based indices, ascending.

    Example:
        >>> decay = 20.0 * np.exp(-np.arange(300) / 40.0)[:, None]
        >>> drop_described(decay, [30])
        []
        >>> drop_described(decay - 9.0 * (np.arange(300) >= 150)[:, None], [30, 150])
        [150]
    """
    cuts = list(cuts)
    while cuts:
        edges = [0, *cuts, len(series)]
        shares = [_left_by_cubic(series, *edges[i : i + 3]) for i in range(len(cuts))]
        worst = int(np.argmin(shares))
        if shares[worst] >= DESCRIBED:
            break
        del cuts[worst]
    return cuts


def _left_by_cubic(series: NDArray[np.float64], start: int, cut: int, end: int) -> float:
    """What a cubic leaves around the cut, as a share of what two levels leave; 1 where a step belongs to it."""
    shorter = min(cut - start, end - cut)
    low, high = max(start, int(cut - REACH * shorter) - 1), min(end, int(cut + REACH * shorter) + 1)
    window = series[low:high]
    left, gain = _beside(window, cut - low, shorter)
    levels = sum(float(((side - side.mean(0)) ** 2).sum()) for side in np.split(window, [cut - low]))
    if left <= ROUNDING * levels:
        return 0.0
    return left / levels if gain < SHARE * left else 1.0


def _beside(window: NDArray[np.float64], cut: int, shorter: int) -> tuple[float, float]:
    """Sum of squares that a cubic leaves, and how far a step near the cut lowers it."""
    basis, length = _curve(len(window))
    rest = window - basis @ (basis.T @ window)
    score = (np.cumsum(rest[::-1], axis=0)[::-1][1:] ** 2).sum(axis=1)
    gain = np.where(length > 0.5, score / np.maximum(length, 0.5), 0.0)
    first = max(0, cut - 1 - shorter // 2)
    return float((rest**2).sum()), float(gain[first : cut + shorter // 2].max())


@functools.lru_cache(maxsize=64)
def _curve(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal polynomials on n readings, and the squared length of each step made orthogonal to them.

    That of a step after t readings is (n - t) - |sum of the polynomials after t|^2.
    """
    powers = np.arange(min(CUBIC, n // 2 - 1) + 1)
    basis, _ = np.linalg.qr(np.linspace(-1.0, 1.0, n)[:, None] ** powers)
    after = np.cumsum(basis[::-1], axis=0)[::-1][1:]
    return basis, np.arange(n - 1, 0, -1) - (after**2).sum(axis=1)
