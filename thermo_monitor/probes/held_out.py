"""Held-out metrics that the training loop reports: the numbers are the user's, and travel like all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from thermo_monitor.probes.base import Array, Listener, Measured, number


class HeldOut(Listener):
    """Reads what ``monitor.validation`` has sent; it measures nothing itself."""

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Nothing is measured in a step."""
        return None, []

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """One reading; ``label`` is its key."""
        return Measured([number(step, label, float(arrays[0]), reason="non_finite")])
