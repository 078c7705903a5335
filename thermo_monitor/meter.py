"""What the monitor itself costs."""

from __future__ import annotations

import time
from types import TracebackType

from thermo_monitor.records import Reading

_SHARE = 0.02  # weight of the newest tick in the running overhead


class Meter:
    """Wall time spent between ``with meter:``, per tick and as a share of the run. Nested use counts once."""

    def __init__(self) -> None:
        self.bytes = 0  # that left the device in the whole run; told by whoever moves them
        self.total = 0.0  # seconds spent in the whole run
        self.stretch: int | None = None  # of the cadence, where a budget may stretch it
        self._bytes_before = 0
        self._depth = 0
        self._started = 0.0
        self._spent = 0.0
        self._last_tick: float | None = None
        self._spent_run = 0.0
        self._wall_run = 0.0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._started = time.perf_counter()
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            spent = max(time.perf_counter() - self._started, 0.0)  # the clock of a machine that was moved may go back
            self._spent += spent
            self.total += spent

    def readings(self, step: int, disabled: int) -> list[Reading]:
        """Cost since the last call; the share is an average that forgets the start."""
        now = time.perf_counter()
        spent, self._spent = self._spent, 0.0
        moved, self._bytes_before = self.bytes - self._bytes_before, self.bytes
        out = [
            Reading(step, "monitor/milliseconds", 1e3 * spent),
            Reading(step, "monitor/bytes", float(moved)),
            Reading(step, "monitor/disabled", float(disabled)),
        ]
        if self.stretch is not None:
            out.append(Reading(step, "monitor/stretch", float(self.stretch)))
        if self._last_tick is not None:
            keep = 1 - _SHARE
            self._spent_run = keep * self._spent_run + spent
            self._wall_run = keep * self._wall_run + max(now - self._last_tick, spent)
            out.append(Reading(step, "monitor/overhead", self._spent_run / max(self._wall_run, 1e-12)))
        self._last_tick = now
        return out
