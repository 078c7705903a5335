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
        self._stretch = Stretch()

    def ended(self, step: int, full: bool) -> Stretch | None:
        """A measured step is over: how often a budget would measure from here on, if there is one."""
        if self._budget is None:
            return None
        return self._budget.ended(step, full, self._meter.total, time.perf_counter(), self._stretch)

    def stretch(self, stretch: Stretch) -> None:
        """Change the factors of both schedules, where there is a budget."""
        if self._budget is None:
            return
        self._stretch = stretch
        for schedule, factor in zip((self.full, self.cheap), stretch, strict=True):
            if isinstance(schedule, Stretched):
                schedule.factor = factor
        self._meter.stretch = stretch.full
