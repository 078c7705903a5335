"""What happens in a step that is measured, in the order in which it happens.

A measured step is ``_begin`` (the routes open), the user's forward and backward passes, ``_hear_loss`` for each
micro-batch, ``_measure_gradients`` before clipping, the optimizer's step, ``_end``. What was measured is packed and
copied to the host without waiting, and read at the next full measurement.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from thermo_monitor.detect import held_out
from thermo_monitor.probes import uncompiled
from thermo_monitor.probes.routes.caller import in_optimizer_step
from thermo_monitor.ranked import PATIENCE, Ranked
from thermo_monitor.scaling import pending_scale
from thermo_monitor.transport import Arrival


class Measured(Ranked):
    """The part of a monitor that works in measured steps only; a compiled loop calls it without compiling it."""

    _open = False  # between begin and end of a measured step
    _slow = False  # the costly probes measure in this step
    _step = -1
    _micro_batches = 0  # losses heard in this step
    _complete = False  # its gradients were told
    _broken = False  # the last measured step did not come to its end

    @uncompiled.never
    def _begin(self, step: int, slow: bool) -> None:
        if self._closed:
            self._reader.tell_once("closed", "this monitor is closed and measures nothing any more.")
            return
        if self._open:  # what an earlier step left behind is not of this one
            self._abandon()
        if not self._met(step, slow):
            return
        with self._meter:
            self._step, self._slow, self._open, self._complete = step, slow, True, False
            self._micro_batches = 0
            self._parts.choose(slow)
            if slow:
                self.guard.run("listening", self._ear.open)

    @uncompiled.never
    def _open_again(self) -> None:
        with self._meter:
            self.guard.run("listening", self._ear.open)

    @uncompiled.never
    def _hear_loss(self, loss: Tensor | float) -> None:
        if self._again():
            return
        with self._meter:
            value = self.guard.run("loss", _as_tensor, loss)
            if value is not None:
                self._micro_batches += 1
                self._parts.each("on_loss", value)

    @uncompiled.never
    def _measure_gradients(self, scaler: Any, last: bool) -> None:
        """Gradients are complete; ``last`` where the passes of the step are over as well."""
        with self._meter:
            if last:
                self._ear.finish()
            if self._again():
                return
            self._complete = True
            self._ear.hub.gradient_scale = self.guard.run("loss scale", pending_scale, scaler, self._optimizer)
            self._parts.each("before_step")

    def _again(self) -> bool:
        """Whether an optimizer evaluates its closure once more in the step, as that of L-BFGS does.

        The first evaluation is the one that is read: like in any other step, loss and gradients are then those of the
        weights that the step begins with.
        """
        return self._complete and in_optimizer_step()

    @uncompiled.never
    def _shut(self) -> None:
        self._ear.shut()

    @uncompiled.never
    def _end(self) -> None:
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

    @uncompiled.never
    def _abandon(self) -> None:
        self._ear.finish()
        self._open, self._broken = False, True
        self._parts.forget()

    @uncompiled.never
    def _declare(self, reason: str) -> None:
        self.guard.run("detector", self.detector.declare, max(self._step, 0), reason)

    @uncompiled.never
    def _validate(self, name: str, value: Tensor | float, step: int | None, better: held_out.Better | None) -> None:
        with self._meter:
            self.guard.run("validation", self._validation, name, value, step, better)

    def _validation(self, name: str, value: Tensor | float, step: int | None, better: held_out.Better | None) -> None:
        key = held_out.key(name)
        self.detector.metric(key, better)
        step = max(self._step, 0) if step is None else operator.index(step)
        self._transport.send(step, (False, {"validation": (key, 1)}), [_as_tensor(value)])

    @uncompiled.never
    def _close(self) -> None:
        self._closed = True
        whole = not self._open and not self._broken
        try:
            self._abandon()
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
