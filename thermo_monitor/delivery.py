"""Handing readings and events to the sinks and to the user: what fails is switched off, the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thermo_monitor.guard import Guard
from thermo_monitor.records import Event
from thermo_monitor.sinks.base import Sink, Tick

OnEvent = Callable[[Event], None]


class Delivery:
    """The way out of a monitor.

    Args:
        sinks: destinations, in order.
        on_event: called with every event after the sinks.
        guard: switches off what fails.
    """

    def __init__(self, sinks: Sequence[Sink], on_event: OnEvent | None, guard: Guard) -> None:
        self.sinks = list(sinks)
        self._on_event = on_event
        self._guard = guard
        # Two sinks of one class are two parts.
        self._names = [f"{type(sink).__name__}[{k}]" for k, sink in enumerate(self.sinks)]

    def write(self, tick: Tick) -> None:
        """Readings and frames of one step."""
        for name, sink in zip(self._names, self.sinks, strict=True):
            self._guard.run(name, sink.write, tick)

    def event(self, event: Event) -> None:
        """One event."""
        for name, sink in zip(self._names, self.sinks, strict=True):
            self._guard.run(name, sink.event, event)
        if self._on_event is not None:
            self._guard.run("on_event", self._on_event, event)

    def close(self) -> None:
        """Close every sink, also those that were switched off: they may hold what they took before."""
        failed: Exception | None = None
        for name, sink in zip(self._names, self.sinks, strict=True):
            try:
                sink.close()
            except Exception as error:
                failed = failed or error
                if not self._guard.strict:
                    self._guard.failed(name, error)
        if failed is not None and self._guard.strict:
            raise failed

    def state_dict(self) -> dict[str, Any]:
        """State of the sinks that have one, by name."""
        states = {}
        for name, sink in zip(self._names, self.sinks, strict=True):
            save = getattr(sink, "state_dict", None)
            state = None if save is None else self._guard.run(name, save)
            if state is not None:
                states[name] = state
        return states

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Before the first write: sinks with a state go on where it was taken; others, and new ones, just begin."""
        for name, sink in zip(self._names, self.sinks, strict=True):
            load = getattr(sink, "load_state_dict", None)
            if load is not None and name in states:
                self._guard.run(name, load, states[name])
