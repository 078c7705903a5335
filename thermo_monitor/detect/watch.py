"""One reading while nothing is suspected: residual, innovation, statistic, refinement. The hot path of the detector."""

from __future__ import annotations

import math
from typing import Any

from thermo_monitor.detect import eprocess, focus
from thermo_monitor.detect.baseline import (
    CAUTION,
    CLIP,
    MEMORY,
    SHARE,
    SHORTEST,
    TREND_MEMORY,
    bounds,
    dead_band,
    floored,
    noise_of,
    noise_share,
    variance_proxy,
)
from thermo_monitor.streaming import autoregression, scale, trend

SHARP = 6.0  # an innovation beyond this many standard deviations may be a spike, so its alarm waits
SHARP_FOR = 30
COMPONENTS = 4.0 * len(eprocess.SHIFTS)  # the statistic is their mean
LOUDER, QUIETER = eprocess.penalties(1.1), eprocess.penalties(1.3)  # log squares are skewed


def expected(state: dict[str, Any]) -> tuple[float, float, float, float]:
    """Lower and upper edge of the band for the next reading, its slope and its weight."""
    frozen = state["stat"]["frozen"]
    if frozen is None:
        level, ahead, slope, weight = trend.value(state["base"]["line"])
    else:
        _, level, ahead, slope, weight = frozen
    return (level, ahead, slope, weight) if level < ahead else (ahead, level, slope, weight)


def read(state: dict[str, Any], x: float, step: int, missing: int, half: float, minimum_effect: float) -> float:
    """Fold one reading into the statistics, and into the baseline unless something is suspected.

    Args:
        state: of the detector, changed in place.
        x: the reading, counted from the origin of the series.
        step: its step.
        missing: readings that were not finite since the last one that was.
        half: the statistic above which the baseline is frozen.
        minimum_effect: smallest change of level worth an event.

    Returns:
        Logarithm of the statistic.
    """
    base, stat = state["base"], state["stat"]
    if missing:
        let_pass(state, missing)
    frozen = stat["frozen"]
    if frozen is None:
        level, ahead, slope, weight = trend.band(base["line"])
    else:
        _, level, ahead, slope, weight = frozen
    if level < ahead:
        over, under = x - ahead, x - level
    else:
        over, under = x - level, x - ahead
    before = stat["before"]
    stat["before"] = [over, under]
    if before is None:
        return float(stat["log_sr"])

    phi, sigma = base["phi"], base["sigma"]
    unit, carry = sigma, phi
    if missing:
        carry = phi ** (missing + 1)
        unit = sigma * math.sqrt((1.0 - carry * carry) / (1.0 - phi * phi))
    up, down = (over - carry * before[0]) / unit, (under - carry * before[1]) / unit
    share = noise_share(base)
    centre = base["centre"] * share  # what is not noise has no mean to be learned
    z_up = (CLIP if up > CLIP else -CLIP if up < -CLIP else up) - centre
    z_down = (CLIP if down > CLIP else -CLIP if down < -CLIP else down) - centre
    u = 0.5 * (up + down)
    square = u * u
    least, most = bounds(sigma, minimum_effect)
    size = abs(u) * sigma
    log_square = 2.0 * math.log(least if size < least else most if size > most else size)
    log_var = base["log_var"]
    w = (log_square - base["log_mean"]) / math.sqrt(log_var)
    w = CLIP if w > CLIP else -CLIP if w < -CLIP else w

    band = dead_band(base, share, minimum_effect, weight)
    factors = eprocess.penalties(variance_proxy(base, share))
    quiet = CAUTION / math.sqrt(min(base["n"], MEMORY))
    starts, sums, count = stat["starts"], stat["sums"], stat["count"]
    above, below, spread = sums
    focus.push(starts[0], count, above, step)
    focus.push(starts[1], count, -below, step)
    focus.push(starts[2], count, spread, step)
    focus.push(starts[3], count, -spread, step)
    stat["sums"] = [above + z_up, below + z_down, spread + w]
    stat["count"] = count + 1
    if square > SHARP * SHARP:
        stat["sharp"] = count
    rise, fall, louder, quieter = stat["terms"]
    total = eprocess.update(rise, z_up - band, factors) + eprocess.update(fall, -z_down - band, factors)
    total += eprocess.update(louder, w - quiet, LOUDER) + eprocess.update(quieter, -w - quiet, QUIETER)
    log_sr = stat["log_sr"] = math.log(total / COMPONENTS)

    if log_sr > half:
        if frozen is None:
            stat["frozen"] = [1, level, ahead + slope, slope, weight]
        else:
            frozen[0] += 1
            frozen[3] = slope * (1.0 - 2.0 / weight if weight > 4.0 else 0.5)
            frozen[2] = ahead + slope
        return log_sr
    if frozen is not None:
        trend.skip(base["line"], frozen[0])
        stat["frozen"] = None

    n = base["n"] = base["n"] + 1.0
    memory = n if n < MEMORY else MEMORY
    spread = sigma / math.sqrt(1.0 - phi * phi)
    reach = 4.0 * spread
    middle = 0.5 * (level + ahead)
    low, high = min(level, ahead) - reach, max(level, ahead) + reach
    trend.update(base["line"], low if x < low else high if x > high else x, min(TREND_MEMORY, max(SHORTEST, SHARE * n)))
    if not missing:
        reach = 3.0 * spread
        now, then = 0.5 * (over + under), 0.5 * (before[0] + before[1])
        now = reach if now > reach else -reach if now < -reach else now
        then = reach if then > reach else -reach if then < -reach else then
        if (
            square <= CLIP * CLIP
        ):  # what leaps is not carried over: a shift would pass for correlation, and be whitened away
            pairs = autoregression.update(base["pairs"], then, now, MEMORY)
            base["phi"] = phi = autoregression.cautious(autoregression.value(pairs), pairs[0])
        raw = base["raw"] = scale.track(base["raw"], u * unit, memory)
        if minimum_effect > 0.0:
            values = state["values"]
            bend = values[-1] - 2.0 * values[-2] + values[-3] if len(values) > 2 else 0.0
            base["rough"] = scale.track(base["rough"], bend, memory)
        base["noise"] = noise_of(raw, base["rough"], phi, minimum_effect)
        base["sigma"] = floored(base["noise"], phi, minimum_effect, state["origin"] + middle)
    gain = 1.0 / memory
    z = CLIP if u > CLIP else -CLIP if u < -CLIP else u
    base["centre"] += gain * (z - base["centre"])
    base["square"] += gain * ((z - centre) ** 2 - base["square"])
    difference = log_square - base["log_mean"]
    base["log_mean"] += gain * difference
    base["log_var"] = max(log_var + gain * (difference * difference - log_var), 1.0)
    return log_sr


def let_pass(state: dict[str, Any], readings: int) -> None:
    """Move the expected band over readings that are not there."""
    frozen = state["stat"]["frozen"]
    if frozen is None:
        trend.skip(state["base"]["line"], readings)
    else:
        frozen[0] += readings
        frozen[2] += frozen[3] * readings
