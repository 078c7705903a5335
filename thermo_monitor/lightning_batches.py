"""Which batches of Lightning make an optimizer step, and what the loss of each is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from thermo_monitor.monitor import Monitor


class Batches:
    """Counts optimizer steps: accumulated batches make one, and what is skipped makes none.

    Attributes:
        step: index of the optimizer step, which the global step is not where there are several optimizers.
        open: whether one has begun.
        losses: of the evaluations of this batch, where the optimizer's closure makes them.
    """

    def __init__(self) -> None:
        self.step = 0
        self.open = False
        self.losses: list[Tensor] = []
        self._at = -1  # the global step that it began at

    def begins(self, monitor: Monitor, trainer: Any) -> None:
        """A micro-batch begins, the first of an optimizer step or a further one."""
        if self.open:
            monitor.micro_batch()
        else:
            monitor.begin(self.step)
            self.losses = []
            self.open, self._at = True, trainer.global_step

    def ended(self, monitor: Monitor, trainer: Any, module: Any, outputs: Any) -> bool:
        """A micro-batch is over and its loss known; whether the optimizer stepped, which moves the global step."""
        if not self.open:
            return False
        if monitor.measuring:
            monitor.pause()
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            evaluations, self.losses = self.losses, []
            if module.automatic_optimization and len(evaluations) > 1:
                loss = evaluations[0]
            if isinstance(loss, Tensor):
                # Lightning hands out the loss divided by the number of accumulated batches.
                parts = trainer.accumulate_grad_batches if module.automatic_optimization else 1
                monitor.loss(loss if parts == 1 else loss.detach() * parts)
        if trainer.global_step == self._at:
            return False
        self.open = False
        self.step += 1
        return True
