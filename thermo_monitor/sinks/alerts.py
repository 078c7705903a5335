"""Tells people where they are: chat, mail, phone, W&B, trackio, or a function of their own."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from thermo_monitor.guard import tell
from thermo_monitor.quantities import REGISTRY
from thermo_monitor.records import LEVELS, Event, Level
from thermo_monitor.sinks.advice import advice, interval
from thermo_monitor.sinks.base import Tick
from thermo_monitor.sinks.channels import Channel, Message, Target, channel
from thermo_monitor.sinks.outbox import Outbox

_REMEMBERED = 512  # ids of events that were told
_CURVE = 600  # readings of each quantity that a picture is drawn from
_LISTED = 8  # events that a digest names


class AlertSink:
    """Sends an alert for each event that people should know of, from a thread of its own.

    What is told: events of at least `least`, no parts of another event, nothing that was scheduled, each id once. After
    an alert, further ones of the same kind and quantity are held back for `cooldown` seconds and then told together;
    an ``error`` passes once even so. Training never waits and never fails for it: what is too much for the queue is
    counted, and what was not sent is listed at the end.

    Args:
        targets: addresses in the form of apprise such as ``slack://...``, ``mailto://...``, ``json://...``, the words
            ``wandb`` and ``trackio`` for a run that is active there, and functions that take an event.
        run: name of the run.
        least: lowest level that is told.
        cooldown: seconds.
        timeout: seconds that a service may take.
        flush: seconds that :meth:`close` waits.
        clock: seconds, for tests.

    Raises:
        ValueError: a target makes no sense; the message repeats no address.

    Example:
        >>> sink = AlertSink([lambda event: print(event.phase)])
        >>> sink.event(Event("shift", 120, 100, phase="generalization", id="run:0"))
        >>> sink.close()
        generalization
    """

    def __init__(
        self,
        targets: Iterable[Target],
        run: str = "",
        *,
        least: Level = "warning",
        cooldown: float = 60.0,
        timeout: float = 10.0,
        flush: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(targets, str) or callable(targets):
            raise ValueError("alerts is a list of targets: give ['slack://...'], not the target itself")
        if least not in LEVELS:
            raise ValueError(f"least={least!r}: give one of {', '.join(LEVELS)}")
        self._channels: list[Channel] = [channel(target, least) for target in targets]
        self._run, self._least, self._cooldown, self._flush, self._clock = run, least, cooldown, flush, clock
        self._outbox = Outbox(self._channels, timeout=timeout, tell=tell)
        self._told: OrderedDict[str, None] = OrderedDict()
        self._last: dict[tuple[str, str], float] = {}
        self._urgent: set[tuple[str, str]] = set()
        self._held: dict[tuple[str, str], list[Event]] = {}
        self._dropped = 0
        self._curves: dict[str, deque[tuple[int, float]]] = {}
        self._closed = False

    def write(self, tick: Tick) -> None:
        """Remember the last readings, for pictures; tell what was held back long enough."""
        for r in tick.readings:
            if r.layer is None and r.head is None and r.quantity in REGISTRY and REGISTRY[r.quantity].watched:
                self._curves.setdefault(r.quantity, deque(maxlen=_CURVE)).append((r.step, r.value))
        if self._held:
            self._release(force=False)

    def event(self, event: Event) -> None:
        """Tell it, hold it back, or leave it out."""
        if not self._channels or "part_of" in event.details or event.phase == "scheduled":
            return
        if LEVELS.index(event.level) < LEVELS.index(self._least):
            return
        name = event.id or f"{event.kind} {event.onset} {event.quantity}"
        if name in self._told:
            return
        self._told[name] = None
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        for one in self._channels:
            one.remember()
        key, now = (event.kind, event.quantity), self._clock()
        within = now - self._last.get(key, -math.inf) < self._cooldown
        if within and (event.level != "error" or key in self._urgent):
            held = self._held.setdefault(key, [])
            if len(held) < _LISTED * 4:
                held.append(event)
            else:
                self._dropped += 1
            return
        if within:
            self._urgent.add(key)
        else:
            self._urgent.discard(key)
        self._last[key] = now
        self._outbox.put(self._message([event]))

    def close(self) -> None:
        """Tell what is held back, wait a few seconds at most, and list what was not sent."""
        if self._closed:
            return
        self._closed = True
        self._release(force=True)
        unsent = self._outbox.close(self._flush)
        if self._dropped:
            unsent.append(f"{self._dropped} more that were held back")
        if unsent:
            more = f"; and {len(unsent) - _LISTED} more" if len(unsent) > _LISTED else ""
            tell(f"alerts that were not sent: {'; '.join(unsent[:_LISTED])}{more}")

    def state_dict(self) -> dict[str, Any]:
        """Which events were told: a resumed run does not tell them again. No address is in it."""
        return {"told": list(self._told)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self._told = OrderedDict((str(name), None) for name in state["told"])

    def _release(self, force: bool) -> None:
        """What was held back becomes one message: many events are one thing to look at."""
        now = self._clock()
        due = [key for key in self._held if force or now - self._last.get(key, -math.inf) >= self._cooldown]
        events = [event for key in due for event in self._held.pop(key)]
        for key in due:
            self._last[key] = now
        if events:
            self._outbox.put(self._message(sorted(events, key=lambda e: e.onset)))

    def _message(self, events: list[Event]) -> Message:
        worst = max(events, key=lambda e: LEVELS.index(e.level))
        run = f"{self._run}: " if self._run else ""
        name = worst.kind if worst.phase == "unexplained" else worst.phase
        if len(events) == 1:
            title = f"{run}{name} at step {worst.onset}"
            return Message(title, self._text(worst), worst.level, worst, self._picture(worst))
        lines = [f"- step {interval(e)}: {_what(e)}" for e in events[:_LISTED]]
        if len(events) > _LISTED:
            lines.append(f"- and {len(events) - _LISTED} more")
        title = f"{run}{len(events)} more events, the last at step {events[-1].onset}"
        return Message(title, "\n".join([*lines, "", advice(worst)]), worst.level, worst)

    def _text(self, event: Event) -> str:
        lines = [_what(event), "", f"Run: {self._run or '-'}", f"Onset: step {interval(event)}"]
        lines.append(f"Confirmed: step {event.step}")
        if math.isfinite(event.evidence):
            lines.append(f"Evidence: {event.evidence:.1f}{_threshold(event)}")
        return "\n".join([*lines, f"What to look at: {advice(event)}"])

    def _picture(self, event: Event) -> bytes:
        from thermo_monitor.sinks.sketch import sketch

        points = self._curves.get(event.quantity)
        if not points:
            return b""
        steps, values = (np.array(column, np.float64) for column in zip(*points, strict=True))
        if REGISTRY[event.quantity].scale == "log":
            with np.errstate(all="ignore"):
                values = np.log(values)
        low, high = (event.onset if s is None else s for s in (event.onset_low, event.onset_high))
        return sketch(steps, values, (event.onset, low, high), event.step)


def _what(event: Event) -> str:
    words = " ".join(event.message.split()) or f"{event.kind} {event.direction} of {event.quantity}"
    return words[:1].upper() + words[1:] + "."


def _threshold(event: Event) -> str:
    threshold = event.details.get("threshold")
    return f" (alarm at {threshold:.1f})" if isinstance(threshold, int | float) else ""
