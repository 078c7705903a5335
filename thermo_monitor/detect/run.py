"""The readings of one run watched together: one detector for each watched quantity, rules for the rest, typed events.

The budget of false alarms is the run's: the detectors add up evidence, and their weighted average decides (``fusion``).
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from thermo_monitor import quantities
from thermo_monitor.detect import fusion, held_out, interventions, rules
from thermo_monitor.detect.curve import Curve
from thermo_monitor.detect.eprocess import NOTHING
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.phases import FORCES, Context, name_phase
from thermo_monitor.detect.wording import level, sentence
from thermo_monitor.records import Event, Reading

DEFAULT = OnlineDetector(arl=10_000, burn_in=40)
_REMEMBERED = 64  # events that later ones are compared with


class RunDetector:
    """Folds the readings of a run into events; its state is plain JSON.

    Args:
        detector: options for every quantity; ``minimum_effect`` comes from the registry unless it is given here, and
            ``arl`` is for the run as a whole: the mean number of readings of its fastest quantity (of optimizer steps,
            where one is read on every step) to a false alarm is at least that.
        run: name of the run in the ids of events.
    """

    def __init__(self, detector: OnlineDetector | None = None, run: str = "run") -> None:
        importlib.import_module("ruptures")  # takes most of a second: now, and not in the middle of a training
        options = detector or DEFAULT
        self._watched = {key: q for key, q in quantities.REGISTRY.items() if q.watched}
        self._threshold = math.log(options.arl)
        self._detectors = {
            key: replace(
                options,
                arl=options.arl * len(self._watched),  # about what one series alone has to show: A / weight
                minimum_effect=options.minimum_effect or q.minimum_effect_transformed,
            )
            for key, q in self._watched.items()
        }
        self._run = run
        self._count = 0
        self._states: dict[str, dict[str, Any]] = {}
        self._weights: dict[str, float] = {}
        self._peak = NOTHING  # of the run's statistic since it was last asked for
        self._curves: dict[str, Curve] = {}
        self._rules = rules.fresh()
        self._held_out = held_out.fresh()
        self._facts = interventions.fresh()
        self._events: list[Event] = []

    def update(self, readings: Iterable[Reading]) -> list[Event]:
        """Events that the readings of one step confirmed.

        Those of the family ``val`` are held-out metrics, one reading for each evaluation: they confirm and label.
        """
        found: list[Event] = []
        latest = -1
        for reading in readings:
            if reading.quantity.startswith(held_out.FAMILY):
                found += held_out.read(self._held_out, self._curves, reading, self._rules["memorized"])
            if reading.layer is None and reading.quantity in rules.UNWATCHED:
                found += rules.update(self._rules, reading, reading.value)
            if reading.layer is not None or reading.quantity not in self._watched:
                continue
            key, latest = reading.quantity, max(latest, reading.step)
            value = _transformed(self._watched[key].scale, reading.value)
            detector = self._detectors[key]
            state = self._states.get(key)
            if state is None:
                state = self._states[key] = detector.init()
            if state["last_step"] is not None and reading.step <= state["last_step"]:
                state["overlap"] += 1  # seen before the run was resumed: no curve, window or rule counts it again
                continue
            learning = state["mode"] == "burn_in"
            if key not in self._curves:
                self._curves[key] = Curve()
            if math.isfinite(value):
                self._curves[key].add(reading.step, value)
                if key not in self._weights:
                    self._weigh([*self._weights, key])
            state, decision = detector.update(state, value, reading.step, alone=False)
            self._states[key] = state
            found += rules.update(self._rules, reading, value)
            found += self._kept(key, decision.event)
            if decision.completed is not None and "grown" in decision.completed.details:
                found += self._kept(key, decision.completed)
            if learning and state["mode"] != "burn_in":
                found += self._late(key, reading.step)
        return self._typed(found + self._alarms(latest))

    def metric(self, quantity: str, better: held_out.Better | None) -> None:
        """Say which direction of a held-out metric is better, in place of what its name says."""
        held_out.declare(self._held_out, quantity, better)

    def _weigh(self, keys: Iterable[str]) -> None:
        self._weights = fusion.weights({key: self._watched[key].group for key in keys})

    def _alarms(self, step: int) -> list[Event]:
        """Events announced at once by an alarm of the average; each alarm is raised in its leading series."""
        found: list[Event] = []
        while True:
            fused = self._fused()
            self._peak = max(self._peak, fused.log)
            if fused.log < self._threshold:
                return found
            key = fused.leader
            low, high = fusion.interval(self._states, fused, step)
            facts = fusion.facts(fused, self._weights, self._threshold)
            verdict = {"low": low, "high": high, "evidence": fused.log, "facts": facts}
            _, decision = self._detectors[key].sound(self._states[key], step, verdict)
            found += self._kept(key, decision.event)

    def _fused(self) -> fusion.Fused:
        logs = {key: fusion.evidence(self._states[key]) for key in self._weights}
        return fusion.combine(logs, self._weights)

    def _kept(self, key: str, event: Event | None) -> list[Event]:
        if event is None or rules.handles(key, event) or not self._matters(key, event):
            return []
        return [self._explained(replace(event, quantity=key))]

    def readings(self, step: int) -> list[Reading]:
        """The detection in numbers, ``detect/score`` and ``detect/early_warning``; asked for at slow ticks."""
        if all(state["mode"] == "burn_in" for state in self._states.values()):
            return [Reading(step, key, math.nan, reason="learning") for key in ("detect/score", "detect/early_warning")]
        progress = min(max(self._peak / self._threshold, 0.0), 1.0)
        self._peak = NOTHING
        return [
            Reading(step, "detect/score", progress),
            Reading(step, "detect/early_warning", rules.early(self._rules)),
        ]

    def finish(self) -> list[Event]:
        """The run is over: what is still inside a burn-in is dated now, or it would be lost."""
        found: list[Event] = []
        for key, state in self._states.items():
            if state["mode"] == "burn_in" and state["last_step"] is not None:
                found += self._late(key, state["last_step"])
        return self._typed(found + rules.finish(self._rules))

    def notice(self, step: int, facts: Mapping[str, float]) -> None:
        """What the schedule and the settings of the run are at a step: when they change, that is declared."""
        reasons = interventions.update(self._facts, facts, step)
        if reasons:
            self.declare(step, "; ".join(reasons))

    def declare(self, step: int, reason: str) -> None:
        """What changes from here on is explained by an intervention."""
        for key, state in self._states.items():
            self._states[key] = self._detectors[key].declare(state, step, reason)
        rules.restart(self._rules)

    def _matters(self, key: str, event: Event) -> bool:
        """Whether a change is large enough.

        A level that moves has to move by the minimum effect, and so has the spread of readings around one that stays.
        """
        values = self._curves[key].between(event.onset, event.step) if event.kind == "variance" else []
        if len(values) < 8:
            return event.kind != "variance"
        steps = np.diff(values)  # of neighbouring readings, so that a trend does not count as spread
        spread = 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2)
        return spread >= self._detectors[key].minimum_effect

    def _late(self, key: str, step: int) -> list[Event]:
        if key in FORCES:  # loss and gradient always move at the start; what matters there, the rules say
            return []
        events = self._detectors[key].late(self._states[key])
        return [self._explained(replace(event, quantity=key, step=step)) for event in events]

    def _explained(self, event: Event) -> Event:
        """``scheduled`` for what began with a setting that was declared only when its new value had stayed."""
        if event.phase != "unexplained":
            return event
        low, high = (event.onset if end is None else end for end in (event.onset_low, event.onset_high))
        reason = interventions.explanation(self._facts, event.onset, low, high)
        return replace(event, phase="scheduled", details={**event.details, "reason": reason}) if reason else event

    def _typed(self, found: list[Event]) -> list[Event]:
        out = []
        metrics = held_out.metrics(self._held_out, self._curves) if found else []
        for event in sorted(found, key=lambda e: e.onset):
            phase, why = name_phase(event, Context(self._curves, self._events, metrics))
            same = self._part_of(event, phase)
            said = held_out.verdict(event, phase, metrics, self._curves.get("loss/train"))
            details = {**event.details, "why": why} | ({"part_of": same} if same else {})
            details |= {} if said is None else {"validation": said}
            event = replace(event, phase=phase, id=f"{self._run}:{self._count}", wall=time.time(), details=details)
            event = replace(event, level="info" if same else level(event))
            event = replace(event, message=sentence(event))
            self._count += 1
            self._events = [*self._events, event][-_REMEMBERED:]
            out.append(event)
        return out

    def _part_of(self, event: Event, phase: str) -> str | None:
        """Id of an earlier event of the same phase that this one is another side of; none for what has come back."""
        if event.kind == "excursion":
            return None
        low, high = _span(event)
        for earlier in reversed(self._events):
            first, last = _span(earlier)
            if earlier.phase == phase and low <= last and first <= high and "part_of" not in earlier.details:
                return earlier.id
        return None

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "run": self._run,
            "count": self._count,
            "states": self._states,
            "heard": list(self._weights),
            "peak": self._peak,
            "curves": {key: curve.to_state() for key, curve in self._curves.items()},
            "rules": self._rules,
            "held_out": self._held_out,
            "facts": self._facts,
            "events": [event.to_json() for event in self._events],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken."""
        self._run, self._count = state["run"], state["count"]
        self._states = {key: dict(value) for key, value in state["states"].items() if key in self._watched}
        self._weigh([key for key in state.get("heard", self._states) if key in self._watched])
        self._peak = state.get("peak", NOTHING)
        self._curves = {key: Curve.from_state(value) for key, value in state["curves"].items()}
        self._rules = rules.fresh() | state["rules"]
        self._held_out = held_out.fresh() | state.get("held_out", {})
        self._facts = interventions.fresh() | state["facts"]
        self._events = [Event.from_json(text) for text in state["events"]]


def _span(event: Event) -> tuple[int, int]:
    return (event.onset if event.onset_low is None else event.onset_low), event.step


def _transformed(scale: str, value: float) -> float:
    if scale != "log":
        return value
    return math.log(value) if value > 0 and math.isfinite(value) else math.nan
