"""What else could have announced a generalization: one reading and a rule, on the same recordings.

An announcer hears a run's readings as they come and says at which steps it speaks. Readings without a published
threshold speak when their change since the training set was fitted passes a number that the seeds for development
choose, in the direction that these choose. Fitted, as a user can see it: the training loss has been at a tenth of its
first level for five steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from thermo_monitor import quantities
from transitions.recording import Curve, Recording

IN_A_ROW = 3  # readings beyond a threshold before it counts
SMOOTH = 5  # readings in a running median
PUBLISHED = 0.61  # spectral entropy: Truong et al. 2026, arXiv:2604.13123
WINDOW, DEVIATIONS = 30, 3.0
LEARN, SLACK, LIMIT = 200, 0.005, 50.0  # Page-Hinkley as in its usual implementations, in sd of the first 200 values


def fitted(recording: Recording) -> int | None:
    """Step at which the training loss has been at a tenth of its first level for five steps; None if it never is."""
    steps, loss = recording.curve("loss/train")
    if len(loss) < 10:
        return None
    low = loss <= 0.1 * np.median(loss[:5])
    row = np.convolve(low, np.ones(5), "valid")
    found = np.flatnonzero(row == 5)
    return int(steps[found[0] + 4]) if len(found) else None


def course(recording: Recording, quantity: str) -> Curve:
    """Running median of a reading (logarithm on a log scale) from the fit of the training set on."""
    start = fitted(recording)
    steps, values = recording.curve(quantity)
    if start is None or len(values) < SMOOTH:
        return np.array([], np.int64), np.array([])
    if quantity in quantities.REGISTRY and quantities.REGISTRY[quantity].scale == "log":
        values = np.log(np.maximum(values, 1e-300))
    smooth = np.median(sliding_window_view(values, SMOOTH), axis=1)
    steps = steps[SMOOTH - 1 :]
    return steps[steps >= start], smooth[steps >= start]


def crossings(steps: NDArray[np.int64], beyond: NDArray[np.bool_]) -> list[int]:
    """Steps at which a condition has held for three readings in a row, once for each time that it begins to hold."""
    said, held, spoken = [], 0, False
    for step, holds in zip(steps, beyond, strict=True):
        held = held + 1 if holds else 0
        spoken = spoken and held > 0
        if held >= IN_A_ROW and not spoken:
            said.append(int(step))
            spoken = True
    return said


def since(curve: Curve) -> Curve:
    """Change since the first value."""
    steps, values = curve
    return steps, values - values[0] if len(values) else values


def threshold(curve: Curve, limit: float, sign: float) -> list[int]:
    """Where a curve, times ``sign``, passes ``limit``."""
    steps, values = curve
    return crossings(steps, sign * values > limit)


def entropy_below(recording: Recording) -> list[int]:
    """Where the spectral entropy is below the published .61, whether the training set is fitted or not."""
    steps, values = recording.curve("repr/spectral_entropy")
    return crossings(steps, values < PUBLISHED)


def accuracy_above(recording: Recording, level: float = 0.25) -> list[int]:
    """Where held-out data, which the detector never has, say so themselves: a quarter of the way."""
    steps, values = recording.orders.get("held_out", (np.array([], np.int64), np.array([])))
    return crossings(steps, values > level)


def deviations(recording: Recording, quantity: str) -> list[int]:
    """Where a reading is three standard deviations from the mean of the last thirty, as metric automations have it."""
    steps, values = recording.curve(quantity)
    said = []
    for i in range(WINDOW, len(values)):
        past = values[i - WINDOW : i]
        spread = past.std()
        if 0 < DEVIATIONS * spread < abs(values[i] - past.mean()):
            said.append(int(steps[i]))
    return said


def page_hinkley(recording: Recording, quantity: str) -> list[int]:
    """Two-sided Page-Hinkley test on a standardised reading; starts again after an alarm."""
    steps, values = recording.curve(quantity)
    learn = min(LEARN, len(values) // 5)
    if learn < 10:
        return []
    z = (values - values[:learn].mean()) / max(float(values[:learn].std()), 1e-300)
    said: list[int] = []
    count, mean, up, down, least, most = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    for step, value in zip(steps[learn:], z[learn:], strict=True):
        count += 1
        mean += (value - mean) / count
        up += value - mean - SLACK
        down += value - mean + SLACK
        least, most = min(least, up), max(most, down)
        if up - least > LIMIT or most - down > LIMIT:
            said.append(int(step))
            count, mean, up, down, least, most = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    return said


LEARNED = (
    "opt/weight_norm", "loss/train", "opt/gradient_norm", "attn/specific_heat_pooled", "repr/spectral_entropy",
    "fisher/gradient_coherence",
)  # fmt: skip
FIXED: dict[str, Callable[[Recording], list[int]]] = {
    "held-out accuracy above a quarter": accuracy_above,
    "spectral entropy below .61": entropy_below,
    "z-score (30, 3) of the training loss": lambda r: deviations(r, "loss/train"),
    "z-score (30, 3) of the spectral entropy": lambda r: deviations(r, "repr/spectral_entropy"),
    "Page-Hinkley on the training loss": lambda r: page_hinkley(r, "loss/train"),
    "Page-Hinkley on the spectral entropy": lambda r: page_hinkley(r, "repr/spectral_entropy"),
}


def learn(
    curves: Sequence[Curve], halves: Sequence[float], signs: Sequence[float] = (1.0, -1.0)
) -> tuple[float, float]:
    """Threshold and sign with the largest difference between runs rightly and wrongly announced; infinite if none.

    Right is an announcement before half of the held-out answers are right, the step in ``halves``; wrong is any in a
    run that never generalizes, where that is NaN.
    """
    best = (0.0, math.inf, 1.0)
    for sign in signs:
        reached: list[tuple[float, bool]] = []
        for (steps, values), half in zip(curves, halves, strict=True):
            own = sign * (values if math.isnan(half) else values[steps < half])
            # What stays beyond a level for three readings is the largest of the running minima.
            lasting = sliding_window_view(own, IN_A_ROW).min(axis=1) if len(own) >= IN_A_ROW else []
            reached.append((float(max(lasting, default=-math.inf)), not math.isnan(half)))
        right = [top for top, generalizes in reached if generalizes]
        wrong = [top for top, generalizes in reached if not generalizes]
        if not right or not wrong:
            continue
        levels = sorted({top for top, _ in reached if 0 < top < math.inf})
        for limit in [(a + b) / 2 for a, b in pairwise([0.0, *levels])]:
            gain = sum(t > limit for t in right) / len(right) - sum(t > limit for t in wrong) / len(wrong)
            if gain > best[0]:
                best = (gain, limit, sign)
    return best[1], best[2]
