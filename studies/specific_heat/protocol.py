"""When did it happen: memorization, generalization, and the peak of a signal, by rules fixed before any result.

Signals are taken raw: smoothing moves peaks and makes autocorrelation of its own. A peak is looked for between
memorization and the end of the run: one that is looked for up to generalization comes before it by construction.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating]

MEMORIZED = 0.99
THRESHOLDS = (0.5, 0.9, 0.95)
GROKKED = 0.9  # the one of the thresholds that the verdict is about
LASTING = 3
PROMINENT = 2.0
NEVER = 0.3
EARLY = 100  # steps after memorization at which runs are ranked by a reading
LATER = 50  # steps after memorization from which on peaks are looked for once more; no part of the verdict
WINDOW = 5  # measurements of the running median that stands for the smooth part of a signal


class Peak(NamedTuple):
    """Where a signal is highest.

    Attributes:
        step: of the peak; NaN if it is none.
        height: its value.
        width: steps between the two sides at half of its prominence.
        top: where the highest value is, peak or not: ``start`` or ``end`` of the range, or ``inside``; empty if the
            signal has not been measured there.
    """

    step: float
    height: float
    width: float
    top: str


def memorized_at(steps: NDArray[np.integer], train: Values) -> float:
    """First measurement with a training accuracy of .99; NaN if there is none.

    Example:
        >>> memorized_at(np.array([0, 10, 20]), np.array([0.1, 0.99, 1.0]))
        10.0
    """
    found = np.flatnonzero(train >= MEMORIZED)
    return float(steps[found[0]]) if len(found) else math.nan


def grokked_at(steps: NDArray[np.integer], held_out: Values, threshold: float = GROKKED) -> float:
    """First of three measurements in a row with a held-out accuracy of a threshold; NaN if there are none.

    Example:
        >>> grokked_at(np.arange(0, 60, 10), np.array([0.0, 0.95, 0.2, 0.9, 0.9, 1.0]))
        30.0
    """
    high = held_out >= threshold
    for i in range(len(high) - LASTING + 1):
        if high[i : i + LASTING].all():
            return float(steps[i])
    return math.nan


def peak(steps: NDArray[np.integer], signal: Values, after: float) -> Peak:
    """The largest value after a step, and whether it is a peak.

    It has to be inside of the range, and to stand out of the lowest value on either side by twice the standard
    deviation of what is left when a running median of five is taken away.

    Example:
        >>> tuple(peak(np.arange(7), np.array([9.0, 0.0, 1.0, 4.0, 1.0, 0.0, 0.0]), after=0))
        (3.0, 4.0, 2.0, 'inside')
    """
    inside = steps > after
    x, y = steps[inside], signal[inside].astype(np.float64)
    if len(y) < WINDOW or not np.isfinite(y).all():
        return Peak(math.nan, math.nan, math.nan, "")
    at = int(np.argmax(y))
    if at in (0, len(y) - 1):
        return Peak(math.nan, math.nan, math.nan, "end" if at else "start")
    prominence = y[at] - max(y[:at].min(), y[at + 1 :].min())
    padded = np.pad(y, WINDOW // 2, mode="edge")
    rough = y - np.median(np.lib.stride_tricks.sliding_window_view(padded, WINDOW), axis=1)
    if prominence <= PROMINENT * rough.std():
        return Peak(math.nan, math.nan, math.nan, "inside")
    half = y[at] - 0.5 * prominence
    left = next((i for i in range(at, -1, -1) if y[i] <= half), 0)
    right = next((i for i in range(at, len(y)) if y[i] <= half), len(y) - 1)
    return Peak(float(x[at]), float(y[at]), float(x[right] - x[left]), "inside")


def early(steps: NDArray[np.integer], signal: Values, memorized: float) -> float:
    """The reading so many steps after memorization; NaN if the run ends before.

    Example:
        >>> early(np.arange(0, 500, 50), np.arange(10.0), memorized=100)
        4.0
    """
    found = np.flatnonzero(steps >= memorized + EARLY)
    return float(signal[found[0]]) if len(found) else math.nan
