"""What a change looks like when the readings are taken together: one table of rules, each with its evidence.

A rule sees the event, what the run's curves did around it, and the events before it. The first rule that holds names
the phase. Rules name; they never decide whether there is an event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thermo_monitor.detect import held_out, helping
from thermo_monitor.detect.curve import Curve
from thermo_monitor.detect.simpler import SHRINK
from thermo_monitor.records import Event, Phase

MEMORIZED = 0.1  # share of its first level to which the training loss has fallen when the training set is fitted
SPIKE = math.log(3.0)  # a loss that is thrown up by this factor is no settled loss
FORCES = ("loss/train", "opt/gradient_norm")
_FALL = math.log(1.25)  # by which the gradient has to fall meanwhile, if it is read


@dataclass(frozen=True, slots=True)
class Context:
    """What the rules see beside the event."""

    curves: dict[str, Curve]
    events: Sequence[Event]
    metrics: Sequence[held_out.Metric] = ()

    def rise(self, quantity: str, event: Event) -> float:
        """Change of a curve from before the onset to the confirmation; NaN when it was not read."""
        curve = self.curves.get(quantity)
        if curve is None or not curve.steps:
            return math.nan
        start = event.onset if event.onset_low is None else event.onset_low
        return curve.at(event.step) - curve.at(start)

    def generalized_at_once(self, event: Event) -> bool:
        """Whether held-out metrics went along while the training set was being fitted."""
        return any(held_out.followed(metric, event, self.curves.get("loss/train")) for metric in self.metrics)

    def became_worse(self, event: Event) -> bool:
        """Whether held-out metrics became worse around the event and none became better."""
        moves = [move for metric in self.metrics if (move := held_out.changed(metric, event)) is not None]
        return bool(moves) and max(moves) < 1.0 and min(moves) <= -1.0

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
        if value - low > SPIKE:
            return True
    return False


def _held_out(event: Event, context: Context) -> bool:
    if event.details.get("milestone") == "memorization":
        return context.generalized_at_once(event)
    return event.details.get("held_out") == "improved"


def _memorization(event: Event, context: Context) -> bool:
    if event.details.get("milestone") == "memorization" or event.details.get("held_out") == "overfitting":
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
    if context.fitted_at is None or event.details.get("slow") or context.became_worse(event):
        return False
    shrinking = event.details.get("shrinking") or context.rise("opt/weight_norm", event) < -SHRINK
    return bool(shrinking) and not context.rise("opt/gradient_norm", event) > -_FALL


def _helping(event: Event, context: Context) -> bool:
    return event.quantity == helping.QUANTITY and event.direction == "up" and not context.became_worse(event)


def _reorganization(event: Event, context: Context) -> bool:
    return event.quantity.startswith(("attn/", "repr/", "out/")) and event.kind in ("shift", "drift", "variance")


RULES: tuple[tuple[Phase, str, Callable[[Event, Context], bool]], ...] = (
    ("generalization", "a held-out metric improved with the fit of the training set, or after it", _held_out),
    (
        "memorization",
        "the training loss fell to a tenth of where it began, or held-out metrics became worse as it fell",
        _memorization,
    ),
    ("instability", "loss or gradient was thrown up, or the change came with such a throw", _instability),
    (
        "generalization",
        "representations became simpler and weights smaller after the training set was fitted, the loss undisturbed",
        _generalization,
    ),
    (
        "generalization",
        "a step on an example came to help the others, after the training set was fitted: gradient coherence above 1",
        _helping,
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
