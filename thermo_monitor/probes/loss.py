"""The training loss of every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, number


@dataclass(frozen=True, slots=True)
class LossProbe:
    """Mean loss of a step; the micro-batches of an accumulated step count equally."""

    @property
    def quantities(self) -> tuple[str, ...]:
        """Keys that this probe gives."""
        return ("loss/train",)

    @property
    def fast(self) -> bool:
        """A number that exists anyway."""
        return True

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run."""
        return _LossListener()


class _LossListener(Listener):
    def __init__(self) -> None:
        self._losses: list[Tensor] = []

    def on_loss(self, loss: Tensor) -> None:
        """Keep a micro-batch's loss, without its graph."""
        # A copy, since the program may change its loss in place before the step ends.
        self._losses.append(loss.clone() if loss.dim() == 0 else loss.float().mean())

    def collect(self) -> tuple[Any, list[Tensor]]:
        """The losses of the micro-batches."""
        losses, self._losses = self._losses, []
        return None, losses

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Their mean."""
        if not arrays:
            return Measured()
        return Measured([number(step, "loss/train", sum(float(a) for a in arrays) / len(arrays), reason="non_finite")])

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Each rank counts equally, as its gradient does."""
        if not arrays:
            return {}
        return {"loss": np.array([sum(float(a) for a in arrays) / len(arrays), 1.0])}

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """The mean over ranks."""
        total, ranks = sums.get("loss", (0.0, 0.0))
        return None, [np.asarray(total / ranks)] if ranks else []
