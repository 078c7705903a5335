"""The order of events in a monitored training step, and nothing else.

A measured step is ``begin`` (the routes open), the user's forward and backward passes, ``loss`` for each micro-batch,
``gradients`` before clipping, the optimizer's step, ``end``. What was measured is packed and copied to the host without
waiting, and read at the next measured step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thermo_monitor import presets
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.guard import Guard, tell
from thermo_monitor.meter import Meter
from thermo_monitor.probes.base import Measured, Probe, Surroundings
from thermo_monitor.probes.ear import Ear
from thermo_monitor.records import Event, Reading
from thermo_monitor.schedule import Schedule, resolve
from thermo_monitor.sinks.base import Frame, Sink, Tick
from thermo_monitor.sinks.defaults import default_sinks
from thermo_monitor.transport import Arrival, Transport


class Monitor:
    """Watches one model while it trains.

    Args:
        model: the model; nothing in it is replaced, and nothing but a hook on one block and on the model is added.
        optimizer: read for what changes by schedule; may be left out.
        log_dir: where TensorBoard files and ``thermo.jsonl`` go; without it events are only printed.
        every: cadence of the costly probes, in optimizer steps, or a function of the step.
        fast_every: cadence of loss, gradient norm and weight norm.
        preset: name of a preset or a sequence of probes.
        detector: options of the detector of every reading; ``arl`` is the mean number of readings to a false alarm.
        sinks: destinations; the default ones go to ``log_dir`` and to the terminal.
        on_event: called with every event.
        layers: layers whose values are also written as scalars of their own.
        seed: of the random numbers that the monitor draws, from a generator of its own.
        strict: raise when a part fails instead of switching it off.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with Monitor(model, optimizer, sinks=[]) as monitor:
        ...     for step in range(3):
        ...         with monitor.step(step):
        ...             loss = model(torch.ones(8, 4)).square().mean()
        ...             monitor.loss(loss)
        ...             loss.backward()
        ...             monitor.gradients()
        ...             optimizer.step()
        ...             optimizer.zero_grad()
        >>> sorted(monitor.latest)[:2]
        ['loss/train', 'opt/gradient_norm']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        log_dir: str | Path | None = None,
        every: int | Schedule = 10,
        fast_every: int | Schedule = 1,
        preset: str | Sequence[Probe] = "default",
        detector: OnlineDetector | None = None,
        sinks: Sequence[Sink] | None = None,
        on_event: Callable[[Event], None] | None = None,
        layers: Sequence[int] = (),
        seed: int = 0,
        strict: bool = False,
    ) -> None:
        self._every, self._fast_every = resolve(every), resolve(fast_every)
        probes = presets.resolve(preset)
        self.guard = Guard(strict)
        self._ear = Ear(model, self.guard)
        surroundings = Surroundings(model, optimizer, self._ear.hub, seed)
        self.detector = RunDetector(detector)
        self.sinks: list[Sink] = list(default_sinks(log_dir, layers)) if sinks is None else list(sinks)
        self._on_event = on_event
        self._layers = tuple(layers)
        self._parts = {}
        for probe in probes:  # a wrong option raises here, where nothing runs yet
            self._parts[type(probe).__name__] = (probe.fast, probe.listen(surroundings))
        self._ear.install()
        self._transport = Transport()
        self._meter = Meter()
        self._step_context = _Step(self)
        self._measuring: tuple[str, ...] = ()  # parts that measure in this step
        self._step = -1
        self._closed = False
        self._told: set[str] = set()
        self.events: list[Event] = []
        self.latest: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------- one training step
    def step(self, step: int) -> AbstractContextManager[None]:
        """A context around one optimizer step; ``step`` counts from 0 and never falls, except after a resume."""
        self._step_context.number = step
        return self._step_context

    def begin(self, step: int) -> None:
        """An optimizer step begins, unless it is not scheduled: then this comparison is all that happens."""
        slow = self._every(step)
        if not slow and not self._fast_every(step):
            return
        with self._meter:
            self._step = step
            self._measuring = tuple(
                name for name, (fast, _) in self._parts.items() if (slow or fast) and name not in self.guard.disabled
            )
            if slow:
                self._ear.open()

    def micro_batch(self) -> None:
        """A further micro-batch of the same optimizer step begins."""
        if self._measuring and self._every(self._step):
            self._ear.open()

    def loss(self, loss: Tensor | float) -> None:
        """Loss of a micro-batch, as the mean over its examples. Not read here: no host synchronisation."""
        if not self._measuring:
            return
        with self._meter:
            value = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss))
            self._each(lambda listener: listener.on_loss(value))

    def gradients(self) -> None:
        """Gradients are complete: call it after ``backward`` and before clipping and the optimizer's step."""
        if not self._measuring:
            return
        with self._meter:
            self._ear.shut()
            self._each(lambda listener: listener.before_step())

    def pause(self) -> None:
        """Stop listening until the next micro-batch, for what runs in between (a validation, say)."""
        self._ear.shut()

    def end(self) -> None:
        """The optimizer has stepped: send what was measured, read what has arrived."""
        if not self._measuring:
            return
        with self._meter:
            self._ear.shut()
            self._each(lambda listener: listener.after_step())
            labels: dict[str, tuple[Any, int]] = {}
            tensors: list[Tensor] = []
            for name in self._measuring:
                collected = self.guard.run(name, self._parts[name][1].collect)
                if collected is not None:
                    labels[name] = (collected[0], len(collected[1]))
                    tensors += collected[1]
            self._measuring = ()
            arrivals = self.guard.run("transport", self._transport.arrived, default=[])
            self.guard.run("transport", self._transport.send, self._step, labels, tensors)
            for arrival in arrivals or []:
                self._read(arrival)

    def abandon(self) -> None:
        """The step was broken off: forget what was measured in it."""
        self._ear.shut()
        for name in self._measuring:
            self.guard.run(name, self._parts[name][1].collect)
        self._measuring = ()

    def _each(self, call: Callable[[Any], None]) -> None:
        for name in self._measuring:
            self.guard.run(name, call, self._parts[name][1])

    # ---------------------------------------------------------------------------------------------- what was read
    def _read(self, arrival: Arrival) -> None:
        measured = Measured()
        at = 0
        for name, (label, count) in arrival.label.items():
            arrays = arrival.arrays[at : at + count]
            at += count
            part = self.guard.run(name, self._parts[name][1].read, arrival.step, label, arrays)
            if part is not None:
                measured.readings += part.readings
                measured.maps += part.maps
        self._explain(measured.readings)
        own = self._meter.readings(arrival.step, len(self.guard.disabled))
        found = self.guard.run("detector", self.detector.update, measured.readings, default=[])
        self.latest.update({r.quantity: r.value for r in measured.readings})
        frames = [Frame(arrival.step, m.quantity, m.values, m.layers) for m in measured.maps]
        self._write(Tick(arrival.step, time.time(), [*measured.readings, *own], frames))
        self._emit(found or [])

    def _write(self, tick: Tick) -> None:
        for k, sink in enumerate(self.sinks):
            self.guard.run(f"{type(sink).__name__}[{k}]", sink.write, tick)

    def _emit(self, events: Sequence[Event]) -> None:
        for event in events:
            self.events.append(event)
            for k, sink in enumerate(self.sinks):
                self.guard.run(f"{type(sink).__name__}[{k}]", sink.event, event)
            if self._on_event is not None:
                self.guard.run("on_event", self._on_event, event)

    def _explain(self, readings: Sequence[Reading]) -> None:
        """Say once, in words, why a whole family of readings is absent."""
        for reason, sentence in _ABSENT.items():
            if reason not in self._told and any(r.reason == reason for r in readings):
                self._told.add(reason)
                tell(f"{sentence} {self._ear.explain()}".strip())

    # --------------------------------------------------------------------------------------------------- the rest
    def declare(self, reason: str) -> None:
        """Announce an intervention (a new learning rate, batch size, data): what it changes is no surprise."""
        self.detector.declare(max(self._step, 0), reason)

    def describe(self) -> str:
        """What is measured, how often, and how the model is heard."""
        lines = [f"{name}: {'fast' if fast else 'slow'} cadence" for name, (fast, _) in self._parts.items()]
        lines += [f"switched off: {part} ({why})" for part, why in self.guard.disabled.items()]
        return "\n".join([*lines, *self._ear.describe()])

    def state_dict(self) -> dict[str, Any]:
        """Plain Python, for a checkpoint: a resumed run continues the detectors where they were."""
        return {"version": 1, "detector": self.detector.state_dict(), "sinks": self._sink_states()}

    def _sink_states(self) -> list[Any]:
        return [sink.state_dict() if hasattr(sink, "state_dict") else None for sink in self.sinks]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.detector.load_state_dict(state["detector"])
        for sink, saved in zip(self.sinks, state.get("sinks", ()), strict=False):
            if saved is not None and hasattr(sink, "load_state_dict"):
                self.guard.run(type(sink).__name__, sink.load_state_dict, saved)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Read what is still under way, report what was found late, remove everything that was installed."""
        if self._closed:
            return
        self._closed = True
        try:
            self.abandon()
            for arrival in self.guard.run("transport", self._transport.drain, default=[]) or []:
                self._read(arrival)
            self._emit(self.guard.run("detector", self.detector.finish, default=[]) or [])
            for k, sink in enumerate(self.sinks):
                self.guard.run(f"{type(sink).__name__}[{k}]", sink.close)
        finally:
            for name, (_, listener) in self._parts.items():
                self.guard.run(name, listener.close)
            self._ear.close()


class _Step:
    """Reusable context around one step; a new object for each would cost more than a skipped step may."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.number = 0

    def __enter__(self) -> None:
        self._monitor.begin(self.number)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._monitor.end()
        else:
            self._monitor.abandon()


_ABSENT = {
    "no_attention": "no attention was heard; the other probes go on.",
    "no_logits": "no cross entropy with integer labels was heard; record_output(logits, labels) reports one.",
    "no_representation": "no block was found whose representations could be read; name one with "
    "RepresentationProbe(module=...) or call record_representation.",
}
