"""When a monitor measures: two schedules, and the budget that may stretch them."""

from __future__ import annotations

import time

from thermo_monitor.budget import Budget, Stretch
from thermo_monitor.meter import Meter
from thermo_monitor.schedule import Schedule, Stretched, resolve


class Cadence:
    """Says of each optimizer step what is measured in it.

    Args:
        every: cadence of the costly probes.
        fast_every: cadence of the cheap ones.
        budget: share of the wall time that the monitor may take; None: no schedule is ever stretched.
        meter: knows what was spent, and shows how far the cadence is stretched.
    """

    def __init__(self, every: int | Schedule, fast_every: int | Schedule, budget: float | None, meter: Meter) -> None:
        self.full, self.cheap = resolve(every), resolve(fast_every)
        self._meter = meter
        self._budget = None if budget is None else Budget(budget)
        if self._budget is not None:
            self.full, self.cheap = Stretched(every), Stretched(fast_every)
            meter.stretch = 1

    def ended(self, step: int, full: bool) -> None:
        """A measured step is over: measure less often from here on, or more often again, where a budget says so."""
        if self._budget is not None:
            self.stretch(self._budget.ended(step, full, self._meter.total, time.perf_counter()))

    def stretch(self, stretch: Stretch) -> None:
        """Change the factors of both schedules."""
        for schedule, factor in zip((self.full, self.cheap), stretch, strict=True):
            if isinstance(schedule, Stretched):
                schedule.factor = factor
        self._meter.stretch = stretch.full
