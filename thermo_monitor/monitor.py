"""The order of events in a monitored training step, and nothing else.

A measured step is ``begin`` (the routes open), the user's forward and backward passes, ``loss`` for each micro-batch,
``gradients`` before clipping, the optimizer's step, ``end``. What was measured is packed and copied to the host without
waiting, and read at the next full measurement.
"""

from __future__ import annotations

import operator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from thermo_monitor.detect import held_out
from thermo_monitor.probes.routes.caller import in_optimizer_step
from thermo_monitor.ranked import PATIENCE, Ranked
from thermo_monitor.scaling import pending_scale
from thermo_monitor.step import Step
from thermo_monitor.transport import Arrival


class Monitor(Ranked):
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
        >>> from thermo_monitor import presets
        >>> model = torch.nn.Linear(4, 3)
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

    _context: Step | None = None
    _open = False  # between begin and end of a measured step
    _slow = False  # the costly probes measure in this step
    _step = -1
    _micro_batches = 0  # losses heard in this step
    _complete = False  # its gradients were told
    _broken = False  # the last measured step did not come to its end

    @property
    def measuring(self) -> bool:
        """Whether a measured step is under way."""
        return self._open

    @property
    def measuring_all(self) -> bool:
        """Whether the step under way is one of the costly probes as well."""
        return self._open and self._slow

    def step(self, step: int) -> AbstractContextManager[None]:
        """A context around one optimizer step; ``step`` counts from 0 and never falls, except after a resume."""
        context = self._context
        if context is None:
            context = self._context = Step(self)
        context.number = step
        return context

    def begin(self, step: int) -> None:
        """An optimizer step begins, unless it is not scheduled: then this comparison is all that happens."""
        try:
            slow = bool(self._cadence.full(step))
            if not slow and not self._cadence.cheap(step):
                return
            step = operator.index(step)
        except Exception as error:  # the schedule is the user's function, the step the user's number
            self.guard.failed("schedule", error)
            return
        if not (self._parts.listeners if slow else self._parts.fast):
            return
        if self._closed:
            self._reader.tell_once("closed", "this monitor is closed and measures nothing any more.")
            return
        if self._open:  # what an earlier step left behind is not of this one
            self.abandon()
        if not self._met(step, slow):
            return
        with self._meter:
            self._step, self._slow, self._open, self._complete = step, slow, True, False
            self._micro_batches = 0
            self._parts.choose(slow)
            if slow:
                self.guard.run("listening", self._ear.open)

    def micro_batch(self) -> None:
        """A further micro-batch of the same optimizer step begins."""
        if self._open and self._slow:
            with self._meter:
                self.guard.run("listening", self._ear.open)

    def loss(self, loss: Tensor | float) -> None:
        """Loss of a micro-batch, as the mean over its examples. Not read here: no host synchronisation."""
        if not self._open or self._again():
            return
        with self._meter:
            value = self.guard.run("loss", _as_tensor, loss)
            if value is not None:
                self._micro_batches += 1
                self._parts.each("on_loss", value)

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
        if not self._open or self._again():
            return
        with self._meter:
            self._complete = True
            self._ear.hub.gradient_scale = self.guard.run("loss scale", pending_scale, scaler, self._optimizer)
            self._parts.each("before_step")

    def _again(self) -> bool:
        """Whether an optimizer evaluates its closure once more in the step, as that of L-BFGS does.

        The first evaluation is the one that is read: like in any other step, loss and gradients are then those of the
        weights that the step begins with.
        """
        return self._complete and in_optimizer_step()

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
            if self._slow and self._fixed is not None and self._fixed.used:
                self.guard.run("probe batch", self._fixed.run)
            self._parts.each("after_step")
            labels, tensors = self._parts.collect()
            self._open = self._broken = False
            examples = self._ear.hub.examples if self._slow else 0
            self.guard.run(
                "interventions", self._notices.tell, self.detector, self._step, self._micro_batches, examples
            )
            arrivals: list[Arrival] = []
            if self._pool is None and (self._slow or self._transport.waiting >= PATIENCE):
                # Not the part "transport": what is under way already shall arrive, also when no more can be sent.
                arrivals = self.guard.run("arrival", self._transport.arrived) or []
            self.guard.run("transport", self._transport.send, self._step, (self._slow, labels), tensors)
            self._meter.bytes = self._transport.bytes + (0 if self._pool is None else self._pool.bytes)
            for arrival in arrivals:
                self._reader.read(arrival)
        stretch = self._cadence.ended(self._step, self._slow)
        if stretch is not None:
            self._cadence.stretch(stretch) if self._pool is None else self._pool.propose(stretch)

    def abandon(self) -> None:
        """The step was broken off: forget what was measured in it."""
        self._ear.finish()
        self._open, self._broken = False, True
        self._parts.forget()

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
            value: a loss, or a share of 1 or of 100. A tensor is not read here: no host synchronisation. On several
                ranks that of rank zero counts.
            step: of the evaluation; the step measured last unless given.
            better: ``higher`` or ``lower``, where the name does not say it as ``loss`` and ``accuracy`` do.
        """
        if not self._closed and not self._rank:
            with self._meter:
                self.guard.run("validation", self._validation, name, value, step, better)

    def _validation(self, name: str, value: Tensor | float, step: int | None, better: held_out.Better | None) -> None:
        key = held_out.key(name)
        self.detector.metric(key, better)
        step = max(self._step, 0) if step is None else operator.index(step)
        self._transport.send(step, (False, {"validation": (key, 1)}), [_as_tensor(value)])

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._broken = self._broken or kind is not None
        self.close()

    def close(self) -> None:
        """Read what is still under way, report what was found late, remove everything that was installed.

        Harmless when called twice, and after an exception.
        """
        if self._closed:
            return
        self._closed = True
        whole = not self._open and not self._broken
        try:
            self.abandon()
            if whole:
                self._last_turn()
            self.flush()
            self._reader.finish()
        finally:
            try:
                self._delivery.close()
            finally:
                self._take_apart()


def _as_tensor(loss: Tensor | float) -> Tensor:
    return loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss), dtype=torch.float64, device="cpu")
