"""Any logger that takes a dictionary of numbers: CSV files, W&B, MLflow and others, through Lightning's interface."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from thermo_monitor.records import Event
from thermo_monitor.sinks.base import Tick


class MetricsSink:
    """Hands the model-wide readings of a tick to ``log_metrics(numbers, step)``.

    Args:
        log_metrics: such as that of a Lightning logger.
        namespace: first part of the names.
    """

    def __init__(self, log_metrics: Callable[[Mapping[str, float], int], None], namespace: str = "thermo") -> None:
        self._log_metrics = log_metrics
        self._namespace = namespace

    def write(self, tick: Tick) -> None:
        """All numbers of a full step in one call; a NaN is a gap in the curve."""
        if not tick.full:
            return
        whole = [r for r in tick.readings if r.layer is None and math.isfinite(r.value)]
        numbers = {f"{self._namespace}/{r.quantity}": r.value for r in whole}
        if numbers:
            self._log_metrics(numbers, tick.step)

    def event(self, event: Event) -> None:
        """Nothing: a logger of numbers has no place for words."""

    def close(self) -> None:
        """Nothing: the logger belongs to the trainer."""
