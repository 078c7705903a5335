"""What the readings look like while nothing happens: a line, AR(1) noise, the size of its innovations.

The baseline is estimated on a stretch of readings and then refined by every reading that comes while nothing is
suspected; while something is, it is frozen, because otherwise the trend would eat the change.

The next reading is expected in a *band* between the level (the series stays where it was) and the line continued (the
trend goes on). A trend that slows down stays inside, as the decay of a loss does; only what leaves it is evidence.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.detect import eprocess
from thermo_monitor.streaming import autoregression, scale, trend

CLIP = 3.0  # innovations count at most this many standard deviations, so that a spike is not a change
MEMORY = 2000.0  # readings remembered by the noise estimates
TREND_MEMORY = 1500.0  # and by the line
SHORTEST = 100.0  # the line never remembers less, or it would follow a change before it is noticed
SHARE = 1.0 / 3.0  # of the readings so far that the line remembers: a decay is as smooth as it is old
CAUTION = 1.5  # standard errors of the learned level that the dead band makes room for
ROUNDING = 1e-9  # smallest relative size of anything that is not rounding
QUIETEST = math.exp(-3.0)
Baseline = dict[str, Any]


def floored(sigma: float, phi: float, minimum_effect: float, level: float) -> float:
    """Size of an innovation as the test sees it: never so small that less than the minimum effect is a change.

    The long-run standard deviation ``sigma / (1 - phi)`` is at least the minimum effect.
    """
    return max(sigma, (1.0 - phi) * minimum_effect, ROUNDING * abs(level), 1e-300)


def estimate(
    values: NDArray[np.float64], minimum_effect: float, magnitude: float, known: tuple[float, float] | None = None
) -> Baseline:
    """Baseline of a stretch of readings.

    Args:
        values: finite readings, at least three, counted from the origin of the series.
        minimum_effect: smallest change of level worth an event.
        magnitude: size of the readings themselves, which bounds their rounding.
        known: lag-one coefficient known already, and the number of readings it was learned from.
    """
    n = values.size
    time = np.arange(n) - (n - 1) / 2.0
    slope = float(np.dot(time, values) / np.dot(time, time))
    line = float(values.mean()) + slope * time
    r = values - line
    if known is not None:  # a level learned anew is still bending towards where it will stay, and a bend is no noise
        bend = time * time - float(np.mean(time * time))
        r = r - float(np.dot(bend, r) / np.dot(bend, bend)) * bend
    phi_raw, n_phi = known if known is not None else (autoregression.lag_one(r), float(n))
    phi = autoregression.cautious(phi_raw, n_phi)
    u = r[1:] - phi * r[:-1]
    sigma_raw = scale.mad(u)
    if not sigma_raw > 0.0:
        sigma_raw = float(np.std(u))
    # A median of few deviations is low half of the time, and a scale too small costs false alarms.
    sigma_raw *= 1.0 + 0.5 / math.sqrt(n)
    rough = scale.mad(np.diff(values, 2)) * (1.0 + 0.5 / math.sqrt(n))
    noise = max(noise_of(sigma_raw, rough, phi, minimum_effect), 1e-300)
    sigma = floored(noise, phi, minimum_effect, magnitude)
    spread = max(sigma / math.sqrt(1.0 - phi * phi), 1.4826 * float(np.median(np.abs(r))))
    fitted = trend.init()
    for i, x in enumerate(np.clip(values, line - 4.0 * spread, line + 4.0 * spread).tolist()):
        trend.update(fitted, x, max(SHORTEST, SHARE * (i + 1)))
    z = np.clip(u / sigma, -CLIP, CLIP)
    w = 2.0 * np.log(np.clip(np.abs(u), *bounds(sigma, minimum_effect)))
    return {
        "n": float(n),
        "line": fitted,
        "pairs": autoregression.init(
            phi_raw, max(float(np.mean(np.clip(r, -3 * spread, 3 * spread) ** 2)), 1e-300), n_phi
        ),
        "phi": phi,
        "raw": max(sigma_raw, 1e-300),
        "rough": max(rough, 1e-300),
        "noise": noise,
        "sigma": sigma,
        "centre": float(z.mean()),
        "square": float(np.mean((z - z.mean()) ** 2)),
        "log_mean": float(w.mean()),
        "log_var": max(float(w.var()), 1.0),
    }


def noise_of(raw: float, rough: float, phi: float, minimum_effect: float) -> float:
    """Size of the innovations that is noise and not the curve itself.

    On a smooth curve the residuals of any line are bends and not noise. Second differences see noise only: those of an
    AR(1) series have ``2 (1 - phi) (3 - phi)`` times its variance, and its innovations ``1 - phi^2``. Without a minimum
    effect there is nothing that a bend could be compared with, and it counts as noise.
    """
    return raw if minimum_effect == 0.0 else min(raw, 1.1 * rough * math.sqrt((1.0 + phi) / (2.0 * (3.0 - phi))))


def bounds(sigma: float, minimum_effect: float) -> tuple[float, float]:
    """Bounds of the size of an innovation in the test of the spread, in units of the readings.

    An exact repeat is not infinitely quiet, and innovations below half the minimum effect are all alike.
    """
    least = 0.5 * minimum_effect
    low = QUIETEST * sigma
    return (low if low > least else least), 10.0 * (sigma if sigma > least else least)


def noise_share(base: Baseline) -> float:
    """How much of the scale of the test is noise; the rest is the floor that the minimum effect puts under it."""
    return min(float(base["noise"] / base["sigma"]), 1.0)


def variance_proxy(base: Baseline, share: float) -> float:
    """Variance of the clipped innovations, at least that of normal ones where noise sets the scale."""
    square: float = base["square"]
    return max(share * share * max(1.0, 1.1 * square), 0.05)


def dead_band(base: Baseline, share: float, minimum_effect: float, weight: float) -> float:
    """How far the mean of the innovations may lie from zero without evidence, in their standard deviations.

    ``(1 - phi) minimum_effect / sigma + 1.5 / sqrt(weight)``: the minimum effect and 1.5 times the standard error of a
    level learned from ``weight`` readings; the second part shrinks with the noise where the floor sets the scale.
    """
    phi: float = base["phi"]
    sigma: float = base["sigma"]
    return (1.0 - phi) * minimum_effect / sigma + share * CAUTION / math.sqrt(weight)


def long_run(base: Baseline) -> tuple[float, float]:
    """Marginal standard deviation of the noise, and the number of readings that count as one independent one."""
    phi = base["phi"]
    return base["noise"] / math.sqrt(1.0 - phi * phi), (1.0 + phi) / (1.0 - phi)


def fresh_statistics() -> dict[str, Any]:
    """Statistics and lists of start times that have seen nothing, and the residuals before them."""
    return {
        "terms": [eprocess.init() for _ in range(4)],  # level up, level down, variance up, variance down
        "starts": [[] for _ in range(4)],
        "sums": [0.0, 0.0, 0.0],  # z of the upper and lower edge, w
        "count": 0,
        "before": None,  # residuals from the upper and lower edge at the previous reading
        "frozen": None,  # [readings since, level, line, slope]
        "sharp": -1_000_000,  # count at which the last large innovation was seen
        "log_sr": eprocess.NOTHING,
    }
