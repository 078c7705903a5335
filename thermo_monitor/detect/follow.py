"""What became of a suspected change: it is followed until the level has settled, and only then judged.

The level *after* a spike decides, never the spike itself. The readings since the onset are kept as a trail of block
means whose blocks double in length when there are too many, so that a change of any width fits into a small state.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from thermo_monitor.detect.baseline import Baseline, bounds, long_run
from thermo_monitor.detect.watch import expected
from thermo_monitor.streaming import scale

TRAIL = 64  # blocks, then pairs are joined
Follow = dict[str, Any]


class Verdict(NamedTuple):
    """What a settled change turned out to be.

    Attributes:
        kind: ``shift``, ``excursion``, ``variance`` or ``none``.
        after: level now.
        width: readings between 5 % and 95 % of the way, NaN where the way cannot be told.
        ratio: spread of the innovations now to that before.
        away: distance of the level from the band, positive above it.
    """

    kind: Literal["shift", "excursion", "variance", "none"]
    after: float
    width: float
    ratio: float
    away: float


def begin(values: list[float], steps: list[int], before: float, slope: float, band: tuple[float, float]) -> Follow:
    """Follow a change whose readings so far, from the onset on, are given.

    Args:
        values: those readings.
        steps: their steps.
        before: level before the onset.
        slope: trend before the onset, per reading; a level that goes on moving so has settled.
        band: lower and upper edge that the peak is measured from.
    """
    follow: Follow = {
        "before": before,
        "slope": slope,
        "peak": 0.0,
        "elapsed": 0,
        "size": 1,
        "part": [0.0, 0],
        "blocks": [],
        "steps": [],
        "logs": [],
        "last": None,
    }
    for x, step in zip(values, steps, strict=True):
        _extend(follow, x, step, *band)
    return follow


def read(state: dict[str, Any], follow: Follow, x: float, step: int, minimum_effect: float, wait: int) -> None:
    """One more reading of the trail, in place."""
    follow["elapsed"] += 1
    low, high, _, _ = expected(state)
    _extend(follow, x, step, low, high)
    frozen = state["stat"]["frozen"]
    frozen[0] += 1
    frozen[3] *= 1.0 - 2.0 / frozen[4] if frozen[4] > 4.0 else 0.5
    frozen[2] += frozen[3]
    base = state["base"]
    residual = x - 0.5 * (low + high)
    last = follow["last"]
    if last is not None:
        low, high = bounds(base["sigma"], minimum_effect)
        follow["logs"].append(2.0 * math.log(min(max(abs(residual - base["phi"] * last), low), high)))
        del follow["logs"][: -max(wait // 2, 10)]
    follow["last"] = residual


def _extend(follow: Follow, x: float, step: int, low: float, high: float) -> None:
    deviation = x - high if x > high else x - low if x < low else 0.0
    if abs(deviation) > abs(follow["peak"]):
        follow["peak"] = deviation
    part = follow["part"]
    if part[1] == 0:
        follow["steps"].append(step)
    part[0] += x
    part[1] += 1
    if part[1] == follow["size"]:
        follow["blocks"].append(part[0] / part[1])
        follow["part"] = [0.0, 0]
        if len(follow["blocks"]) == TRAIL:
            blocks = follow["blocks"]
            follow["blocks"] = [0.5 * (a + b) for a, b in zip(blocks[::2], blocks[1::2], strict=True)]
            follow["steps"] = follow["steps"][::2]
            follow["size"] *= 2


def tail(follow: Follow, least: int) -> NDArray[np.float64]:
    """The last third of the trail, and at least ``least`` readings where there are as many."""
    blocks = np.array(follow["blocks"])
    count = max(len(blocks) // 3, min(math.ceil(least / follow["size"]), len(blocks)), min(4, len(blocks)))
    return blocks[len(blocks) - count :]


def settled(base: Baseline, follow: Follow, wait: int, minimum_effect: float) -> bool:
    """Whether the level has stopped moving: the halves of the tail differ by less than noise, effect and way allow."""
    window = tail(follow, follow["least"])
    if window.size < 4:
        return False
    half = window.size // 2
    first, second = float(np.median(window[:half])), float(np.median(window[half:]))
    trend = follow["slope"] * half * follow["size"]
    moved = second - first
    moved -= min(max(moved, min(trend, 0.0)), max(trend, 0.0))
    spread, dependence = long_run(base)
    noise = spread * math.sqrt(2.0 * dependence / (half * follow["size"]))
    way = abs(second - follow["before"])
    if abs(moved) <= max(2.0 * noise, minimum_effect / 3.0, 0.08 * way, 0.05 * abs(follow["peak"])):
        return True
    # A spike whose tail is long: what is left after four waits is judged as it is.
    return bool(follow["elapsed"] > 4 * wait) and way < 0.5 * abs(follow["peak"])


def judge(state: dict[str, Any], follow: Follow, wait: int, minimum_effect: float) -> Verdict:
    """What the change turned out to be, its level having settled.

    The level is away when it lies outside the band by the minimum effect, by four standard errors, and, where noise
    sets the scale, by a fifth of the way that it went; a remainder smaller than that is left to the statistic,
    which starts again. A level that is not where it was says nothing about the spread.
    """
    base = state["base"]
    window = tail(follow, follow["least"])
    after = float(np.median(window))
    low, high, _, _ = expected(state)
    away = after - high if after > high else after - low if after < low else 0.0
    spread, dependence = long_run(base)
    spread = max(spread, scale.mad(window))
    error = 1.25 * spread * math.sqrt(dependence / (window.size * follow["size"]))
    bar = max(minimum_effect, 4.0 * error)
    if follow["noisy"]:
        bar = max(bar, 0.2 * _height(follow))

    logs = np.array(follow["logs"])
    moved = float(np.mean(logs)) - base["log_mean"] if logs.size else 0.0
    ratio = math.exp(0.5 * moved)
    if abs(away) > bar and abs(after - follow["before"]) >= minimum_effect:
        return Verdict("shift", after, width(follow, after), ratio, away)
    phi = base["phi"]
    bends = scale.mad(np.diff(np.array(state["values"][-wait:]), 2))
    now = bends / math.sqrt(2.0 * (1.0 - phi) * (3.0 - phi))
    visible = max(now, long_run(base)[0]) >= 0.5 * minimum_effect  # marginal deviations, before and now
    if (
        visible
        and abs(away) < 3.0 * error
        and abs(moved) > max(0.5, 5.0 * math.sqrt(base["log_var"] / max(logs.size, 1)))
    ):
        return Verdict("variance", after, math.nan, ratio, away)
    peak = abs(follow["peak"]) > max(3.0 * spread, minimum_effect, 2.0 * abs(away))
    return Verdict("excursion" if peak else "none", after, math.nan, ratio, away)


def _height(follow: Follow) -> float:
    """How far the level went, single outliers apart: the largest running median of five blocks."""
    blocks = np.array(follow["blocks"])
    if blocks.size < 5:
        return 0.0
    return float(np.max(np.abs(np.median(sliding_window_view(blocks, 5), axis=1) - follow["before"])))


def width(follow: Follow, after: float) -> float:
    """Readings from leaving the old level by 5 % of the way to the first arrival at 95 % of it; NaN without a way."""
    way = after - follow["before"]
    if way == 0.0:
        return math.nan
    share = (np.array(follow["blocks"]) - follow["before"]) / way
    if share.size >= 3:
        share = (share[:-2] + share[1:-1] + share[2:]) / 3.0  # one block alone may be noise
    left = np.flatnonzero(share > 0.05)
    first = int(left[0]) if left.size else 0
    arrived = np.flatnonzero(share[first:] >= 0.95)
    blocks = int(arrived[0]) if arrived.size else len(share) - 1 - first
    return float((max(blocks, 0) + 1) * follow["size"])


def departure(follow: Follow, way: float, share: float) -> int | None:
    """Step of the first block that is ``share`` of ``way`` from the level before, None where none is."""
    gone = (np.array(follow["blocks"]) - follow["before"]) * math.copysign(1.0, way) >= share * abs(way)
    first = np.flatnonzero(gone)
    return int(follow["steps"][first[0]]) if first.size else None


def line(values: list[float]) -> tuple[float, float]:
    """Slope of the straight line through ``values``, and its height at the last of them.

    Example:
        >>> line([1.0, 3.0, 5.0])
        (2.0, 5.0)
    """
    y = np.array(values)
    time = np.arange(y.size) - (y.size - 1) / 2.0
    slope = float(np.dot(time, y) / np.dot(time, time))
    return slope, float(y.mean() + slope * time[-1])
