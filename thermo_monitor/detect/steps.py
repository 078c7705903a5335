"""Is it a step, or a smooth curve in correlated noise? The evidence for each, as one Bayes factor.

A piecewise constant fit turns every decay into a staircase, and noise of lag-one coefficient .9 looks like levels. So
three families of models are compared around a cut, all in AR(1) noise: polynomials of degree 0 to 8, which stand for
whatever moves slowly; those of degree 0 to 4 with a step near the cut, abrupt or a sigmoid; and the same with an
excursion that comes back exponentially. With the k columns X of a model and n readings y, both whitened by phi,

    ``p(y | X, phi) ~ sqrt(1 - phi^2) |X'X|^(-1/2) G((n - k) / 2) (RSS / 2)^(-(n - k) / 2) (n v)^(-k / 2)``

is the likelihood with the coefficients and the size of the noise integrated out, ``G`` the gamma function and ``v`` the
marginal variance of the noise: the prior of a coefficient is as wide as one deviation of the noise. ``phi`` is averaged
over a grid, as a short series knows it badly. Innovations beyond 3.5 robust deviations are left out of all
models, or one spike and the tails would decide.

There is one number to choose, and it is a rate: a step is expected once in 10,000 readings, so that is its prior odds.

Sources: Kass & Raftery 1995, JASA 90(430), for the factor; Harville 1974, Biometrika 61(2), for the likelihood.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

EVERY = 10_000.0  # readings in which one step is expected
DEGREE, UNDER = 8, 4  # of a curve, and of one under a step or an excursion
WIDTHS = (1, 6, 20, 60, 200)  # readings between 5 % and 95 % of a step
MEMORIES = (3, 10, 30, 60, 120, 240)  # readings in which an excursion falls to 1 / e
BACK = 4  # memories after which an excursion is over
OUTLIER = 3.5  # robust standard deviations of an innovation
GRID, LARGEST = 20, 0.995  # values of phi
WALK = (
    20.0  # n (1 - phi) below which a series of n readings cannot tell a random walk from levels (Dickey & Fuller 1979)
)
REACH = 3  # a side counts up to this many times the shorter one
LEAST = 8  # readings
LASTING = 33  # readings: three windows of the filter that takes out spikes
ROUNDING, COLLINEAR = 1e-13, 1e-8  # of a sum of squares
Array = NDArray[np.float64]
Rows = NDArray[np.bool_]


def drop_unlikely(
    series: Array,
    cuts: list[int],
    every: float = EVERY,
    degree: int = DEGREE,
    raw: Array | None = None,
    walk: float = WALK,
) -> list[int]:
    """The cuts that are more likely steps than part of a smooth curve, an excursion or correlated noise.

    The least likely cut is dropped first, its two segments become one, and its neighbours are judged anew.

    Args:
        series: readings, shape (n, d).
        cuts: first samples of the segments after the first one.
        every: readings in which one step is expected.
        degree: of the curves; fewer readings have fewer bends.
        raw: the readings as they were, where ``series`` is without its spikes; what lasts fewer than ``LASTING``
            readings is judged by them, as an excursion without its tip is no longer one.
        walk: ``n (1 - phi)`` of the most correlated noise that is thought of.

    Returns:
        0-based indices, ascending.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal((400, 1))
        >>> decay = 20.0 * np.exp(-np.arange(400) / 100.0)[:, None] + noise
        >>> drop_unlikely(decay, [30, 70, 120, 190])
        []
        >>> drop_unlikely(decay - 9.0 * (np.arange(400) >= 300)[:, None], [70, 300])
        [300]
    """
    cuts, known = list(cuts), dict[tuple[int, int, int], float]()
    phis = np.tanh(np.linspace(0.0, math.atanh(min(max(1.0 - walk / len(series), 0.0), LARGEST)), GRID))
    while cuts:
        edges = [0, *cuts, len(series)]
        around = [(edges[i], edges[i + 1], edges[i + 2]) for i in range(len(cuts))]
        for start, cut, end in around:
            if (start, cut, end) not in known:
                shorter = min(cut - start, end - cut)
                low, high = max(start, cut - REACH * shorter - 1), min(end, cut + REACH * shorter + 1)
                readings = series if raw is None or shorter >= LASTING else raw
                known[start, cut, end] = log_odds(readings[low:high], cut - low, phis, every, degree)
        odds = [known[key] for key in around]
        worst = int(np.argmin(odds))
        if odds[worst] >= 0.0:
            break
        del cuts[worst]
    return cuts


def log_odds(window: Array, cut: int, phis: Array, every: float = EVERY, degree: int = DEGREE) -> float:
    """Logarithm of the odds that there is a step near ``cut``, against a curve without one and an excursion.

    Args:
        window: readings, shape (n, d).
        cut: where the step is looked for.
        phis: lag-one coefficients that the noise may have, ascending.
        every: readings in which one step is expected, and one excursion.
        degree: of the curves.
    """
    n = len(window)
    if n < LEAST:
        return -math.inf
    basis = _polynomials(n, min(degree, n // 4 - 1))
    steps, excursions = _steps(n, cut), _excursions(n, cut)
    shapes = np.concatenate([steps, excursions], axis=1)
    plain, shaped = np.zeros(basis.shape[1]), np.zeros((min(UNDER + 1, basis.shape[1]), shapes.shape[1]))
    for column in window.T:
        innovations = likelihoods(column, basis, np.zeros((n, 0)), phis)[2]
        limit = OUTLIER * 1.4826 * float(np.median(np.abs(innovations)))
        keep = np.abs(innovations) <= (limit or math.inf)
        if keep.sum() < max(n // 2, LEAST):
            keep[:] = True
        without, with_shape, _ = likelihoods(column, basis, shapes, phis, keep)
        plain, shaped = plain + without, shaped + with_shape
    step, excursion = shaped[:, : steps.shape[1]].max(), shaped[:, steps.shape[1] :].max(initial=-math.inf)
    price = math.log(every)
    return float(step - price - max(plain.max(), excursion - price))


def likelihoods(
    y: Array, basis: Array, shapes: Array, phis: Array, keep: Rows | None = None
) -> tuple[Array, Array, Array]:
    """Log-likelihood of every model, up to a constant that they share.

    Args:
        y: readings, shape (n,).
        basis: columns of the curves, shape (n, k); a curve of degree j has the first j + 1.
        shapes: columns of which a model has one besides, shape (n, s).
        phis: lag-one coefficients to average over.
        keep: the whitened rows that count, all unless given.

    Returns:
        Without a shape (k,), with each (at most ``UNDER + 1``, s), and the innovations of the best curve (n,).
    """
    keep = np.ones(len(y), dtype=bool) if keep is None else keep
    (count, k), n, under = basis.shape, int(keep.sum()), min(UNDER + 1, basis.shape[1])
    target = y[:, None]
    bb, bz, by = (_products(basis, part, phis, keep) for part in (basis, shapes, target))
    zz, zy = _products(shapes, shapes, phis, keep, same=True), _products(shapes, target, phis, keep, same=True)
    yy = _products(target, target, phis, keep, same=True)
    own, floor = np.einsum("pjj->pj", bb).copy(), ROUNDING * yy + 1e-300
    without, with_shape = np.full((len(phis), k), -np.inf), np.full((len(phis), under, shapes.shape[1]), -np.inf)
    common = 0.5 * np.log1p(-phis * phis)

    def integrated(left: Array, columns: int) -> Array:
        rest, square = n - columns, 1.0 - (phis * phis).reshape(-1, *[1] * (left.ndim - 1))
        shrunk = math.lgamma(0.5 * rest) - 0.5 * rest * np.log(0.5 * left)
        return np.asarray(shrunk - 0.5 * columns * np.log(count * left / (rest * square)))

    for j in range(k):  # Gaussian elimination: after j columns what is left is what they leave of the others
        pivot = bb[:, j, j, None]
        if n <= j + 3 or np.any(pivot <= COLLINEAR * own[:, j, None]):
            break  # too few readings for this degree
        common = common - 0.5 * np.log(pivot[:, 0])
        yy = yy - by[:, j] ** 2 / pivot
        left = np.maximum(yy, floor)
        without[:, j] = common + integrated(left[:, 0], j + 1)
        if j < under:
            zz, zy = zz - bz[:, j] ** 2 / pivot, zy - bz[:, j] * by[:, j] / pivot
            size = np.maximum(zz, COLLINEAR)
            gain = np.minimum(zy * zy / size, left - floor)
            # The prior of a shape's height is as wide as one deviation of the noise, whatever its length.
            fitted = integrated(left - gain, j + 2) + 0.5 * np.log(count / size)
            with_shape[:, j] = np.where(zz > COLLINEAR, common[:, None] + fitted, -np.inf)
            bz = bz - (bb[:, :, j] / pivot)[:, :, None] * bz[:, j, None, :]
        ratio = (bb[:, :, j] / pivot)[:, :, None]
        by, bb = by - ratio * by[:, j, None], bb - ratio * bb[:, j, None, :].copy()
    best = int(np.argmax(without.max(axis=1)))
    white, phi = basis[:, : int(np.argmax(without[best])) + 1], float(phis[best])
    white, whitened = _whitened(white, phi), _whitened(target, phi)
    rest = whitened - white @ np.linalg.lstsq(white[keep], whitened[keep], rcond=None)[0]
    average = math.log(len(phis))
    return (
        np.asarray(np.logaddexp.reduce(without, axis=0) - average),
        np.asarray(np.logaddexp.reduce(with_shape, axis=0) - average),
        rest[:, 0],
    )


def _whitened(columns: Array, phi: float) -> Array:
    out = columns.copy()
    out[1:] -= phi * columns[:-1]
    out[0] *= math.sqrt(1.0 - phi * phi)
    return out


def _products(left: Array, right: Array, phis: Array, keep: Rows, same: bool = False) -> Array:
    """Products of whitened columns for every phi, a quadratic in it: (p, l, r), or of each with its like, (p, r)."""
    kept, first = keep[1:], keep[0]
    a, b, c, d = left[1:][kept], left[:-1][kept], right[1:][kept], right[:-1][kept]
    if same:
        now, across, before = (a * c).sum(axis=0), (a * d + b * c).sum(axis=0), (b * d).sum(axis=0)
        start, phi = left[0] * right[0] * first, phis[:, None]
    else:
        now, across, before = a.T @ c, a.T @ d + b.T @ c, b.T @ d
        start, phi = np.outer(left[0], right[0]) * first, phis[:, None, None]
    return np.asarray(now - phi * across + phi * phi * before + (1.0 - phi * phi) * start)


@functools.lru_cache(maxsize=64)
def _polynomials(n: int, degree: int) -> Array:
    """Orthonormal polynomials on n readings, shape (n, degree + 1)."""
    return np.linalg.qr(np.linspace(-1.0, 1.0, n)[:, None] ** np.arange(degree + 1))[0]


def _dates(n: int, cut: int, reach: int, pace: int) -> NDArray[np.intp]:
    return np.arange(max(1, cut - reach), min(n - 1, cut + reach) + 1, max(1, pace))


def _steps(n: int, cut: int) -> Array:
    """Steps from 0 to 1 near the cut, of every width that fits, shape (n, steps)."""
    time, shorter = np.arange(n)[:, None], min(cut, n - cut)
    near, columns = min(max(2, shorter // 8), 12), []
    for width in WIDTHS:
        if width > max(1, shorter):
            break
        ahead = time - _dates(n, cut, max(near, width // 2), width // 6)
        slope = 2.0 * math.log(19.0) / width
        sigmoid = 1.0 / (1.0 + np.exp(-np.clip(ahead * slope, -60.0, 60.0)))
        columns.append((ahead >= 0).astype(np.float64) if width == 1 else sigmoid)
    return np.concatenate(columns, axis=1)


def _excursions(n: int, cut: int) -> Array:
    """From 0 to 1 near the cut, or before the window, and back within it, shape (n, excursions)."""
    time, near = np.arange(n)[:, None], min(max(2, min(cut, n - cut) // 8), 12)
    columns = [np.zeros((n, 0))]
    for memory in MEMORIES:
        starts = [0] if BACK * memory <= n else []
        starts += _dates(n, cut, near, memory // 6).tolist() if BACK * memory <= n - cut else []
        if starts:
            since = time - np.array(starts)
            columns.append(np.where(since >= 0, np.exp(-np.maximum(since, 0) / memory), 0.0))
    return np.concatenate(columns, axis=1)
