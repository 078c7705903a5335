"""Training-like series with known changes, from the parts that ``thermo_monitor.detect.synthetic`` has.

Noise has unit marginal variance. The onset of a change is the reading at which the mean has moved by a tenth of that:
an alarm before it cannot know anything and is false.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from thermo_monitor.detect.synthetic import noise, sigmoid, spike


@dataclass
class Change:
    """A sigmoid of the level, or at width 1 a step of anything."""

    middle: int
    width: int
    amplitude: float  # in standard deviations of the noise

    @property
    def onset(self) -> int:
        """The first reading that tells."""
        share = min(0.1 / self.amplitude, 0.4)
        reach = self.width * math.log((1 - share) / share) / (2 * math.log(19))
        return self.middle if self.width <= 1 else int(self.middle - reach)


@dataclass
class Series:
    """Values and what happened to them, in indices of values."""

    values: np.ndarray
    changes: list[Change] = field(default_factory=list)
    declared: list[int] = field(default_factory=list)
    every: int = 1  # steps from one value to the next


def flat(n: int, seed: int, phi: float = 0.0, tail: str = "normal") -> Series:
    return Series(noise(n, seed, phi, tail))


def decay(n: int, seed: int, kind: str) -> Series:
    """A loss that falls as a power law or exponentially, under heavy-tailed correlated noise."""
    t = np.arange(n)
    curve = 40 * (t + 50.0) ** -0.3 if kind == "power" else 20 * np.exp(-t / (n / 8))
    return Series(curve + noise(n, seed, 0.9, "t3"))


def spikes(n: int, seed: int) -> Series:
    """A spike of 10 to 40 standard deviations every 500 readings, back within 15."""
    rng, values = np.random.default_rng([seed, 1]), noise(n, seed, 0.9)
    for at in rng.integers(n // 4, n - 50, max(n // 500, 1)).tolist():
        values[at : at + 15] += rng.uniform(10, 40) * spike(15, 0, float(rng.uniform(0.3, 5)))
    return Series(values)


def slingshots(n: int, seed: int) -> Series:
    """Thrown up by 8 to 15 standard deviations every 800 readings, with a slow return: no change of regime."""
    rng, values, at = np.random.default_rng([seed, 2]), noise(n, seed, 0.5), 600
    while at < n:
        values += rng.uniform(8, 15) * spike(n, at, 40.0)
        at += int(rng.uniform(700, 900))
    return Series(values)


def learning_rate(n: int, seed: int) -> Series:
    """Two declared drops of the learning rate on a power-law decay: the level falls by 3, the noise halves."""
    series = decay(n, seed, "power")
    drops = [int(0.4 * n), int(0.75 * n)]
    rest = noise(n, seed, 0.9, "t3")
    for k, drop in enumerate(drops):
        series.values[drop:] -= 3 + 0.5 ** (k + 1) * rest[drop:]
    return Series(series.values, [], drops)


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
    """A transition of the level, a sigmoid, somewhere in the middle third."""
    rng, points = np.random.default_rng([seed, 3]), n // every
    change = Change(int(points * rng.uniform(0.5, 0.7)), width, amplitude)
    values = decay(points, seed, curve).values if curve else noise(points, seed, phi, tail)
    values = values - amplitude * sigmoid(points, change.middle, width)
    while np.mean(np.isnan(values)) < missing:
        at = int(rng.integers(points // 4, points - 200))
        values[at : at + int(rng.integers(1, 200))] = np.nan
    return Series(values, [change], [], every)


def variance(n: int, seed: int, phi: float, ratio: float) -> Series:
    change = Change(int(n * np.random.default_rng([seed, 3]).uniform(0.5, 0.7)), 1, 1.0)
    return Series(noise(n, seed, phi) * np.where(np.arange(n) >= change.middle, ratio, 1.0), [change])


Make = Callable[[int, int], Series]
NULLS: dict[str, Make] = {
    "independent, normal": flat,
    "AR .5": partial(flat, phi=0.5),
    "AR .9": partial(flat, phi=0.9),
    "independent, t3": partial(flat, tail="t3"),
    "AR .9, t3": partial(flat, phi=0.9, tail="t3"),
    "power-law decay, AR .9, t3": partial(decay, kind="power"),
    "exponential decay, AR .9, t3": partial(decay, kind="exponential"),
    "spikes, AR .9": spikes,
    "slingshots, AR .5": slingshots,
    "declared learning-rate drops": learning_rate,
}
CHANGES: dict[str, Make] = {
    "step of 1, independent": partial(moved, phi=0.0, tail="normal", amplitude=1.0, width=1),
    "step of 4, AR .9, t3": partial(moved, phi=0.9, tail="t3", amplitude=4.0, width=1),
    "width 100, 4, AR .9, t3": partial(moved, phi=0.9, tail="t3", amplitude=4.0, width=100),
    "width 1000, 4, AR .9, t3": partial(moved, phi=0.9, tail="t3", amplitude=4.0, width=1000),
    "width 100, 4, on a decay": partial(moved, phi=0.9, tail="t3", amplitude=4.0, width=100, curve="power"),
    "5 % missing, width 100, 4": partial(moved, phi=0.9, tail="normal", amplitude=4.0, width=100, missing=0.05),
    "read every 10, width 10, 4": partial(moved, phi=0.5, tail="normal", amplitude=4.0, width=10, every=10),
    "spread x 3, AR .9": partial(variance, phi=0.9, ratio=3.0),
    "spread / 3, AR .5": partial(variance, phi=0.5, ratio=1 / 3),
}
