"""One reading of many series while nothing is suspected: ``watch.read`` for the rows of a table, line for line.

A test holds the two together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.detect import baseline, eprocess, watch
from thermo_monitor.detect.baseline import CAUTION, CLIP, MEMORY, SHARE, SHORTEST, TREND_MEMORY
from thermo_monitor.detect.settings import Settings
from thermo_monitor.detect.table import Table, grow
from thermo_monitor.streaming import autoregression, scale

Column = NDArray[np.float64]
Rows = NDArray[np.intp]
_SHIFTS = np.array(eprocess.SHIFTS)
_LOUDER, _QUIETER = np.array(watch.LOUDER), np.array(watch.QUIETER)
_SIGNS = np.array([[0, 1.0], [1, -1.0], [2, 1.0], [2, -1.0]])  # which sum each list of start times watches
_STEP = 0.5 * scale._GAIN


def read(table: Table, rows: Rows, x: Column, step: int, settings: Settings) -> Column:
    """One reading of each of ``rows``; returns the logarithms of their statistics."""
    t = table
    _keep(t, rows, x, step, settings.wait)
    effect = settings.minimum_effect / t.unit[rows]
    frozen = t.is_frozen[rows]
    level, ahead, slope, weight = (
        np.where(frozen, t.frozen[k + 1, rows], part) for k, part in enumerate(_band(t, rows))
    )
    upper, lower = np.maximum(level, ahead), np.minimum(level, ahead)
    over, under = x - upper, x - lower
    before = t.before[:, rows]
    t.before[:, rows] = over, under
    phi, sigma = t.phi[rows], t.sigma[rows]
    up, down = (over - phi * before[0]) / sigma, (under - phi * before[1]) / sigma
    share = np.minimum(t.noise[rows] / sigma, 1.0)
    centre = t.centre[rows]
    z_up, z_down = (np.clip(u, -CLIP, CLIP) - centre * share for u in (up, down))
    u = 0.5 * (up + down)
    square = u * u
    least = np.maximum(baseline.QUIETEST * sigma, 0.5 * effect)
    log_square = 2.0 * np.log(np.clip(np.abs(u) * sigma, least, 10.0 * np.maximum(sigma, 0.5 * effect)))
    log_mean, log_var = t.log_mean[rows], t.log_var[rows]
    w = np.clip((log_square - log_mean) / np.sqrt(log_var), -CLIP, CLIP)
    dead = (1.0 - phi) * effect / sigma + share * CAUTION / np.sqrt(weight)
    proxy = np.maximum(share * share * np.maximum(1.0, 1.1 * t.square[rows]), 0.05)
    n = t.n[rows]
    quiet = CAUTION / np.sqrt(np.minimum(n, MEMORY))
    count = t.count[rows]
    _push(t, rows, count, step)
    t.sums[rows] += np.stack([z_up, z_down, w], axis=1)
    t.count[rows] = count + 1.0
    t.sharp[rows] = np.where(square > watch.SHARP**2, count, t.sharp[rows])
    excess = np.stack([z_up - dead, -z_down - dead, w - quiet, -w - quiet], axis=1)[:, :, None]
    factors = np.empty((len(rows), 4, 4))
    factors[:, :2] = np.exp(-0.5 * proxy[:, None] * _SHIFTS**2)[:, None, :]
    factors[:, 2], factors[:, 3] = _LOUDER, _QUIETER
    terms = np.minimum((1.0 + t.terms[rows]) * np.exp(excess * _SHIFTS) * factors, eprocess.MOST)
    t.terms[rows] = terms
    log_sr = np.log(terms.sum(axis=(1, 2)) / watch.COMPONENTS)
    t.log_sr[rows] = log_sr
    _freeze(t, rows, log_sr > settings.freeze, frozen, (level, ahead, slope, weight))

    free = log_sr <= settings.freeze
    k = rows[free]
    if k.size:
        parts = (x, level, ahead, over, under, before[0], before[1], u, square, log_square, centre * share)
        _learn(t, k, settings.minimum_effect, *(part[free] for part in parts))
    return np.asarray(log_sr)


def _band(t: Table, rows: Rows) -> tuple[Column, Column, Column, Column]:
    s0, s1, s2, y0, y1, q = t.line[:, rows]
    level = y0 / s0
    spread = s2 - s1 * s1 / s0
    steep = spread > 1e-9 * s2
    slope = np.where(steep, (y1 - s1 * level) / np.where(steep, spread, 1.0), 0.0)
    return level, level + slope * (1.0 - s1 / s0), slope, s0 * s0 / q


def _keep(t: Table, rows: Rows, x: Column, step: int, wait: int) -> None:
    at = t.length[rows]
    t.values[rows, at], t.steps[rows, at] = x, step
    t.length[rows] = at + 1
    full = rows[at + 1 > t.kept]
    if full.size:
        for name in ("values", "steps"):
            column = getattr(t, name)
            column[full, : t.kept + 1 - wait // 2] = column[full, wait // 2 :]
        t.length[full] -= wait // 2


def _push(t: Table, rows: Rows, count: Column, step: int) -> None:
    """Offer a start time to the four stacks of each row, as ``focus.push`` does to one."""
    grow(t, int(t.height[rows].max(initial=0)) + 1)
    which = np.repeat(rows, 4), np.tile(np.arange(4), len(rows))
    total = (t.sums[rows][:, _SIGNS[:, 0].astype(int)] * _SIGNS[:, 1]).ravel()
    at = np.repeat(count, 4)
    height = t.height[which]
    left = np.flatnonzero(height > 0)
    while left.size:  # what is not below the newest can never win
        left = left[t.starts[which[0][left], which[1][left], height[left] - 1, 1] >= total[left]]
        height[left] -= 1
        left = left[height[left] > 0]
    left = np.flatnonzero(height > 1)
    while left.size:  # and what is not on the hull can not either
        a, b = which[0][left], which[1][left]
        last, earlier = t.starts[a, b, height[left] - 1], t.starts[a, b, height[left] - 2]
        convex = (last[:, 1] - earlier[:, 1]) * (at[left] - last[:, 0]) < (total[left] - last[:, 1]) * (
            last[:, 0] - earlier[:, 0]
        )
        left = left[~convex]
        height[left] -= 1
        left = left[height[left] > 1]
    t.starts[(*which, height)] = np.stack([at, total, np.full(len(at), float(step))], axis=1)
    t.height[which] = height + 1


def _freeze(t: Table, rows: Rows, hot: NDArray[np.bool_], frozen: NDArray[np.bool_], band: tuple[Column, ...]) -> None:
    level, ahead, slope, weight = band
    new, still, over = rows[hot & ~frozen], rows[hot & frozen], rows[~hot & frozen]
    if new.size:
        k = hot & ~frozen
        t.frozen[:, new] = np.ones(new.size), level[k], (ahead + slope)[k], slope[k], weight[k]
        t.is_frozen[new] = True
    if still.size:
        k = hot & frozen
        t.frozen[0, still] += 1.0
        t.frozen[3, still] = slope[k] * np.where(weight[k] > 4.0, 1.0 - 2.0 / weight[k], 0.5)
        t.frozen[2, still] = ahead[k] + slope[k]
    if over.size:
        passed = t.frozen[0, over]
        s0, s1, _, y0, _, _ = t.line[:, over]
        t.line[2, over] += passed * (passed * s0 - 2.0 * s1)
        t.line[1, over] -= passed * s0
        t.line[4, over] -= passed * y0
        t.is_frozen[over] = False


def _learn(
    t: Table, k: Rows, minimum_effect: float, x: Column, level: Column, ahead: Column, over: Column, under: Column,
    over_before: Column, under_before: Column, u: Column, square: Column, log_square: Column, centre: Column,
) -> None:  # fmt: skip
    """Refine the baseline of rows in which nothing is suspected."""
    phi, sigma = t.phi[k], t.sigma[k]
    n = t.n[k] = t.n[k] + 1.0
    memory = np.minimum(n, MEMORY)
    spread = sigma / np.sqrt(1.0 - phi * phi)
    reach = 4.0 * spread
    keep = 1.0 - 1.0 / np.minimum(TREND_MEMORY, np.maximum(SHORTEST, SHARE * n))
    s0, s1, s2, y0, y1, q = t.line[:, k]
    value = np.clip(x, np.minimum(level, ahead) - reach, np.maximum(level, ahead) + reach)
    t.line[:, k] = (
        keep * s0 + 1.0, keep * (s1 - s0), keep * (s2 - 2.0 * s1 + s0), keep * y0 + value, keep * (y1 - y0),
        keep * keep * q + 1.0,
    )  # fmt: skip
    reach = 3.0 * spread
    now = np.clip(0.5 * (over + under), -reach, reach)
    then = np.clip(0.5 * (over_before + under_before), -reach, reach)
    calm = square <= CLIP * CLIP
    pairs = t.pairs[:, k]
    fading = np.where(pairs[0] >= MEMORY, 1.0 - 1.0 / MEMORY, 1.0)
    pairs = np.where(calm, pairs * fading + np.stack([np.ones_like(now), then * now, then * then]), pairs)
    t.pairs[:, k] = pairs
    raw_phi = np.where(pairs[2] > 0.0, pairs[1] / np.where(pairs[2] > 0.0, pairs[2], 1.0), 0.0)
    raw_phi = np.clip(raw_phi, 0.0, autoregression.LARGEST)
    doubt = (2.0 + 4.0 * raw_phi) / pairs[0] + 0.5 * np.sqrt(np.maximum(1.0 - raw_phi * raw_phi, 0.0) / pairs[0])
    phi = t.phi[k] = np.where(calm, np.minimum(raw_phi + doubt, autoregression.LARGEST), phi)
    raw = t.raw[k] = _track(t.raw[k], u * sigma, memory)
    rough = t.rough[k]
    effect = minimum_effect / t.unit[k]
    noise = raw
    if minimum_effect > 0.0:
        last = t.length[k] - 1
        bend = t.values[k, last] - 2.0 * t.values[k, last - 1] + t.values[k, last - 2]
        rough = t.rough[k] = _track(rough, bend, memory)
        noise = np.minimum(raw, 1.1 * rough * np.sqrt((1.0 + phi) / (2.0 * (3.0 - phi))))
    t.noise[k] = noise
    size = np.abs(t.origin[k] + 0.5 * (level + ahead))
    floor = np.maximum((1.0 - phi) * effect, np.maximum(baseline.ROUNDING * size, 1e-300))
    t.sigma[k] = np.maximum(noise, floor)
    gain = 1.0 / memory
    z = np.clip(u, -CLIP, CLIP)
    t.square[k] += gain * ((z - centre) ** 2 - t.square[k])
    t.centre[k] += gain * (z - t.centre[k])
    difference = log_square - t.log_mean[k]
    t.log_mean[k] += gain * difference
    t.log_var[k] = np.maximum(t.log_var[k] + gain * (difference * difference - t.log_var[k]), 1.0)


def _track(size: Column, deviation: Column, n: Column) -> Column:
    step = _STEP / n
    return np.asarray(size * np.exp(np.where(np.abs(deviation) > scale.NORMAL_QUARTILE * size, step, -step)))
