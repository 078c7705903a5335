"""From what the detector knows to the record that leaves it: kind, direction, interval, levels, phase."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from thermo_monitor.detect.eprocess import NOTHING
from thermo_monitor.detect.follow import Verdict, departure
from thermo_monitor.detect.settings import Settings
from thermo_monitor.records import Direction, Event, Kind, Phase

State = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decision:
    """What one reading led to.

    Attributes:
        statistic: natural logarithm of the detection statistic.
        threshold: natural logarithm of the alarm threshold.
        event: the change that this reading confirmed, or None.
        completed: an event that was announced while its change was under way, once more, now that the level has
            settled: its details have ``after`` and ``width``. Not a second change. ``grown`` in its details says that
            what was announced was only the foot of it.
    """

    statistic: float
    threshold: float
    event: Event | None = None
    completed: Event | None = field(default=None)


def decide(state: State, settings: Settings, event: Event | None = None, completed: Event | None = None) -> Decision:
    """Decision with the statistic as it stands."""
    statistic = state["stat"]["log_sr"] if state["stat"] else NOTHING
    return Decision(statistic, settings.threshold, event, completed)


def raw(state: State, x: float) -> float:
    """A level of the detector's own units in those of the readings."""
    return float(state["zero"] + x * state["unit"])


def phase_of(state: State, onset: int, low: int, high: int, step: int) -> tuple[Phase, dict[str, Any]]:
    """``scheduled``, with the reason, when a declared intervention explains a change that may have begun then."""
    for begin, end, reason in reversed(state["declared"]):
        until = step if end is None else end
        if begin <= onset <= until or low <= begin <= high:
            return "scheduled", {"reason": reason}
    return "unexplained", {}


def event(
    state: State,
    settings: Settings,
    kind: Kind,
    step: int,
    dates: tuple[int, int, int],
    direction: Direction,
    evidence: float,
    details: dict[str, Any],
) -> Event:
    """The record; ``dates`` are the onset and its interval."""
    onset, low, high = dates
    phase, why = phase_of(state, onset, low, high, step)
    common = {"minimum_effect": settings.minimum_effect, "threshold": settings.threshold}
    return Event(
        kind=kind,
        step=step,
        onset=onset,
        direction=direction,
        evidence=evidence,
        phase=phase,
        onset_low=min(low, onset),
        onset_high=max(high, onset),
        details={**common, **details, **why},
    )


def followed(state: State, settings: Settings, kind: Kind, step: int, verdict: Verdict | None, width: float) -> Event:
    """Event of the change that is followed; without a verdict its level has not settled and ``after`` is not known."""
    track = state["follow"]
    up = track["up"]
    details: dict[str, Any] = {"before": raw(state, track["before"]), **track.get("facts", {})}
    if verdict is None:
        recent = track["blocks"][-1] if track["blocks"] else track["before"]
        up = recent > track["before"] if track["variance"] or kind == "drift" else up
    else:
        details["after"] = raw(state, verdict.after)
        details["peak"] = track["peak"] * state["unit"]
        up = verdict.after > track["before"]
        if kind == "variance":
            up = verdict.ratio > 1.0
        elif kind == "excursion":
            up = track["peak"] > 0.0
        if kind == "variance" or not 0.6 < verdict.ratio < 1.0 / 0.6:
            details["spread_ratio"] = verdict.ratio
        if kind == "shift":
            way = abs(verdict.after - track["before"])
            details["excursion"] = track["spike"] or abs(track["peak"]) > max(
                2.0 * way, way + settings.minimum_effect / state["unit"]
            )
    if not math.isnan(width):
        details["width"] = width
    onset = track["onset"]
    if verdict is not None and not track["noisy"] and kind in ("shift", "excursion"):
        # Hardly any noise: the curve itself shows when it left, better than a sum of innovations does.
        way = verdict.after - track["before"] if kind == "shift" else track["peak"]
        left = departure(track, way, 0.05 if kind == "shift" else 0.1)
        onset = onset if left is None else max(onset, left)
    dates = (onset, min(track["low"], onset), max(track["high"], onset) if onset == track["onset"] else onset)
    return event(state, settings, kind, step, dates, "up" if up else "down", track["evidence"], details)
