"""Many series, one tick: what their detectors would decide one after the other, in a third of the time.

Nearly always nothing is suspected, and a reading is folded into a few dozen numbers (``watch``). Here these are
columns, one row for each series. A series that leaves that state (an alarm, a missing reading, a declaration) goes on
alone, in the state of an ``OnlineDetector``, and comes back when it is looking for a change again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thermo_monitor.detect import alarm, columns, table
from thermo_monitor.detect.burn_in import HUGE
from thermo_monitor.detect.eprocess import NOTHING
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.report import Decision, State


class ManyDetectors:
    """One detector for each of many series that are read at the same steps, such as a quantity of every layer.

    The decisions are those of ``detector.update`` for each series alone (up to rounding of the statistic), and so is
    the run length: it is that of one series. For one promise for all of them together, ask for ``arl * count``.

    Args:
        detector: options of every series.
        count: number of series.

    Raises:
        ValueError: if ``count`` is not a positive whole number.

    Example:
        >>> values = np.random.default_rng(2).standard_normal((900, 20))
        >>> values[600:, 3] += 6.0
        >>> many = ManyDetectors(OnlineDetector(arl=1_000_000), 20)
        >>> for step, row in enumerate(values):
        ...     for index, decision in many.update(row, step).items():
        ...         if decision.event is not None:
        ...             print(index, decision.event.kind, decision.event.onset)
        3 shift 600
    """

    def __init__(self, detector: OnlineDetector, count: int) -> None:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"count is a whole number of series, 1 or more; got {count!r}")
        self._detector = detector
        self._settings = detector._settings
        self._states = [detector.init() for _ in range(count)]
        self._together = np.zeros(count, dtype=bool)  # whose columns hold, and not the state
        self._columns = table.empty(count, max(2 * self._settings.wait, 80))
        self._last_step: int | None = None
        self.statistics = np.full(count, NOTHING)

    @property
    def together(self) -> int:
        """How many series are looking for a change with nothing else on their mind, and are folded together."""
        return int(self._together.sum())

    def update(self, values: ArrayLike, step: int) -> dict[int, Decision]:
        """Fold one reading of every series.

        Args:
            values: shape (count,); NaN where a series has none.
            step: of all of them; one that is not above the last one is counted and left out.

        Returns:
            The decisions that have an event, by index of the series. ``statistics`` has the statistic of all.

        Raises:
            ValueError: if there is not one value for each series.
        """
        readings = np.asarray(values, dtype=np.float64)
        if readings.shape != self._together.shape:
            raise ValueError(f"values have shape ({len(self._states)},), one for each series; got {readings.shape}")
        step = int(step)
        last = self._last_step
        new = last is None or step > last
        self._last_step = step if new else last
        held = self._columns
        x = np.divide(readings - held.zero, held.unit)
        rows = np.flatnonzero(self._together & (np.abs(x) < HUGE)) if new else np.array([], dtype=np.intp)
        alone = np.ones(len(self._states), dtype=bool)
        found: dict[int, Decision] = {}
        if rows.size:
            alone[rows] = False
            statistic = columns.read(held, rows, x[rows], step, self._settings)
            self.statistics[rows] = statistic
            for index in rows[statistic >= self._settings.threshold].tolist():
                self._apart(index, step)
                self._keep(found, index, alarm.sound(self._states[index], self._settings, step))
        for index in np.flatnonzero(alone).tolist():
            self._apart(index, last)
            _, decision = self._detector.update(self._states[index], float(readings[index]), step)
            self.statistics[index] = decision.statistic
            self._keep(found, index, decision)
            if table.fits(self._states[index]):
                table.load(held, index, self._states[index])
                self._together[index] = True
        return found

    def declare(self, step: int, reason: str, series: Iterable[int] | None = None) -> None:
        """Announce an intervention to all series, or to those given; see :meth:`OnlineDetector.declare`."""
        for index in range(len(self._states)) if series is None else series:
            self._apart(index, self._last_step)
            self._detector.declare(self._states[index], step, reason)

    def states(self) -> list[State]:
        """The state of every detector, as :class:`OnlineDetector` has it: plain JSON."""
        for index in np.flatnonzero(self._together).tolist():
            table.store(self._columns, index, self._states[index], self._last_step)
        return self._states

    def load_states(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from what :meth:`states` gave.

        Raises:
            ValueError: if there is not one state for each series.
        """
        if len(states) != len(self._states):
            raise ValueError(f"{len(self._states)} series have as many states; got {len(states)}")
        self._states = [dict(state) for state in states]
        steps = [state["last_step"] for state in self._states if state["last_step"] is not None]
        self._last_step = max(steps, default=None)
        self._together[:] = False
        for index, state in enumerate(self._states):
            self.statistics[index] = state["stat"]["log_sr"] if state["stat"] else NOTHING
            if table.fits(state):
                table.load(self._columns, index, state)
                self._together[index] = True

    def _apart(self, index: int, last_step: int | None) -> None:
        if self._together[index]:
            table.store(self._columns, index, self._states[index], last_step)
            self._together[index] = False

    @staticmethod
    def _keep(found: dict[int, Decision], index: int, decision: Decision) -> None:
        if decision.event is not None or decision.completed is not None:
            found[index] = decision
