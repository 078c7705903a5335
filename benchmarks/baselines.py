"""What people use: textbook detectors with their usual settings, all behind ``feed(value) -> bool``.

Each starts again after an alarm and after a declared intervention. Values that are not finite are kept from them, as
one of them would silence most for ever. Those that need a scale are given the mean and spread of the first 200 values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

import numpy as np

BURN_IN = 200


class Baseline(Protocol):
    """A detector that keeps its own state."""

    def feed(self, value: float) -> bool:
        """One more value; whether it raises an alarm."""


class ZScore:
    """|z| > 3 against the last 30 values, as metric automations do it."""

    def __init__(self) -> None:
        self.window: list[float] = []

    def feed(self, value: float) -> bool:
        window = self.window
        alarm = False
        if len(window) == 30:
            centre = sum(window) / 30
            spread = (sum([(v - centre) ** 2 for v in window]) / 30) ** 0.5
            alarm = 0 < 3 * spread < abs(value - centre)
            del window[0]
        window.append(value)
        return alarm


class Standardised:
    """Base of those that work in standard deviations of a burn-in."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.centre, self.spread = 0.0, 1.0

    def feed(self, value: float) -> bool:
        if len(self.seen) < BURN_IN:
            self.seen.append(value)
            if len(self.seen) == BURN_IN:
                self.centre, self.spread = float(np.mean(self.seen)), max(float(np.std(self.seen)), 1e-300)
            return False
        return self.standard((value - self.centre) / self.spread)

    def standard(self, z: float) -> bool:
        """One more value in standard deviations."""
        raise NotImplementedError


class Cusum(Standardised):
    """Two-sided CUSUM, reference .5, threshold 5."""

    def __init__(self) -> None:
        super().__init__()
        self.up = self.down = 0.0

    def standard(self, z: float) -> bool:
        self.up, self.down = max(0.0, self.up + z - 0.5), max(0.0, self.down - z - 0.5)
        return max(self.up, self.down) > 5.0


def _river(name: str) -> Callable[[], Baseline]:
    from river import drift

    class River(Standardised):
        def __init__(self) -> None:
            super().__init__()
            self.detector = getattr(drift, name)()

        def standard(self, z: float) -> bool:
            self.detector.update(z)
            return bool(self.detector.drift_detected)

    return River


def available() -> dict[str, Callable[[], Baseline]]:
    """Baselines by name; those of ``river`` where it is installed, with its defaults."""
    found: dict[str, Callable[[], Baseline]] = {"z-score (30, 3)": ZScore, "CUSUM (.5, 5)": Cusum}
    with contextlib.suppress(ImportError):
        found |= {"ADWIN": _river("ADWIN"), "Page-Hinkley": _river("PageHinkley")}
    return found
