"""The order of events in a monitored training step, and nothing else.

A measured step is ``begin`` (the routes open), the user's forward and backward passes, ``loss`` for each micro-batch,
``gradients`` before clipping, the optimizer's step, ``end``. What was measured is packed and copied to the host without
waiting, and read at the next full measurement.
"""

from __future__ import annotations

import operator
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
from thermo_monitor.budget import Budget, Stretch
from thermo_monitor.delivery import Delivery
from thermo_monitor.detect import held_out, interventions
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.guard import Guard, tell
from thermo_monitor.meter import Meter
from thermo_monitor.options import check_options, check_run, check_sinks
from thermo_monitor.probes.base import Listener, Probe, Surroundings
from thermo_monitor.probes.ear import Ear
from thermo_monitor.probes.held_out import HeldOut
from thermo_monitor.probes.probe_batch import ProbeBatch
from thermo_monitor.reader import Reader
from thermo_monitor.records import Event
from thermo_monitor.scaling import pending_scale
from thermo_monitor.schedule import Schedule, Stretched, resolve
from thermo_monitor.settings import settings, unwrapped
from thermo_monitor.sinks.base import Sink
from thermo_monitor.sinks.channels import Target
from thermo_monitor.sinks.defaults import alert_sinks, default_sinks
from thermo_monitor.transport import Arrival, Transport


class Monitor:
    """Watches one model while it trains.

    Args:
        model: the model; nothing in it is replaced, and nothing but a hook on one block and on the model is added.
        optimizer: read for what changes by schedule; may be left out.
        log_dir: where TensorBoard files and ``thermo.jsonl`` go; without it events are only printed.
        every: cadence of the costly probes, in optimizer steps, or a function of the step.
        fast_every: cadence of loss and gradient norm.
        budget: share of the wall time that the monitor may take: where it takes more, it measures less often, at every
            second, fourth, ... of the steps that the cadence names. Without one the cadence is exact.
        preset: name of a preset or a sequence of probes.
        probe_batch: a fixed batch that is read beside the training, on the same inputs every time: what the model is
            called with (a tensor, a tuple, a mapping), or a function that calls the model. It adds the geometry of
            attention (:class:`~thermo_monitor.probes.GeometryProbe`) to a preset; in a list of probes those with
            ``on="probe_batch"`` read it. Each full measurement then costs a forward pass of this batch.
        detector: options of the detector of every reading; ``arl`` is the mean number of readings to a false alarm.
        sinks: destinations; the default ones go to ``log_dir`` and to the terminal.
        on_event: called with every event.
        alerts: where people are told of events: addresses such as ``slack://...``, ``wandb``, ``trackio``, functions;
            see :class:`~thermo_monitor.sinks.alerts.AlertSink`.
        layers: layers whose values are also written as scalars of their own.
        seed: of the random numbers that the monitor draws, from a generator of its own.
        strict: raise when a part fails instead of switching it off.

    Example:
        >>> import torch.nn.functional as F
        >>> model = nn.Linear(4, 3)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> probes = [presets.LossProbe(), presets.GradientProbe(), presets.OutputProbe()]
        >>> with Monitor(model, optimizer, preset=probes, every=2, sinks=[]) as monitor:
        ...     for step in range(3):
        ...         with monitor.step(step):
        ...             loss = F.cross_entropy(model(torch.ones(8, 4)), torch.arange(8) % 3)
        ...             monitor.loss(loss)
        ...             loss.backward()
        ...             monitor.gradients()
        ...             optimizer.step()
        ...             optimizer.zero_grad()
        >>> sorted(monitor.latest)[:3]
        ['loss/loss_variance', 'loss/train', 'opt/gradient_norm']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        log_dir: str | Path | None = None,
        every: int | Schedule = 10,
        fast_every: int | Schedule = 1,
        budget: float | None = None,
        preset: str | Sequence[Probe] = "default",
        probe_batch: Any = None,
        detector: OnlineDetector | None = None,
        sinks: Sequence[Sink] | None = None,
        on_event: Callable[[Event], None] | None = None,
        alerts: Sequence[Target] = (),
        layers: Sequence[int] = (),
        seed: int = 0,
        strict: bool = False,
    ) -> None:
        self._meter = Meter()
        self._every, self._fast_every = resolve(every), resolve(fast_every)
        self._budget = None if budget is None else Budget(budget)
        if self._budget is not None:  # no schedule is stretched unless somebody asks for it
            self._every, self._fast_every = Stretched(every), Stretched(fast_every)
            self._meter.stretch = 1
        probes = presets.resolve(preset, fixed=probe_batch is not None)
        given = None if sinks is None else check_sinks(sinks)
        check_run(model, optimizer)
        check_options(detector, on_event, layers, seed, strict)
        self.guard = Guard(strict)
        self._transport = Transport()
        self._parts: dict[str, tuple[bool, Listener]] = {}
        self._step_context = _Step(self)
        self._open = False  # between begin and end of a measured step
        self._slow = False  # the costly probes measure in this step
        self._measuring: tuple[str, ...] = ()  # parts that measure in this step
        self._step = -1
        self._micro_batches = 0  # losses heard in this step
        self._optimizer = optimizer
        self._facts: dict[str, float] = {}  # as they were at the last measured step
        self._unchanged = 0  # measured steps since they changed
        self._closed = False
        self._ear = Ear(model, self.guard)
        self._ear.hub.meter = self._meter
        try:  # a wrong option raises here, where nothing runs yet
            self._fixed = None if probe_batch is None else ProbeBatch(model, probe_batch, self._ear)
            fixed = None if self._fixed is None else self._fixed.hub
            surroundings = Surroundings(model, unwrapped(optimizer), self._ear.hub, seed, fixed)
            for probe in probes:
                self._parts[type(probe).__name__] = (probe.fast, probe.listen(surroundings))
            if self._fixed is not None and not self._fixed.used:
                raise ValueError("probe_batch is given and no probe reads it: add GeometryProbe() to the list")
            self._ear.install()
            # First the alerts, which may refuse an address: other sinks make files.
            telling = alert_sinks(alerts, "" if log_dir is None else Path(log_dir).name)
            self.sinks = [*(default_sinks(log_dir, layers) if given is None else given), *telling]
        except BaseException:
            self._remove()
            raise
        self._delivery = Delivery(self.sinks, on_event, self.guard)
        listeners: dict[str, Listener] = {name: listener for name, (_, listener) in self._parts.items()}
        listeners["validation"] = HeldOut()
        self._reader = Reader(listeners, detector, self._delivery, self.guard, self._meter, self._ear.explain)
        self._moments = {
            moment: {
                name: getattr(listener, moment)
                for name, (_, listener) in self._parts.items()
                if _overrides(listener, moment)
            }
            for moment in ("on_loss", "before_step", "after_step")
        }
        self._fast_parts = tuple(name for name, (fast, _) in self._parts.items() if fast)

    @property
    def events(self) -> list[Event]:
        """Events of the run so far."""
        return self._reader.events

    @property
    def latest(self) -> dict[str, float]:
        """Newest value of each quantity of the whole model."""
        return self._reader.latest

    @property
    def detector(self) -> RunDetector:
        """What finds the events."""
        return self._reader.detector

    @property
    def ticks(self) -> int:
        """How many measured steps have been read."""
        return self._reader.ticks

    @property
    def measuring(self) -> bool:
        """Whether a measured step is under way."""
        return self._open

    @property
    def measuring_all(self) -> bool:
        """Whether the step under way is one of the costly probes as well."""
        return self._open and self._slow

    # ------------------------------------------------------------------------------------------- one training step
    def step(self, step: int) -> AbstractContextManager[None]:
        """A context around one optimizer step; ``step`` counts from 0 and never falls, except after a resume."""
        self._step_context.number = step
        return self._step_context

    def begin(self, step: int) -> None:
        """An optimizer step begins, unless it is not scheduled: then this comparison is all that happens."""
        try:
            slow = bool(self._every(step))
            if not slow and not self._fast_every(step):
                return
            step = operator.index(step)
        except Exception as error:  # the schedule is the user's function, the step the user's number
            self.guard.failed("schedule", error)
            return
        parts = tuple(self._parts) if slow else self._fast_parts
        if not parts:
            return
        if self._closed:
            self._reader.tell_once("closed", "this monitor is closed and measures nothing any more.")
            return
        if self._open:  # what an earlier step left behind is not of this one
            self.abandon()
        with self._meter:
            self._step, self._slow, self._open = step, slow, True
            self._micro_batches = 0
            self._measuring = tuple(name for name in parts if name not in self.guard.disabled)
            if slow:
                self.guard.run("listening", self._ear.open)

    def micro_batch(self) -> None:
        """A further micro-batch of the same optimizer step begins."""
        if self._open and self._slow:
            with self._meter:
                self.guard.run("listening", self._ear.open)

    def loss(self, loss: Tensor | float) -> None:
        """Loss of a micro-batch, as the mean over its examples. Not read here: no host synchronisation."""
        if not self._open:
            return
        with self._meter:
            value = self.guard.run("loss", _as_tensor, loss)
            if value is not None:
                self._micro_batches += 1
                self._each("on_loss", value)

    def gradients(self, scaler: Any = None) -> None:
        """Gradients are complete: call it after ``backward`` and before clipping and the optimizer's step.

        Args:
            scaler: the ``GradScaler`` of a mixed precision that multiplies the loss. Gradients that it has not unscaled
                yet are read as if it had.
        """
        if not self._open:
            return
        with self._meter:
            self._ear.finish()
            self.measure_gradients(scaler)

    def measure_gradients(self, scaler: Any = None) -> None:
        """The same from inside a backward pass, on whatever thread that runs: nothing that listens is touched."""
        if not self._open:
            return
        with self._meter:
            self._ear.hub.gradient_scale = self.guard.run("loss scale", pending_scale, scaler, self._optimizer)
            self._each("before_step")

    def pause(self) -> None:
        """Stop listening until the next micro-batch, for what runs in between (a validation, say)."""
        if self._open:
            self._ear.shut()

    def end(self) -> None:
        """The optimizer has stepped: send what was measured, read what has arrived."""
        if not self._open:
            return
        with self._meter:
            self._ear.finish()
            if self._slow and self._fixed is not None:
                self.guard.run("probe batch", self._fixed.run)
            self._each("after_step")
            labels: dict[str, tuple[Any, int]] = {}
            tensors: list[Tensor] = []
            for name in self._measuring:
                collected = self.guard.run(name, _collect, self._parts[name][1])
                if collected is not None:
                    labels[name] = (collected[0], len(collected[1]))
                    tensors += collected[1]
            self._open, self._measuring = False, ()
            self.guard.run("interventions", self._notice)
            arrivals: list[Arrival] = []
            if self._slow or self._transport.waiting >= _PATIENCE:
                # Not the part "transport": what is under way already shall arrive, also when no more can be sent.
                arrivals = self.guard.run("arrival", self._transport.arrived) or []
            self.guard.run("transport", self._transport.send, self._step, (self._slow, labels), tensors)
            self._meter.bytes = self._transport.bytes
            for arrival in arrivals:
                self._reader.read(arrival)
        if self._budget is not None:
            self._stretch(self._budget.ended(self._step, self._slow, self._meter.total, time.perf_counter()))

    def _stretch(self, stretch: Stretch) -> None:
        """Measure less often from here on, or more often again."""
        for schedule, factor in zip((self._every, self._fast_every), stretch, strict=True):
            if isinstance(schedule, Stretched):
                schedule.factor = factor
        self._meter.stretch = stretch.full

    def _notice(self) -> None:
        """Tell the detectors what the schedule says, so that what it changes is no surprise."""
        facts: dict[str, float] = settings(self._optimizer)
        if self._micro_batches:
            facts["micro-batches of a step"] = self._micro_batches
        if self._slow and self._ear.hub.examples:
            facts["batch size"] = self._ear.hub.examples
        self._unchanged = self._unchanged + 1 if facts.items() <= self._facts.items() else 0
        self._facts |= facts
        if self._unchanged <= interventions.STEADY:  # what has stayed as long as that is no news
            self.detector.notice(self._step, facts)

    def abandon(self) -> None:
        """The step was broken off: forget what was measured in it."""
        self._ear.finish()
        measuring, self._measuring, self._open = self._measuring, (), False
        for name in measuring:
            self.guard.run(name, self._parts[name][1].collect)

    def _each(self, moment: str, *args: Any) -> None:
        """Tell the parts that measure and that care about this moment of a step."""
        for name, method in self._moments[moment].items():
            if name in self._measuring:
                self.guard.run(name, method, *args)

    def flush(self) -> None:
        """Read what is still under way, waiting for it: before a checkpoint, or to see the newest numbers."""
        for arrival in self.guard.run("arrival", self._transport.drain) or []:
            self._reader.read(arrival)

    # --------------------------------------------------------------------------------------------------- the rest
    def declare(self, reason: str) -> None:
        """Announce an intervention (a new learning rate, batch size, data): what it changes is no surprise."""
        self.guard.run("detector", self.detector.declare, max(self._step, 0), reason)

    def validation(
        self, name: str, value: Tensor | float, *, step: int | None = None, better: held_out.Better | None = None
    ) -> None:
        """Report a held-out metric, once for each evaluation: it confirms and labels what the readings show.

        Nothing needs it. Where it is given, ``details["validation"]`` of an event says whether it agrees; a metric that
        improves after the training set was fitted is a generalization, one that becomes worse meanwhile is overfitting.

        Args:
            name: such as ``val_loss`` or ``accuracy``; the reading is ``val/loss`` or ``val/accuracy``.
            value: a loss, or a share of 1 or of 100. A tensor is not read here: no host synchronisation.
            step: of the evaluation; the step measured last unless given.
            better: ``higher`` or ``lower``, where the name does not say it as ``loss`` and ``accuracy`` do.
        """
        if not self._closed:
            with self._meter:
                self.guard.run("validation", self._validation, name, value, step, better)

    def _validation(self, name: str, value: Tensor | float, step: int | None, better: held_out.Better | None) -> None:
        key = held_out.key(name)
        self.detector.metric(key, better)
        step = max(self._step, 0) if step is None else operator.index(step)
        self._transport.send(step, (False, {"validation": (key, 1)}), [_as_tensor(value)])

    def describe(self) -> str:
        """What is measured, how often, and how the model is heard: by layer, as of the last full measurement."""
        lines = [f"{name}: {'fast' if fast else 'slow'} cadence" for name, (fast, _) in self._parts.items()]
        lines += [f"switched off: {part} ({why})" for part, why in self.guard.disabled.items()]
        ways = {name: listener.describe() for name, (_, listener) in self._parts.items()}
        lines += self._ear.describe(ways)
        if self._fixed is not None:
            lines += self._fixed.describe()
        return "\n".join(lines)

    def state_dict(self) -> dict[str, Any]:
        """Plain Python, for a checkpoint: a resumed run continues the detectors where they were.

        What is still on its way from the device is read first, or a resumed run would never see it.
        """
        self.flush()
        return {"version": 1, **self._reader.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint, before the first step.

        Raises:
            ValueError: it is not what :meth:`state_dict` gave; nothing has changed then.
        """
        self._reader.load_state_dict(state)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Read what is still under way, report what was found late, remove everything that was installed.

        Harmless when called twice, and after an exception.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self.abandon()
            self.flush()
            self._reader.finish()
        finally:
            try:
                self._delivery.close()
            finally:
                self._remove()

    def _remove(self) -> None:
        try:
            for name, (_, listener) in self._parts.items():
                try:
                    listener.close()
                except Exception as error:
                    tell(f"{name} could not be removed: {type(error).__name__}: {error}")
        finally:
            self._ear.close()


# Steps at which only the cheap quantities were read are read together: one after the other they take a third of the
# time that they take apart, between the passes of a model that has emptied the caches.
_PATIENCE = 16


class _Step:
    """Reusable context around one step; a new object for each would cost more than a skipped step may."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.number = 0

    def __enter__(self) -> None:
        self._monitor.begin(self.number)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._monitor.end()
        else:
            self._monitor.abandon()


def _overrides(listener: Listener, moment: str) -> bool:
    return getattr(type(listener), moment) is not getattr(Listener, moment)


def _as_tensor(loss: Tensor | float) -> Tensor:
    return loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss), dtype=torch.float64, device="cpu")


def _collect(listener: Listener) -> tuple[Any, list[Tensor]]:
    """What a listener measured; what is no tensor is its own fault, and not that of the transport of all."""
    label, tensors = listener.collect()
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"collect() gave a {type(tensor).__name__} where a tensor belongs")
    return label, list(tensors)
