"""Training-like series with their truth, for tests, examples and benchmarks, and the parts that they are made of.

The noise has unit marginal variance, so an amplitude is in standard deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """A sigmoid of the level, or at width 1 a step of anything.

    Attributes:
        middle: index of the reading half way, at width 1 the first one of the new regime.
        width: readings between 5 % and 95 % of the way.
        amplitude: size in standard deviations of the noise.
    """

    middle: int
    width: int
    amplitude: float

    @property
    def onset(self) -> int:
        """The first reading that tells: there the mean has moved by a tenth of a deviation.

        An alarm before it cannot know anything and is false.
        """
        share = min(0.1 / self.amplitude, 0.4)
        reach = self.width * math.log((1 - share) / share) / (2 * math.log(19))
        return self.middle if self.width <= 1 else int(self.middle - reach)


@dataclass(frozen=True, slots=True)
class Series:
    """Values and what happened to them.

    Attributes:
        values: shape (n,), NaN where one is missing.
        changes: in order, in indices of ``values``.
        declared: indices of the interventions that are announced.
        every: steps from one value to the next.
    """

    values: Array
    changes: list[Change] = field(default_factory=list)
    declared: list[int] = field(default_factory=list)
    every: int = 1


def noise(n: int, seed: int, phi: float = 0.0, tail: str = "normal") -> Array:
    """AR(1) noise of unit variance, its innovations normal or Student t with 3 degrees of freedom.

    Args:
        n: number of readings.
        seed: of the random generator.
        phi: lag-one coefficient, within [0, 1).
        tail: ``normal`` or ``t3``.

    Returns:
        Shape (n,).

    Example:
        >>> x = noise(20_000, seed=0, phi=0.5)
        >>> round(float(np.mean(x[1:] * x[:-1])), 1)
        0.5
    """
    rng = np.random.default_rng(seed)
    out = rng.standard_normal(n + 200) if tail == "normal" else rng.standard_t(3, n + 200) / math.sqrt(3.0)
    level, scale = 0.0, math.sqrt(1.0 - phi * phi)
    for i, innovation in enumerate(out.tolist()):
        out[i] = level = phi * level + scale * innovation
    return out[200:]


def sigmoid(n: int, middle: int, width: float = 1.0) -> Array:
    """From 0 to 1; ``width`` is the number of readings between 5 % and 95 %, 1 is a step.

    Example:
        >>> sigmoid(4, 2).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    time = np.arange(n) - middle
    if width <= 1:
        return (time >= 0).astype(np.float64)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(time * 2.0 * math.log(19.0) / width, -60.0, 60.0))))


def spike(n: int, at: int, decay: float) -> Array:
    """From 0 to 1 at once, and back with the time constant ``decay``.

    Example:
        >>> spike(4, 1, 1e-9).tolist()
        [0.0, 1.0, 0.0, 0.0]
    """
    time = np.arange(n) - at
    return np.where(time >= 0, np.exp(-np.maximum(time, 0) / decay), 0.0)


def flat(n: int, seed: int, phi: float = 0.0, tail: str = "normal") -> Series:
    """Noise without a change."""
    return Series(noise(n, seed, phi, tail))


def decay(n: int, seed: int, kind: str) -> Series:
    """A loss that falls as a ``power`` law or exponentially, under heavy-tailed noise of phi = .9; no change."""
    t = np.arange(n)
    curve = 40 * (t + 50.0) ** -0.3 if kind == "power" else 20 * np.exp(-t / (n / 8))
    return Series(curve + noise(n, seed, 0.9, "t3"))


def spikes(n: int, seed: int) -> Series:
    """A spike of 10 to 40 standard deviations every 500 readings, back within 15; no change."""
    rng, values = np.random.default_rng([seed, 1]), noise(n, seed, 0.9)
    for at in rng.integers(n // 4, n - 50, max(n // 500, 1)).tolist():
        values[at : at + 15] += rng.uniform(10, 40) * spike(15, 0, float(rng.uniform(0.3, 5)))
    return Series(values)


def slingshots(n: int, seed: int) -> Series:
    """Thrown up by 8 to 15 standard deviations every 800 readings, with a slow return; no change."""
    rng, values, at = np.random.default_rng([seed, 2]), noise(n, seed, 0.5), 600
    while at < n:
        values += rng.uniform(8, 15) * spike(n, at, 40.0)
        at += int(rng.uniform(700, 900))
    return Series(values)


def learning_rate(n: int, seed: int) -> Series:
    """Two declared drops of the learning rate on a power-law decay: the level falls by 3, the noise changes."""
    values = decay(n, seed, "power").values
    drops = [int(0.4 * n), int(0.75 * n)]
    rest = noise(n, seed, 0.9, "t3")
    for k, drop in enumerate(drops):
        values[drop:] -= 3 + 0.5 ** (k + 1) * rest[drop:]
    return Series(values, [], drops)


def moved(
    n: int,
    seed: int,
    phi: float,
    tail: str,
    amplitude: float,
    width: int,
    curve: str = "",
    missing: float = 0.0,
    every: int = 1,
) -> Series:
    """A transition of the level, after 50 to 70 % of the series.

    Args:
        n: number of steps.
        seed: of the random generator.
        phi: lag-one coefficient of the noise.
        tail: ``normal`` or ``t3``.
        amplitude: size of the transition, downwards.
        width: of the sigmoid, in readings.
        curve: kind of :func:`decay` that it is on, with that one's noise; none unless given.
        missing: share of the readings that are NaN.
        every: steps from one reading to the next.

    Example:
        >>> series = moved(2000, 0, phi=0.5, tail="normal", amplitude=4.0, width=100)
        >>> [(change.onset, change.middle) for change in series.changes]
        [(1294, 1357)]
    """
    rng, points = np.random.default_rng([seed, 3]), n // every
    change = Change(int(points * rng.uniform(0.5, 0.7)), width, amplitude)
    values = decay(points, seed, curve).values if curve else noise(points, seed, phi, tail)
    values = values - amplitude * sigmoid(points, change.middle, width)
    while np.mean(np.isnan(values)) < missing:
        at = int(rng.integers(points // 4, points - 200))
        values[at : at + int(rng.integers(1, 200))] = np.nan
    return Series(values, [change], [], every)


def variance(n: int, seed: int, phi: float, ratio: float) -> Series:
    """The spread changes by the factor ``ratio`` after 50 to 70 % of the series."""
    change = Change(int(n * np.random.default_rng([seed, 3]).uniform(0.5, 0.7)), 1, 1.0)
    return Series(noise(n, seed, phi) * np.where(np.arange(n) >= change.middle, ratio, 1.0), [change])
