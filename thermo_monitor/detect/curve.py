"""The course of one reading over a whole run, in a bounded number of points."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Curve:
    """The recent course of one reading, thinned so that it never grows: at most ``2 * keep`` points.

    Attributes:
        steps: rising.
        values: finite, in the units that the detector sees (logarithms for quantities on a log scale).
        stride: every how many readings one is kept.
        seen: readings so far.
    """

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    stride: int = 1
    seen: int = 0
    keep: int = 256

    def add(self, step: int, value: float) -> None:
        """Add a reading; when full, every other point goes and the stride doubles."""
        if self.seen % self.stride == 0:
            self.steps.append(step)
            self.values.append(value)
            if len(self.steps) >= 2 * self.keep:
                del self.steps[1::2], self.values[1::2]
                self.stride *= 2
        self.seen += 1

    def between(self, low: int, high: int) -> list[float]:
        """Values at steps low to high."""
        return [v for s, v in zip(self.steps, self.values, strict=True) if low <= s <= high]

    def at(self, step: int) -> float:
        """The last value at or before a step; NaN before the first."""
        found = math.nan
        for s, v in zip(self.steps, self.values, strict=True):
            if s > step:
                break
            found = v
        return found

    def to_state(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"steps": self.steps, "values": self.values, "stride": self.stride, "seen": self.seen}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Curve:
        """From :meth:`to_state`."""
        return cls(list(state["steps"]), list(state["values"]), state["stride"], state["seen"])
