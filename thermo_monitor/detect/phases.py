"""What a change looks like when the readings are taken together: one table of rules, each with its evidence.

A rule sees the event, what the run's curves did around it, and the events before it. The first rule that holds names
the phase. Rules name; they never decide whether there is an event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from thermo_monitor.records import Event, Phase

MEMORIZED = 0.1  # share of its first level to which the training loss has fallen when the training set is fitted
_SPIKE = math.log(3.0)  # a loss that is thrown up by this factor is no settled loss
FORCES = ("loss/train", "opt/gradient_norm")
_FALL = math.log(1.25)  # by which the gradient has to fall meanwhile, if it is read
_SHRINK = 0.005  # logarithm by which the weight norm has to fall to be called shrinking


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


@dataclass(frozen=True, slots=True)
class Context:
    """What the rules see beside the event."""

    curves: dict[str, Curve]
    events: Sequence[Event]

    def rise(self, quantity: str, event: Event) -> float:
        """Change of a curve from before the onset to the confirmation; NaN when it was not read."""
        curve = self.curves.get(quantity)
        if curve is None or not curve.steps:
            return math.nan
        start = event.onset if event.onset_low is None else event.onset_low
        return curve.at(event.step) - curve.at(start)

    @property
    def fitted_at(self) -> int | None:
        """Step at which it was clear that the training set is fitted; None before."""
        return next((e.step for e in self.events if "milestone" in e.details), None)


def loss_thrown_up(event: Event, context: Context) -> bool:
    """Whether the training loss was thrown up by a factor of 3 at any time from the onset to the confirmation."""
    curve = context.curves.get("loss/train")
    if curve is None:
        return False
    start = event.onset if event.onset_low is None else event.onset_low
    around = curve.between(start, event.step)
    low = math.inf
    for value in around:
        low = min(low, value)
        if value - low > _SPIKE:
            return True
    return False


def _memorization(event: Event, context: Context) -> bool:
    if event.details.get("milestone") == "memorization":
        return True
    # What began while the training set was being fitted is a part of that, unless it went wrong.
    return (
        event.kind == "shift"
        and not (event.quantity in FORCES and event.direction == "up")
        and context.fitted_at is not None
        and event.onset <= context.fitted_at
    )


def _instability(event: Event, context: Context) -> bool:
    if event.kind in ("collapse", "divergence"):
        return True
    if event.quantity in FORCES and event.direction == "up":
        return True
    return loss_thrown_up(event, context)


_SIMPLER = {"repr/representation_entropy": "down", "repr/spectral_entropy": "down", "repr/effective_rank": "down"}


def _generalization(event: Event, context: Context) -> bool:
    # Representations and weights become simpler while the fit stays: after the training set was fitted, the loss not
    # thrown up (an earlier rule), the weights shrinking, and the gradient still falling: where it rises or stands still
    # while the representations slide, a spike of the loss is building up.
    if event.kind not in ("shift", "drift") or _SIMPLER.get(event.quantity) != event.direction:
        return False
    if context.fitted_at is None or event.details.get("slow"):
        return False
    weights = context.rise("opt/weight_norm", event)
    force = context.rise("opt/gradient_norm", event)
    return weights < -_SHRINK and not force > -_FALL


def _reorganization(event: Event, context: Context) -> bool:
    return event.quantity.startswith(("attn/", "repr/", "out/")) and event.kind in ("shift", "drift", "variance")


RULES: tuple[tuple[Phase, str, Callable[[Event, Context], bool]], ...] = (
    ("memorization", "the training loss fell to a tenth of where it began", _memorization),
    ("instability", "loss or gradient was thrown up, or the change came with such a throw", _instability),
    (
        "generalization",
        "representations became simpler and weights smaller after the training set was fitted, the loss undisturbed",
        _generalization,
    ),
    ("reorganization", "attention, representations or outputs moved to another level", _reorganization),
)


def name_phase(event: Event, context: Context) -> tuple[Phase, str]:
    """The phase of an event and the sentence that says why.

    An event that was declared keeps its phase.
    """
    if event.phase == "scheduled":
        return "scheduled", "explained by a declared intervention"
    for phase, why, holds in RULES:
        if holds(event, context):
            return phase, why
    return "unexplained", "no rule fits"
