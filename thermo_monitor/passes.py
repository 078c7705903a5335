"""What the trainer of transformers tells nobody, overheard: the loss, the end of a backward pass, and who trains."""

from __future__ import annotations

import sys
import weakref
from types import FrameType
from typing import Any

from torch import Tensor, nn

from thermo_monitor.monitor import Monitor
from thermo_monitor.probes.routes.backward import Listener, PassRoute
from thermo_monitor.probes.routes.caller import first_argument
from thermo_monitor.scaling import loss_scale


class Passes(Listener):
    """Tells a monitor what is overheard of the passes of the model."""

    def __init__(self) -> None:
        self._monitor: Monitor | None = None
        self._optimizer: Any = None
        self._route: PassRoute | None = None
        self._trainer: Any = None
        self._args: Any = None

    def attach(self, model: nn.Module, monitor: Monitor, optimizer: Any, trainer: Any, args: Any) -> None:
        """Listen to the model."""
        self._monitor, self._optimizer, self._args = monitor, optimizer, args
        self._trainer = None if trainer is None else weakref.proxy(trainer)
        self._route = PassRoute(model, self)

    def detach(self) -> None:
        """Remove the hooks."""
        if self._route is not None:
            self._route.close()
        self._route = self._monitor = self._optimizer = self._trainer = None

    @property
    def wanted(self) -> bool:
        """Whether this step is measured."""
        return self._monitor is not None and self._monitor.measuring

    def forward_begins(self, training: bool) -> None:
        """Listen, unless the model only generates or is evaluated."""
        assert self._monitor is not None
        if training:
            self._monitor.micro_batch()
        else:
            self._monitor.pause()

    def forward_ended(self, failed: bool, loss: bool) -> None:
        """Stop listening, unless the loss is still to be computed from what the model gave."""
        if (failed or loss) and self._monitor is not None:
            self._monitor.pause()

    def backward_ended(self, loss: Tensor | None) -> None:
        """A micro-batch is done; the last one completes the gradients."""
        monitor, scaler = self._monitor, getattr(self._optimizer, "scaler", None)
        assert monitor is not None
        if loss is not None:
            scale, parts = loss_scale(scaler), self._args.gradient_accumulation_steps
            # What the trainer hands to the backward pass of a micro-batch is its share of the loss of the step. The
            # last step of an epoch may have fewer of them.
            parts = getattr(self._trainer, "current_gradient_accumulation_steps", parts)
            monitor.loss(loss * parts if scale is None else loss * (parts / scale))
        accumulation = getattr(self._optimizer, "gradient_state", None)
        if accumulation is None or accumulation.sync_gradients:
            monitor.measure_gradients(scaler)


def calling_trainer() -> Any:
    """The trainer that calls, from the stack: callbacks are not told who trains."""
    kind = sys.modules["transformers.trainer"].Trainer
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_argcount and isinstance(found := first_argument(frame), kind):
            return found
        frame = frame.f_back
    return None
