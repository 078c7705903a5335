"""Cuts that are not changes: a piecewise constant fit turns every slow decay into a staircase.

Around each cut a smooth curve (a polynomial of degree four) is fitted, and one with a step in it. The cut whose step
improves the fit least is dropped if that is not worth the penalty, its two segments become one, and so on, until every
step is worth it. A step between two levels is worth it too if it fits better *than* the curve, by a quarter of the
penalty: a curve of degree four can imitate most of a step, and no decay looks more like two levels than like a curve.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.detect.correlated import FEW
from thermo_monitor.streaming import autoregression

DEGREE, CUBIC = 4, 3
DESCRIBED = 0.3  # of what two levels leave, that a cubic has to leave to describe few readings better
BETTER = 0.25  # of the penalty
SHARE = 0.5  # of what the curve leaves unexplained beyond the noise, that a step has to explain
ROUNDING = 1e-18  # of a sum of squares
ERRORS = 2.0  # standard errors by which the noise may be smaller than it seems
REACH = 3.0  # a side counts up to this many times the shorter one


def drop_explained(series: NDArray[np.float64], cuts: list[int], penalty: float) -> list[int]:
    """The cuts that no smooth curve explains.

    Args:
        series: readings of unit long-run variance, shape (n, d).
        cuts: first samples of the segments after the first one.
        penalty: what a step must take from the sum of squares.

    Returns:
        0-based indices, ascending.

    Example:
        >>> decay = 20.0 * np.exp(-np.arange(400) / 100.0)[:, None]
        >>> drop_explained(decay, [30, 70, 120, 190], 60.0)
        []
        >>> drop_explained(decay - 9.0 * (np.arange(400) >= 300)[:, None], [70, 300], 60.0)
        [300]
    """
    cuts, moves, known = list(cuts), len(cuts), dict[tuple[int, ...], tuple[float, int]]()
    while cuts:
        edges = [0, *cuts, len(series)]
        around = [(edges[i], edges[i + 1], edges[i + 2]) for i in range(len(cuts))]
        known = {key: known[key] if key in known else _judge(series, *key) for key in around}
        judged = [known[key] for key in around]
        worst = min(range(len(cuts)), key=lambda i: judged[i][0])
        if judged[worst][0] < penalty:
            del cuts[worst]
            continue
        dates = sorted({date for _, date in judged})
        if dates == cuts or moves == 0:
            return dates
        # A step has to be worth it at its own date as well.
        cuts, moves = dates, moves - 1
    return []


def drop_described(series: NDArray[np.float64], cuts: list[int]) -> list[int]:
    """The cuts around which a cubic does not describe the readings better than two levels do.

    For series too short to know their noise. A cut goes when the cubic leaves less than the levels leave (up to 500
    readings: less than 30 % of that, as a cubic finds a curve in any few readings), unless a step takes half of the
    rest: a decay goes, a transition on a decay stays.

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
        if shares[worst] >= (DESCRIBED if len(series) <= FEW else 1.0):
            break
        del cuts[worst]
    return cuts


def _left_by_cubic(series: NDArray[np.float64], start: int, cut: int, end: int) -> float:
    """What a cubic leaves around the cut, as a share of what two levels leave; 1 where a step belongs to it."""
    low, high = _around(start, cut, end)
    left, gain, _ = _beside(series[low:high], cut - low, min(cut - start, end - cut), CUBIC)
    levels = _levels(series[low:high], cut - low)
    if left <= ROUNDING * levels:
        return 0.0
    return left / levels if gain < SHARE * left else 1.0


def _judge(series: NDArray[np.float64], start: int, cut: int, end: int) -> tuple[float, int]:
    """What the best step near the cut is worth, in units of the penalty's, and the date of that step.

    The fall of the sum of squares when the step is added to a curve, or what two levels leave less than the curve.
    """
    low, high = _around(start, cut, end)
    window = series[low:high]
    left, gain, best = _beside(window, cut - low, min(cut - start, end - cut), DEGREE)
    # A curve of higher degree leaves waves that every step improves a little; a step is what improves them most.
    step = gain if gain >= SHARE * (left - _noise(window)) else 0.0
    worth = max(step, (left - _levels(window, best)) / BETTER)
    # Where the noise is larger than elsewhere, the step has to be larger too.
    louder = max(_loudness(series, low, cut), _loudness(series, cut, high), 1.0)
    return worth / louder, low + best


def _around(start: int, cut: int, end: int) -> tuple[int, int]:
    reach = REACH * min(cut - start, end - cut)
    return max(start, int(cut - reach) - 1), min(end, int(cut + reach) + 1)


def _beside(window: NDArray[np.float64], cut: int, shorter: int, degree: int) -> tuple[float, float, int]:
    """Sum of squares that a curve leaves, how far a step near the cut lowers it, and the date of that step."""
    basis, length = _curve(len(window), degree)
    rest = window - basis @ (basis.T @ window)
    score = (np.cumsum(rest[::-1], axis=0)[::-1][1:] ** 2).sum(axis=1)
    gain = np.where(length > 0.5, score / np.maximum(length, 0.5), 0.0)
    first = max(0, cut - 1 - shorter // 2)
    best = first + int(np.argmax(gain[first : cut + shorter // 2]))
    return float((rest**2).sum()), float(gain[best]), best + 1


def _levels(window: NDArray[np.float64], cut: int) -> float:
    """Sum of squares that two levels leave."""
    return sum(float(((side - side.mean(0)) ** 2).sum()) for side in (window[:cut], window[cut:]))


@functools.lru_cache(maxsize=64)
def _curve(n: int, degree: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Orthonormal polynomials on n readings, and the squared length of each step made orthogonal to them.

    That of a step after t readings is (n - t) - |sum of the polynomials after t|^2.
    """
    powers = np.arange(min(degree, n // 2 - 1) + 1)
    basis, _ = np.linalg.qr(np.linspace(-1.0, 1.0, n)[:, None] ** powers)
    after = np.cumsum(basis[::-1], axis=0)[::-1][1:]
    return basis, np.arange(n - 1, 0, -1) - (after**2).sum(axis=1)


def _noise(window: NDArray[np.float64]) -> float:
    """Sum of squares of AR(1) noise in the window, less two standard errors of it."""
    total = variance = 0.0
    for column in window.T:
        phi, own = autoregression.from_differences(column), autoregression.marginal(column)
        total += own
        variance += 2.0 * own * own * (1.0 + phi * phi) / (1.0 - phi * phi)
    return len(window) * total - ERRORS * float(np.sqrt(len(window) * variance))


def _loudness(series: NDArray[np.float64], start: int, end: int) -> float:
    """Variance of the differences between ``start`` and ``end``, in that of the whole series."""
    whole, part = np.diff(series, axis=0), np.diff(series[start:end], axis=0)
    if len(part) < 10:
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.median(np.abs(part), axis=0) / np.median(np.abs(whole), axis=0)
    return float(np.max(np.where(np.isfinite(ratio), ratio, 1.0))) ** 2
