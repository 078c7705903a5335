"""Changes in the curves of a finished run, whatever they are curves of: for logs that the monitor never wrote.

Each curve is cut by :func:`~thermo_monitor.detect.offline.segment`. A cut of a smooth curve is no transition: a cut is
kept when, on some scale, the curve moved twice as far across it as beside it, by at least the minimum effect and by
five standard errors. Changes of several curves at one time become one event.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thermo_monitor.detect.offline import segment
from thermo_monitor.records import Event
from thermo_monitor.streaming import autoregression

Array = NDArray[np.float64]
SHORT, LONG, BLOCKS = 400, 1000, 2000  # a curve is cut on at most SHORT means, and above LONG readings on BLOCKS
FACTOR, SHARE = 1.25, 0.05  # minimum effects: on a log scale, and as a share of the range elsewhere
ERRORS = 5.0  # standard errors that a change has to have
LEAST = 8  # finite points of a curve that is looked at


@dataclass(frozen=True, slots=True)
class Found:
    """A change in one curve.

    Attributes:
        tag: name of the curve.
        onset: first step of the new regime.
        low: first step that the onset may be at.
        high: last step that the onset may be at.
        before: level before, in the units of the curve.
        after: level after.
        size: the change over the minimum effect.
    """

    tag: str
    onset: int
    low: int
    high: int
    before: float
    after: float
    size: float


def find(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> list[Event]:
    """Events in the curves of one run.

    Args:
        curves: steps (n,) and values (n,) by name; steps rise, what is not finite is left out.

    Returns:
        Events in the order of their onsets: ``shift``, and ``divergence`` of a curve that ends in values that are not
        finite. ``details["also"]`` has the curves that changed at the same time.

    Example:
        >>> steps = np.arange(300)
        >>> noise = np.random.default_rng(0).standard_normal(300)
        >>> [(e.kind, e.onset, e.quantity) for e in find({"x": (steps, noise + 6.0 * (steps >= 120))})]
        [('shift', 120, 'x')]
    """
    changes: list[Found] = []
    broken: list[Event] = []
    last = 0
    for tag, (steps, values) in curves.items():
        x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
        if x.size:
            last = max(last, int(x[-1]))
            broken += _broken(tag, x, y)
            changes += of_curve(tag, x, y)
    events = [_event(group, last) for group in _together(changes)] + broken
    return sorted(events, key=lambda e: (e.onset, e.quantity))


def of_curve(tag: str, steps: Array, values: Array) -> list[Found]:
    """Changes of level in one curve."""
    finite = np.isfinite(values) & np.isfinite(steps)
    x, raw = steps[finite], values[finite]
    if x.size < LEAST or np.ptp(raw) == 0.0:
        return []
    y, is_log, effect = _scaled(raw)
    size = math.ceil(x.size / (SHORT if x.size <= LONG else BLOCKS))
    blocks = y[: y.size // size * size].reshape(-1, size).mean(axis=1)
    out = []
    cuts = segment(blocks)
    for cut in cuts:
        height = _sharp(blocks, cut, effect)
        if height is None:
            continue
        edges = [0, *cuts, len(blocks)]
        at = cuts.index(cut) + 1
        before, after = blocks[edges[at - 1] : cut], blocks[cut : edges[at + 1]]
        onset, low, high = _dated(y, edges[at - 1] * size, cut * size, min(edges[at + 1] * size, y.size), size)
        levels = [float(np.median(side)) for side in (before, after)]
        first, second = (math.exp(v) for v in levels) if is_log else levels
        out.append(Found(tag, int(x[onset]), int(x[low]), int(x[high]), first, second, height / effect))
    return out


def _scaled(raw: Array) -> tuple[Array, bool, float]:
    """The curve as it is looked at, whether that is its logarithm, and the minimum effect there."""
    low, high = np.quantile(raw, [0.01, 0.99])
    if raw.min() > 0.0 and high > 10.0 * low:
        return np.log(raw), True, math.log(FACTOR)
    return raw, False, max(SHARE * float(high - low), 1e-12 * float(np.max(np.abs(raw))), 1e-300)


def _sharp(blocks: Array, cut: int, effect: float) -> float | None:
    """How far the curve moved across a cut, on the scale where that stands out most; None where it does not."""
    n = len(blocks)
    # Of one block, from differences, which a few changes hardly touch: their variance is 2 (1 - phi) that of the noise.
    phi = _phi(blocks)
    noise = 1.4826 * float(np.median(np.abs(np.diff(blocks)))) / math.sqrt(2.0 * (1.0 - phi))
    dependence = (1.0 + phi) / (1.0 - phi)  # correlated blocks count for fewer
    best: float | None = None
    reach = 2
    while reach <= max(n // 6, 2):
        # Four stretches around the cut, each `reach` long; the outer ones say how fast the curve moves anyway.
        edges = [cut - 2 * reach, cut - reach, cut, cut + reach, cut + 2 * reach]
        if edges[0] < 0 or edges[-1] > n:
            break
        far, near, then, later = (float(np.median(blocks[a:b])) for a, b in pairwise(edges))
        across = abs(then - near)
        beside = max(abs(near - far), abs(later - then))
        error = noise * math.sqrt(math.pi * min(dependence / reach, 1.0))  # of a difference of two medians
        stands = across >= effect and across >= 2.0 * beside and across >= ERRORS * error
        if stands and (best is None or across > best):
            best = across
        reach *= 2
    return best


def _dated(y: Array, start: int, cut: int, end: int, size: int) -> tuple[int, int, int]:
    """Index of the onset on the readings, and the dates whose log-likelihood is within 2 of the best one."""
    reach = max(20, 3 * size)
    low, high = max(start, cut - reach), min(end, cut + reach)
    window = y[low:high]
    gain = _gain(window)
    if not gain.size:
        return cut, cut, cut
    best = int(np.argmax(gain))
    left, right = window[: best + 1], window[best + 1 :]
    variance = float((left.var() * left.size + right.var() * right.size) / window.size)
    phi = _phi(window)
    near = np.flatnonzero(gain >= gain[best] - 4.0 * variance * (1.0 + phi) / (1.0 - phi))
    return low + best + 1, low + int(near[0]) + 1, low + int(near[-1]) + 1


def _phi(values: Array) -> float:
    """Lag-one coefficient of the noise, less a standard error: a short curve without it must not seem to have it."""
    return max(min(autoregression.from_differences(values), 0.98) - 1.0 / math.sqrt(values.size), 0.0)


def _gain(window: Array) -> Array:
    """Fall of the sum of squares when the window is cut after 1, 2, ... readings."""
    n = window.size
    total = np.cumsum(window - window.mean())[:-1]
    first = np.arange(1, n)
    return np.asarray(total**2 * n / (first * (n - first)))


def _broken(tag: str, steps: Array, values: Array) -> list[Event]:
    """A curve that ends in values that are not finite."""
    bad = ~np.isfinite(values)
    if not bad[-1] or bad.all():
        return []
    onset = int(np.flatnonzero(~bad)[-1]) + 1
    if values.size - onset < min(3, values.size):
        return []
    at, end = int(steps[onset]), int(steps[-1])
    message = f"{tag} is not finite since step {at}"
    return [
        Event(
            "divergence", end, at, quantity=tag, phase="instability", message=message,
            onset_low=int(steps[onset - 1]), onset_high=at, level="error",
        )
    ]  # fmt: skip


def _together(changes: list[Found]) -> list[list[Found]]:
    """Changes whose intervals overlap, the largest first in each group; of a curve only its largest."""
    groups: list[list[Found]] = []
    end = -math.inf
    for change in sorted(changes, key=lambda c: c.low):
        if groups and change.low <= end:
            groups[-1].append(change)
            end = max(end, change.high)
        else:
            groups.append([change])
            end = change.high
    out = []
    for group in groups:
        largest: dict[str, Found] = {}
        for change in sorted(group, key=lambda c: -c.size):
            largest.setdefault(change.tag, change)
        out.append(list(largest.values()))
    return out


def _event(group: list[Found], last: int) -> Event:
    lead = group[0]
    up = lead.after > lead.before
    others = [c.tag for c in group[1:]]
    also = "" if not others else f", with {len(others)} other{'s' * (len(others) > 1)}"
    message = (
        f"{lead.tag} {'rose' if up else 'fell'} from {lead.before:.3g} to {lead.after:.3g} at step {lead.onset}{also}"
    )
    direction: Literal["up", "down"] = "up" if up else "down"
    details: dict[str, Any] = {
        "before": lead.before,
        "after": lead.after,
        "also": others,
        "effect": round(lead.size, 3),
        "detected": "from the finished curves",
    }
    return Event(
        "shift", min(last, lead.high), lead.onset, direction, lead.tag, message=message,
        onset_low=lead.low, onset_high=lead.high, level="warning", details=details,
    )  # fmt: skip
