"""What a program calls: told by hand or by a trainer's callback, and next to free in a step that is not measured."""

from __future__ import annotations

import operator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from torch import Tensor

from thermo_monitor.detect import held_out
from thermo_monitor.measured import Measured
from thermo_monitor.probes import uncompiled
from thermo_monitor.step import Step


class Monitor(Measured):
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
        >>> import torch
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

    @property
    def measuring(self) -> bool:
        """Whether a measured step is under way."""
        return self._open

    @property
    def measuring_all(self) -> bool:
        """Whether the step under way is one of the costly probes as well."""
        return self._open and self._slow

    @uncompiled.left
    def step(self, step: int) -> AbstractContextManager[None]:
        """A context around one optimizer step; ``step`` counts from 0 and never falls, except after a resume."""
        context = self._context
        if context is None:
            context = self._context = Step(self)
        context.number = step
        return context

    @uncompiled.left
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
        if self._parts.listeners if slow else self._parts.fast:
            self._begin(step, slow)

    @uncompiled.left
    def micro_batch(self) -> None:
        """A further micro-batch of the same optimizer step begins."""
        if self._open and self._slow:
            self._open_again()

    @uncompiled.left
    def loss(self, loss: Tensor | float) -> None:
        """Loss of a micro-batch, as the mean over its examples. Not read here: no host synchronisation."""
        if self._open:
            self._hear_loss(loss)

    @uncompiled.left
    def gradients(self, scaler: Any = None) -> None:
        """Gradients are complete: call it after ``backward`` and before clipping and the optimizer's step.

        Args:
            scaler: the ``GradScaler`` of a mixed precision that multiplies the loss. Gradients that it has not unscaled
                yet are read as if it had.
        """
        if self._open:
            self._measure_gradients(scaler, last=True)

    @uncompiled.left
    def measure_gradients(self, scaler: Any = None) -> None:
        """The same from inside a backward pass, on whatever thread that runs: nothing that listens is touched."""
        if self._open:
            self._measure_gradients(scaler, last=False)

    @uncompiled.left
    def pause(self) -> None:
        """Stop listening until the next micro-batch, for what runs in between (a validation, say)."""
        if self._open:
            self._shut()

    @uncompiled.left
    def end(self) -> None:
        """The optimizer has stepped: send what was measured, read what has arrived."""
        if self._open:
            self._end()

    @uncompiled.left
    def abandon(self) -> None:
        """The step was broken off: forget what was measured in it."""
        self._abandon()

    @uncompiled.left
    def declare(self, reason: str) -> None:
        """Announce an intervention (a new learning rate, batch size, data): what it changes is no surprise."""
        self._declare(reason)

    @uncompiled.left
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
            self._validate(name, value, step, better)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._broken = self._broken or kind is not None
        self.close()

    @uncompiled.left
    def close(self) -> None:
        """Read what is still under way, report what was found late, remove everything that was installed.

        Harmless when called twice, and after an exception.
        """
        if not self._closed:
            self._close()
