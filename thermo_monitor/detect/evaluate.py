"""How good are the events? Pure functions on lists of dates; what is undefined is NaN.

Online, an alarm is right when it comes between the onset of a change and ``horizon`` steps later, and one change is
found by one alarm. Offline, a date is right within a ``margin``, and segments are compared by their overlap.

Source of the offline scores: van den Burg & Williams 2020, arXiv:2003.06222.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")


class Match(NamedTuple):
    """Which alarm found which change.

    Attributes:
        hits: (change, alarm) pairs, in order.
        missed: changes without an alarm.
        false: alarms without a change.
    """

    hits: list[tuple[int, int]]
    missed: list[int]
    false: list[int]


class Estimate(NamedTuple):
    """A figure and how well it is known.

    Attributes:
        value: on the runs as they are.
        low: lower end of the interval.
        high: upper end of it.
    """

    value: float
    low: float
    high: float


def match(changes: Sequence[int], alarms: Sequence[int], horizon: int) -> Match:
    """Each change in turn takes the first alarm that is still free in ``[change, change + horizon]``.

    Example:
        >>> match([100, 500], [90, 130, 140], horizon=50)
        Match(hits=[(100, 130)], missed=[500], false=[90, 140])
    """
    free = sorted(alarms)
    hits, missed = [], []
    for change in sorted(changes):
        alarm = next((a for a in free if change <= a <= change + horizon), None)
        if alarm is None:
            missed.append(change)
        else:
            hits.append((change, alarm))
            free.remove(alarm)
    return Match(hits, missed, free)


def precision(found: Match) -> float:
    """Share of the alarms that are right; NaN without alarms.

    Example:
        >>> precision(match([100], [90, 130], 50)), precision(match([100], [], 50))
        (0.5, nan)
    """
    total = len(found.hits) + len(found.false)
    return len(found.hits) / total if total else math.nan


def recall(found: Match) -> float:
    """Share of the changes that are found; NaN without changes.

    Example:
        >>> recall(match([100, 500], [130], 50))
        0.5
    """
    total = len(found.hits) + len(found.missed)
    return len(found.hits) / total if total else math.nan


def delay(found: Match) -> float:
    """Median number of steps from a change to its alarm; NaN where none is found.

    Example:
        >>> delay(match([100, 500], [130, 510], 50))
        20.0
    """
    return float(np.median([alarm - change for change, alarm in found.hits])) if found.hits else math.nan


def lead(changes: Sequence[int], warnings: Sequence[int], reach: int) -> list[int]:
    """Steps from the first warning within ``reach`` before a change to the change; nothing for one without a warning.

    Example:
        >>> lead([100, 500], [40, 80, 95, 300], reach=50)
        [20]
    """
    first = ((change, min((w for w in warnings if change - reach <= w < change), default=None)) for change in changes)
    return [change - warning for change, warning in first if warning is not None]


def pool(runs: Sequence[Match]) -> Match:
    """The matches of several runs as one, for a precision, recall or delay over all of them.

    Example:
        >>> recall(pool([match([100], [130], 50), match([100], [90], 50)]))
        0.5
    """
    return Match(
        [pair for run in runs for pair in run.hits],
        [change for run in runs for change in run.missed],
        [alarm for run in runs for alarm in run.false],
    )


def bootstrap(
    runs: Sequence[T],
    statistic: Callable[[Sequence[T]], float],
    *,
    level: float = 0.9,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic over runs with its percentile interval when the runs are drawn anew, with replacement.

    Runs are drawn and not events, as the events of one run depend on each other. Draws without a value are left out.

    Args:
        runs: one item for each run: a :class:`Match`, a list of lead times, a number.
        statistic: of a list of such items.
        level: share of the draws within the interval.
        draws: number of samples.
        seed: of the random generator.

    Returns:
        The estimate; NaN where there are no runs, or no draw has a value.

    Raises:
        ValueError: if ``level`` is not between 0 and 1, or ``draws`` is not positive.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.

    Example:
        >>> found = [match([100], [100 + late], 50) for late in (10, 20, 20, 30, 90)]
        >>> bootstrap(found, lambda runs: recall(pool(runs)))
        Estimate(value=0.8, low=0.4, high=1.0)
        >>> bootstrap(found, lambda runs: delay(pool(runs)))
        Estimate(value=20.0, low=10.0, high=30.0)
    """
    if not 0.0 < level < 1.0 or draws < 1:
        raise ValueError(f"level lies between 0 and 1 and draws is positive; got {level} and {draws}")
    if not runs:
        return Estimate(math.nan, math.nan, math.nan)
    chosen = np.random.default_rng(seed).integers(len(runs), size=(draws, len(runs)))
    values = np.array([statistic([runs[i] for i in row]) for row in chosen.tolist()], dtype=np.float64)
    tails = (0.5 - 0.5 * level, 0.5 + 0.5 * level)
    low, high = (math.nan, math.nan) if np.isnan(values).all() else np.nanquantile(values, tails).tolist()
    return Estimate(float(statistic(list(runs))), low, high)


def false_alarms(alarms: int, steps: int) -> float:
    """False alarms per 10,000 steps; NaN without steps.

    Example:
        >>> false_alarms(3, 60_000)
        0.5
    """
    return 1e4 * alarms / steps if steps else math.nan


def pairs(truth: Sequence[int], found: Sequence[int], margin: int) -> int:
    """Largest number of one-to-one pairs of dates at most ``margin`` apart.

    Both lists are on a line, so the greedy pairing from the left is the largest.

    Example:
        >>> pairs([10, 14], [12, 16], margin=2), pairs([10], [9, 11], margin=2)
        (2, 1)
    """
    left, right = sorted(truth), sorted(found)
    i = j = count = 0
    while i < len(left) and j < len(right):
        if abs(left[i] - right[j]) <= margin:
            count, i, j = count + 1, i + 1, j + 1
        elif left[i] < right[j]:
            i += 1
        else:
            j += 1
    return count


def f1(annotations: Sequence[Sequence[int]], found: Sequence[int], margin: int = 5) -> float:
    """F1 of dated changes against several annotators, the start of the series counting as a change for everyone.

    Precision is taken against the union of the annotators, recall is their mean.

    Example:
        >>> round(f1([[50], [50, 90]], [52]), 4)  # precision 1, recall (1 + 2/3) / 2
        0.9091
    """
    guesses = sorted({0, *found})
    everyone = sorted({0, *(date for dates in annotations for date in dates)})
    exact = pairs(everyone, guesses, margin) / len(guesses)
    each = [pairs(sorted({0, *dates}), guesses, margin) / len({0, *dates}) for dates in annotations]
    share = sum(each) / len(each) if each else math.nan
    return 2.0 * exact * share / (exact + share) if exact + share else 0.0


def covering(annotations: Sequence[Sequence[int]], found: Sequence[int], n: int) -> float:
    """Mean over annotators of the best overlap of each of their segments, weighted by length.

    The overlap of two segments is their Jaccard index; 1 means the same segmentation.

    Example:
        >>> covering([[50]], [50], 100), covering([[50]], [], 100)
        (1.0, 0.5)
    """

    def segments(dates: Sequence[int]) -> list[tuple[int, int]]:
        return list(pairwise([0, *sorted({d for d in dates if 0 < d < n}), n]))

    def jaccard(a: tuple[int, int], b: tuple[int, int]) -> float:
        return max(min(a[1], b[1]) - max(a[0], b[0]), 0) / (max(a[1], b[1]) - min(a[0], b[0]))

    guess = segments(found)
    scores = [sum((s[1] - s[0]) * max(jaccard(s, g) for g in guess) for s in segments(a)) / n for a in annotations]
    return sum(scores) / len(scores) if scores else math.nan


def auroc(with_change: Sequence[float], without: Sequence[float]) -> float:
    """Probability that a run with a change has the larger statistic, ties counting half; NaN if a list is empty.

    Example:
        >>> auroc([3.0, 2.0], [1.0, 2.0])
        0.875
    """
    if not with_change or not without:
        return math.nan
    a, b = np.asarray(with_change, dtype=np.float64), np.asarray(without, dtype=np.float64)
    return float(np.mean(np.sign(a[:, None] - b[None, :]) * 0.5 + 0.5))
