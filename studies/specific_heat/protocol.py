"""When did it happen: memorization, generalization, and the peak of a signal, by rules fixed beforehand.

Signals are taken raw: smoothing moves peaks and makes autocorrelation of its own.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating]

MEMORIZED = 0.99
GROKKED = 0.9
LASTING = 3
PROMINENT = 2.0
NEVER = 0.3


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


def peak(steps: NDArray[np.integer], signal: Values, after: float) -> tuple[float, float, float]:
    """Step, height and width of the largest value after a step, if it is a peak.

    It has to be inside of the range, and to stand out of the lowest value on either side by twice the standard
    deviation of what is left when a running median of five is taken away. The width is that at half of its prominence.

    Returns:
        NaN three times if there is no such peak.

    Example:
        >>> peak(np.arange(7), np.array([9.0, 0.0, 1.0, 4.0, 1.0, 0.0, 0.0]), after=0)
        (3.0, 4.0, 2.0)
    """
    nothing = math.nan, math.nan, math.nan
    inside = steps > after
    x, y = steps[inside], signal[inside].astype(np.float64)
    if len(y) < 5 or not np.isfinite(y).all():
        return nothing
    at = int(np.argmax(y))
    if at in (0, len(y) - 1):
        return nothing
    prominence = y[at] - max(y[:at].min(), y[at + 1 :].min())
    padded = np.pad(y, 2, mode="edge")
    rough = y - np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    if prominence <= PROMINENT * rough.std():
        return nothing
    half = y[at] - 0.5 * prominence
    left = next((i for i in range(at, -1, -1) if y[i] <= half), 0)
    right = next((i for i in range(at, len(y)) if y[i] <= half), len(y) - 1)
    return float(x[at]), float(y[at]), float(x[right] - x[left])
