"""What becomes of the numbers that arrive: readings, news for the detectors, events, and words on what is absent."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from thermo_monitor.delivery import Delivery
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.guard import Guard, tell
from thermo_monitor.meter import Meter
from thermo_monitor.probes.base import Absent, Listener, Measured
from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks.base import Frame, Tick
from thermo_monitor.transport import Arrival

# Reason of a reading: the route that it comes from, and what to say about it.
_ABSENT: dict[str | None, tuple[str, str]] = {
    "no_attention": ("attention", "no attention was heard; the other probes go on."),
    "no_logits": (
        "output",
        "no cross entropy with integer labels was heard; record_output(logits, labels) reports one.",
    ),
    "no_representation": (
        "representation",
        "no block was found whose representations could be read; name one with RepresentationProbe(module=...) or call "
        "record_representation.",
    ),
    "no_gradient": (
        "gradients",
        "no gradient was there to read: call monitor.gradients() after backward and before the gradients are zeroed.",
    ),
}


_RARELY = 5  # full measurements from one look at the detection itself to the next: it costs as much as all the rest


class Reader:
    """Turns arrivals into readings and events and hands them on.

    Args:
        listeners: of the probes, by name of the part.
        detector: options of the detector of every reading.
        delivery: where readings and events go.
        guard: switches off what fails.
        meter: of the monitor's own cost.
        explain: more words about why something may not be heard.

    Attributes:
        events: events of the run so far.
        latest: newest value of each quantity of the whole model.
        ticks: how many measured steps have been read.
    """

    def __init__(
        self,
        listeners: Mapping[str, Listener],
        detector: OnlineDetector | None,
        delivery: Delivery,
        guard: Guard,
        meter: Meter,
        explain: Callable[[], str],
    ) -> None:
        self._listeners = listeners
        self._options = detector
        self._delivery = delivery
        self._guard = guard
        self._meter = meter
        self._explain = explain
        self._told: set[str] = set()
        self.quiet = False  # another rank says what there is to say
        self.detector = RunDetector(detector)
        self.events: list[Event] = []
        self.latest: dict[str, float] = {}
        self.ticks = 0
        self._full = 0

    def read(self, arrival: Arrival) -> None:
        """One measured step."""
        full, parts = arrival.label
        measured = self._measured(arrival, parts)
        readings = [self._explained(reading) for reading in measured.readings]
        if "LossProbe" in parts and not any(r.quantity == "loss/train" for r in readings):
            self.tell_once("no_loss", "a step gave no loss; monitor.loss(loss) reports one.")
        own = self._meter.readings(arrival.step, len(self._guard.disabled)) if full else []
        # What was not measured (no attention, say) is no news of the run; what was, and is no number, is.
        news = [r for r in readings if math.isfinite(r.value) or r.reason == "non_finite"]
        found: list[Event] = self._guard.run("detector", self.detector.update, news) or []
        self._full += full
        if full and self._full % _RARELY == 1:
            own += self._guard.run("detector", self.detector.readings, arrival.step) or []
        self.latest.update({r.quantity: r.value for r in readings if r.layer is None and r.head is None})
        self.ticks += 1
        frames = [Frame(arrival.step, m.quantity, m.values, m.layers) for m in measured.maps]
        self._delivery.write(Tick(arrival.step, time.time(), [*readings, *own], frames, full))
        self._emit(found)

    def _measured(self, arrival: Arrival, parts: Mapping[str, tuple[Any, int]]) -> Measured:
        measured = Measured()
        at = 0
        for name, (label, count) in parts.items():
            arrays = arrival.arrays[at : at + count]
            at += count
            listener = label if isinstance(label, Absent) else self._listeners[name]
            part = self._guard.run(name, listener.read, arrival.step, label, arrays)
            if part is not None:
                measured.readings += part.readings
                measured.maps += part.maps
        return measured

    def finish(self) -> None:
        """The run is over: what is found late is found now."""
        self._emit(self._guard.run("detector", self.detector.finish) or [])

    def _emit(self, events: Sequence[Event]) -> None:
        for event in events:
            self.events.append(event)
            self._delivery.event(event)

    def _explained(self, reading: Reading) -> Reading:
        """Say once, in words, why a whole family of readings is absent."""
        if reading.reason is None or reading.reason not in _ABSENT:
            return reading
        part, sentence = _ABSENT[reading.reason]
        if part in self._guard.disabled:
            return replace(reading, reason="probe_failed")
        self.tell_once(reading.reason, f"{sentence} {self._explain()}".strip())
        return reading

    def tell_once(self, what: str, sentence: str) -> None:
        """Say a sentence, unless something was said about this before."""
        if what not in self._told and not self.quiet:
            self._told.add(what)
            tell(sentence)

    def state_dict(self) -> dict[str, Any]:
        """Plain Python. A copy, because the detectors change theirs in place and a checkpoint may be written later."""
        return copy.deepcopy({"detector": self.detector.state_dict(), "sinks": self._delivery.state_dict()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue, or raise a ``ValueError`` and change nothing."""
        detector = RunDetector(self._options)
        try:
            saved = copy.deepcopy(dict(state["detector"]))
            detector.load_state_dict(saved)
            events = [Event.from_json(text) for text in saved["events"]]
            sinks = dict(state.get("sinks") or {})
        except Exception as error:
            raise ValueError(f"this is no state of a Monitor ({type(error).__name__}: {error})") from error
        self.detector, self.events = detector, events
        self._delivery.load_state_dict(sinks)
