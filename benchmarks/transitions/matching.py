"""What the events of one run are worth, compared with what happened in it.

Judged are the events that a user is told of: of level ``warning`` or ``error``, no side of an earlier one. One whose
onset lies in the widened window of something listed is right; one that says ``generalization`` before the rise of a
run that does generalize is a precursor; anything else is a false alarm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from thermo_monitor.records import Event
from transitions.truth import Change, Truth


@dataclass
class Outcome:
    """One run, scored.

    Attributes:
        found: for each counted change the first event whose onset is in its window, or None.
        labels: (what it was, what it was called) of every told event that matches something.
        false: told events that match nothing.
        precursors: announcements before the window.
        announced: step of the first told event that says generalization; NaN without one.
        half: step at which the held-out order parameter passes one half, where the run generalizes; else NaN.
        wrong: told events that say generalization in a run that never does.
        excursions: for each throw at which there is an event, told or not, whether one is an ``excursion``.
        scheduled: for each declared change at which there is one, whether one is called ``scheduled``.
        told: number of told events but the scheduled ones.
        steps: length of the run.
    """

    found: list[tuple[Change, Event | None]] = field(default_factory=list)
    labels: list[tuple[str, str]] = field(default_factory=list)
    false: list[Event] = field(default_factory=list)
    precursors: list[Event] = field(default_factory=list)
    announced: float = math.nan
    half: float = math.nan
    wrong: list[Event] = field(default_factory=list)
    excursions: list[bool] = field(default_factory=list)
    scheduled: list[bool] = field(default_factory=list)
    told: int = 0
    steps: int = 0


def told(events: Sequence[Event]) -> list[Event]:
    """The events that a user hears of, and those that are called scheduled."""
    return [e for e in events if "part_of" not in e.details and (e.level != "info" or e.phase == "scheduled")]


def holds(change: Change, event: Event) -> bool:
    """Whether the onset of an event is in the widened window of a change."""
    return change.low <= event.onset <= change.high


def _found(changes: Sequence[Change], news: Sequence[Event]) -> list[tuple[Change, Event | None]]:
    """Each change with the first event of its phase in its window, or the first other one; one event finds one change.

    Wide windows overlap: without that the one event of a memorization would find the generalization after it too.
    """
    taken: dict[int, Event] = {}
    for same in (True, False):
        for i, change in enumerate(changes):
            free = (e for e in news if holds(change, e) and not any(e is other for other in taken.values()))
            own = next((e for e in free if not same or e.phase == change.phase), None)
            if i not in taken and own is not None:
                taken[i] = own
    return [(change, taken.get(i)) for i, change in enumerate(changes)]


def match(truth: Truth, events: Sequence[Event]) -> Outcome:
    """Score the events of one run."""
    heard = told(events)
    outcome = Outcome(steps=truth.steps)
    rise = truth.rise("generalization")
    claims = [e for e in heard if e.phase == "generalization"]
    if claims:
        outcome.announced = min(e.step for e in claims)
    if rise is not None and rise.half is not None:
        outcome.half = rise.half
    if truth.outcome == "never":
        outcome.wrong = claims
    news = [e for e in heard if e.phase != "scheduled"]
    outcome.told = len(news)
    outcome.found = _found([c for c in truth.changes if c.counted], news)
    for change in truth.changes:
        inside = [e for e in events if holds(change, e) and "part_of" not in e.details]
        if change.phase == "scheduled" and inside:
            outcome.scheduled.append(any(e.phase == "scheduled" for e in inside))
        if change.rule == "throw" and inside:
            outcome.excursions.append(any(e.kind == "excursion" for e in inside))
    for event in news:
        matching = [c for c in truth.changes if holds(c, event)]
        if matching:
            names = {c.phase for c in matching}
            outcome.labels.append((event.phase if event.phase in names else matching[0].phase, event.phase))
        elif rise is not None and event.phase == "generalization" and event.step < rise.begin:
            outcome.precursors.append(event)
        else:
            outcome.false.append(event)
    return outcome
