"""Segmentation of a finished series: where did the regime change?

Candidates first. Up to 500 readings four dissimilar segmentations, each with one fixed setting, are put to the vote,
and three of them have to place a change within five samples. A longer series has enough readings to know its noise: it
is scaled by its long-run standard deviation ``sigma / (1 - phi)`` and cut by penalised least squares, and the vote is a
measure of confidence. Anything longer than 2,000 readings is cut on block means first and dated on the readings.

Then every candidate is judged (``steps``): is a step there more likely than a smooth curve, an excursion or correlated
noise? Up to 500 readings cannot tell a random walk from levels: there the levels stand, and where noise as correlated
as a walk explains them as well, each change says so (``Change.doubt``).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal, overload

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from thermo_monitor.detect import bocpd, correlated, seeded, smooth, steps
from thermo_monitor.detect.correlated import FEW, gain
from thermo_monitor.detect.voting import Change, vote
from thermo_monitor.streaming import autoregression, scale

BLOCKS = 2000  # block means at most
MOST = 40  # candidates; where there are more, the smaller ones are left out
NEEDED = 3  # of the four voters
SHORT, CUBIC = 1000.0, 3  # readings in which a step is expected where a vote has chosen it, and degree of the curve
DOUBT = "a random walk explains it as well: there are too few readings to tell one from levels"
Matrix = NDArray[np.float64]


@overload
def segment(values: ArrayLike, *, confidence: Literal[False] = False) -> list[int]: ...
@overload
def segment(values: ArrayLike, *, confidence: Literal[True]) -> list[Change]: ...
def segment(values: ArrayLike, *, confidence: bool = False) -> list[int] | list[Change]:
    """Changes of regime in a finished series.

    *Validity.* Above 500 readings (measured from 600 on) at most one change in 10,000 readings is false, on noise of
    lag-one coefficients up to .97, on trends, and with spikes. Up to 500 (measured at 300 and 480) that holds for the
    changes without a ``doubt``: the others are levels that a random walk explains as well. All changes together are
    false 3 to 7 times in 10,000 readings of noise with a coefficient of .97, and 2 times on a line in noise with .9.
    What a step has to be in order to be found: the tables of docs/detection.md, from ``benchmarks/segment_lengths.py``.

    Args:
        values: shape (n,), or (n, d) for d columns that change together; what is not finite is left out.
        confidence: whether to return the changes with their votes, intervals and doubts.

    Returns:
        0-based indices of the first sample of each new regime, or a :class:`Change` for each.

    Raises:
        ValueError: if ``values`` has neither one nor two dimensions.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal(300)
        >>> segment(noise + 4.0 * (np.arange(300) >= 120))
        [120]
        >>> segment(noise + 4.0 * (np.arange(300) >= 120), confidence=True)[0].votes
        ('bayes', 'binary', 'kernel', 'seeded')
    """
    series, index = _clean(np.asarray(values, dtype=np.float64))
    if len(series) < 4 or series.shape[1] == 0:
        return []
    changes = _long(series, confidence) if len(series) > FEW else _short(series)
    dated = [replace(c, index=int(index[c.index]), low=int(index[c.low]), high=int(index[c.high])) for c in changes]
    return dated if confidence else [change.index for change in dated]


def _clean(values: Matrix) -> tuple[Matrix, NDArray[np.intp]]:
    """Rows that are finite in every column that varies, and their indices; columns come out within [-1, 1]."""
    if values.ndim not in (1, 2):
        raise ValueError(f"values have shape (n,) or (n, d); got {values.shape}")
    table = values[:, None] if values.ndim == 1 else values
    finite = np.isfinite(table)
    table = table[:, finite.any(axis=0)] if table.size else table
    rows = np.flatnonzero(np.isfinite(table).all(axis=1))
    table = table[rows]
    if not table.size:
        return table, rows
    table = table / np.maximum(np.max(np.abs(table), axis=0), 1e-300)
    centred = table - np.median(table, axis=0)
    return centred[:, np.ptp(centred, axis=0) > 1e-12], rows


def _standardised(series: Matrix) -> Matrix:
    return np.asarray((series - series.mean(axis=0)) / series.std(axis=0))


def least_squares(series: Matrix, penalty: float, kernel: str = "linear") -> list[int]:
    """The segmentation with the smallest sum of squares (in the kernel's space) plus ``penalty`` for each change.

    Example:
        >>> least_squares(np.array([0.0, 0.1, 0.0, 5.0, 5.1])[:, None], penalty=1.0)
        [3]
    """
    import ruptures  # here, because it takes most of a second and the online detector does without

    found = ruptures.KernelCPD(kernel=kernel, min_size=2).fit(series).predict(pen=penalty)
    return [int(t) for t in found[:-1]]


def proposals(series: Matrix) -> dict[str, list[int]]:
    """What four dissimilar segmentations say about a standardised series."""
    import ruptures

    n, d = series.shape
    binary = ruptures.Binseg(model="l2", min_size=2, jump=1).fit(series).predict(pen=(d + 2) * math.log(n))
    return {
        "binary": [int(t) for t in binary[:-1]],
        "bayes": bocpd.most_probable(series),
        "kernel": least_squares(series, 3.0 * math.log(n), kernel="rbf"),
        "seeded": seeded.segment(series),
    }


def long_run_deviation(series: Matrix) -> NDArray[np.float64]:
    """Long-run standard deviation of each column: a mean over m readings has this over ``sqrt(m)``.

    ``sqrt((1 + phi) / (1 - phi))`` times the marginal one, and everything from differences, clipped to their 2 % and
    98 % quantiles, that a shift and a spike hardly touch: ``Var(diff) = 2 (1 - phi) Var(x)``. The series is divided
    by it and not whitened, as whitening hides gradual transitions and makes two changes of every spike.

    Example:
        >>> steps = np.repeat([0.0, 50.0], 2000) + np.random.default_rng(0).standard_normal(4000)
        >>> bool(0.9 < long_run_deviation(steps[:, None])[0] < 1.1)
        True
    """
    phi = np.array([autoregression.from_differences(x) for x in series.T])
    marginal = np.array([autoregression.marginal(x) for x in series.T])
    return np.asarray(np.maximum(np.sqrt(marginal * (1.0 + phi) / (1.0 - phi)), 1e-12))


def _short(series: Matrix) -> list[Change]:
    """The vote, without what something else explains better; what a random walk explains as well stays, in doubt."""
    changes = vote(proposals(_standardised(series)), NEEDED)
    kept, clipped = [change.index for change in changes], _without_spikes(series)
    if correlated.is_walk(series, kept):
        kept = smooth.drop_described(series, kept)
    else:
        kept = steps.drop_unlikely(clipped, correlated.drop_explained(series, kept), SHORT, CUBIC, series)
    sure = steps.drop_unlikely(clipped, kept, SHORT, CUBIC, series, walk=0.0)
    return [replace(c, doubt="" if c.index in sure else DOUBT) for c in changes if c.index in kept]


def _without_spikes(series: Matrix, reach: int = 5) -> Matrix:
    """Readings clipped to three deviations around the median of their neighbours (Hampel's filter)."""
    padded = np.pad(series, ((reach, reach), (0, 0)), mode="reflect")
    middle = np.median(sliding_window_view(padded, 2 * reach + 1, axis=0), axis=-1)
    rest = series - middle
    limit = 3.0 * np.median(np.abs(rest), axis=0) / scale.NORMAL_QUARTILE
    return np.asarray(middle + np.clip(rest, -limit, limit))


def _long(series: Matrix, confidence: bool) -> list[Change]:
    n, d = series.shape
    size = math.ceil(n / BLOCKS)
    whole = n // size
    blocks = series[: whole * size].reshape(whole, size, d).mean(axis=1) if size > 1 else series
    scaled = _without_spikes(blocks) / (long_run_deviation(series) / math.sqrt(size))
    cuts = steps.drop_unlikely(scaled, _candidates(scaled))
    votes = proposals(_standardised(blocks)) if confidence and cuts else {}
    edges = [0, *cuts, whole]
    changes = []
    for before, cut, after in zip(edges, cuts, edges[2:], strict=False):
        low, high = _interval(scaled, before, cut, after)
        date = _refine(series, before * size, cut * size, min(after * size, n), size) if size > 1 else cut
        names = [name for name, dates in votes.items() if any(abs(t - cut) <= max(5, high - low) for t in dates)]
        changes.append(
            Change(date, min(low * size, date), max(min(high * size, n - 1), date), ("least squares", *sorted(names)))
        )
    return changes


def _candidates(scaled: Matrix) -> list[int]:
    """The ``MOST`` largest cuts at most, as a noiseless curve has hundreds."""
    penalty = (scaled.shape[1] + 2) * math.log(len(scaled))
    while len(cuts := least_squares(scaled, penalty)) > MOST:
        penalty *= 2.0
    return cuts


def _interval(series: Matrix, start: int, cut: int, end: int) -> tuple[int, int]:
    """Dates whose log-likelihood is within 2 of the best one."""
    fall = gain(series[start:end])
    near = np.flatnonzero(fall >= fall[cut - start - 1] - 4.0) + start + 1
    return int(near[0]), int(near[-1])


def _refine(series: Matrix, start: int, cut: int, end: int, reach: int) -> int:
    """The date on the readings: the best cut between the two levels near the date on the block means."""
    low, high = max(start + 1, cut - 2 * reach), min(end - 1, cut + 2 * reach)
    before, after = series[start:low].mean(axis=0), series[high:end].mean(axis=0)
    window = series[low:high]
    cost = ((window - before) ** 2 - (window - after) ** 2).sum(axis=1)
    return low + int(np.argmin(np.concatenate([[0.0], np.cumsum(cost)])))
