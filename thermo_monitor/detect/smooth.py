"""Cuts that are not changes: a piecewise constant fit turns every slow decay into a staircase.

Around each cut a smooth curve (a polynomial of degree four) is fitted, and one with a step in it. The cut whose step
improves the fit least is dropped if that is not worth the penalty, its two segments become one, and so on, until every
step is worth it. A step between two levels is worth it too if it fits better *than* the curve, by a quarter of the
penalty: a curve of degree four can imitate most of a step, and no decay looks more like two levels than like a curve.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DEGREE = 4
BETTER = 0.25  # of the penalty
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
    cuts = list(cuts)
    while cuts:
        edges = [0, *cuts, len(series)]
        judged = [_judge(series, *edges[i : i + 3]) for i in range(len(cuts))]
        worst = min(range(len(cuts)), key=lambda i: judged[i][0])
        if judged[worst][0] >= penalty:
            return sorted({date for _, date in judged})
        del cuts[worst]
    return []


def _judge(series: NDArray[np.float64], start: int, cut: int, end: int) -> tuple[float, int]:
    """What the best step near the cut is worth, in units of the penalty's, and the date of that step.

    The fall of the sum of squares when the step is added to a curve, or what two levels leave less than the curve.
    """
    shorter = min(cut - start, end - cut)
    low, high = max(start, int(cut - REACH * shorter) - 1), min(end, int(cut + REACH * shorter) + 1)
    window = series[low:high]
    n = len(window)
    if n < 2 * DEGREE + 2:
        return float(((window[: cut - low].mean(0) - window[cut - low :].mean(0)) ** 2).sum()) * n / 4.0, cut
    time = np.linspace(-1.0, 1.0, n)
    basis, _ = np.linalg.qr(time[:, None] ** np.arange(DEGREE + 1))
    rest = window - basis @ (basis.T @ window)
    # A step at t, made orthogonal to the curve, has squared length (n - t) - |sum of the basis after t|^2.
    after = np.cumsum(basis[::-1], axis=0)[::-1][1:]
    length = np.arange(n - 1, 0, -1) - (after**2).sum(axis=1)
    score = (np.cumsum(rest[::-1], axis=0)[::-1][1:] ** 2).sum(axis=1)
    gain = np.where(length > 0.5, score / np.maximum(length, 0.5), 0.0)
    near = slice(max(0, cut - low - 1 - shorter // 2), cut - low + shorter // 2)
    best = near.start + int(np.argmax(gain[near]))
    levels = sum(float(((side - side.mean(0)) ** 2).sum()) for side in (window[: best + 1], window[best + 1 :]))
    worth = max(float(gain[best]), (float((rest**2).sum()) - levels) / BETTER)
    # Where the noise is larger than elsewhere, the step has to be larger too.
    louder = max(_loudness(series, low, cut), _loudness(series, cut, high), 1.0)
    return worth / louder, low + best + 1


def _loudness(series: NDArray[np.float64], start: int, end: int) -> float:
    """Variance of the differences between ``start`` and ``end``, in that of the whole series."""
    whole, part = np.diff(series, axis=0), np.diff(series[start:end], axis=0)
    if len(part) < 10:
        return 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.median(np.abs(part), axis=0) / np.median(np.abs(whole), axis=0)
    return float(np.max(np.where(np.isfinite(ratio), ratio, 1.0))) ** 2
