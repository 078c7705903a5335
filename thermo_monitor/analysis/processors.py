"""Temperature schedules for ``generate`` of transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

from thermo_monitor.analysis.temperature_schedule import Array, Feedback, Schedule


class ScheduledTemperature(LogitsProcessor):
    """Divides the scores of the t-th generated token by T_t, from a list or from a controller.

    Pass it to ``generate(..., do_sample=True, logits_processor=LogitsProcessorList([...]))`` with ``temperature=1`` and
    ``top_k=0``; what is cut off afterwards is not part of the entropy that was held. The rows of a call (prompts, or
    ``num_return_sequences``) are the ensemble of a marginal controller. A call with a text that does not continue the
    last one begins anew.

    Args:
        schedule: a ``Schedule``, temperatures [T] of which the last one holds on, or a ``Feedback`` controller.

    Attributes:
        applied: temperatures that were applied since the beginning: one for each position, or [B] of each.

    Example:
        >>> processor = ScheduledTemperature([2.0, 4.0])
        >>> prompt, scores = torch.zeros(1, 3, dtype=torch.int64), torch.tensor([[4.0, 0.0]])
        >>> processor(prompt, scores).tolist(), processor(torch.zeros(1, 4, dtype=torch.int64), scores).tolist()
        ([[2.0, 0.0]], [[1.0, 0.0]])
    """

    def __init__(self, schedule: Schedule | Sequence[float] | Array | Feedback) -> None:
        self._control = schedule if isinstance(schedule, Feedback) else None
        values = schedule.temperatures if isinstance(schedule, Schedule) else schedule
        self._values = None if isinstance(values, Feedback) else np.atleast_1d(np.asarray(values, np.float64))
        if self._values is not None and not (self._values.size and (self._values > 0).all()):
            raise ValueError("give at least one temperature, each positive")
        self._length = -2
        self._rows = 0
        self._position = 0
        self.applied: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] divided by the temperatures of their position."""
        rows, length = input_ids.shape
        if length != self._length + 1 or rows != self._rows:
            self._position, self.applied = 0, []
            if self._control is not None:
                self._control.reset()
        self._length, self._rows = length, rows
        if self._control is not None:
            t = self._control.update(scores)
        else:
            assert self._values is not None
            value = float(self._values[min(self._position, len(self._values) - 1)])
            t = torch.tensor([value], dtype=torch.float64 if scores.device.type != "mps" else None)
        self._position += 1
        self.applied.append(t)
        return scores / t.to(device=scores.device, dtype=scores.dtype).unsqueeze(-1)
