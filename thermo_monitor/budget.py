"""Keeping the monitor's share of the time: measuring less often when measuring costs more than it may.

A run with the monitor takes ``T + f / m + c / (n k)`` a step, with the step's own time T, the cost f of a cheap
measurement and c of a full one, n steps between two full ones by schedule, and the factors k and m by which both
cadences are stretched. The smallest powers of two that keep the share are taken: a measured step is then still one that
the schedule names, and a stretched cadence is a part of the unstretched one.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import NamedTuple

LARGEST = 1024


class Stretch(NamedTuple):
    """Factors on the distance between two measurements."""

    full: int = 1
    cheap: int = 1


class Budget:
    """Chooses how far to stretch the cadences of one run.

    Args:
        share: of the wall time that the monitor may take, between 0 and 1.

    Raises:
        ValueError: the share is no share.

    Example:
        A full measurement of 15 ms every 10 steps of 100 ms is 1.5 percent; every 20 steps it is half of that.

        >>> budget, spent, stretch = Budget(0.01), 0.0, Stretch()
        >>> for step in range(100):
        ...     if step % (10 * stretch.full) == 0:
        ...         spent += 0.015
        ...         stretch = budget.ended(step, True, spent, 0.1 * step + spent)
        >>> stretch
        Stretch(full=2, cheap=1)
    """

    def __init__(self, share: float) -> None:
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
            raise ValueError(f"budget={share!r}: give the share of the time that the monitor may take, such as 0.01")
        self.share = float(share)
        self.stretch = Stretch()
        self._full: deque[float] = deque(maxlen=7)  # cost of the last full measurements
        self._cheap: deque[float] = deque(maxlen=64)
        self._own: deque[float] = deque(maxlen=7)  # time of a step without the monitor
        self._spent = 0.0
        self._last: tuple[int, float, float] | None = None  # step, cost so far and time at the last full measurement
        # Steps between two full measurements, unstretched. The largest counts: the first after a change comes early.
        self._distances: deque[float] = deque(maxlen=3)

    def ended(self, step: int, full: bool, spent: float, now: float, in_force: Stretch | None = None) -> Stretch:
        """A measured step is over.

        Args:
            step: index of the optimizer step.
            full: whether the costly probes measured.
            spent: seconds that the monitor has taken in the whole run.
            now: clock.
            in_force: the factors that this step was chosen by; None: those that were returned last.

        Returns:
            The factors to use from here on; they change at full measurements only.
        """
        cost, self._spent = spent - self._spent, spent
        if not full:
            self._cheap.append(cost)
            return self.stretch
        last, self._last = self._last, (step, spent, now)
        if last is None or step <= last[0]:  # the first one has loaded and compiled what the others find ready
            return self.stretch
        steps = step - last[0]
        self._full.append(cost)
        self._own.append(max(now - last[2] - (spent - last[1]), 0.0) / steps)
        self._distances.append(steps / (self.stretch if in_force is None else in_force).full)
        if len(self._full) >= 3:
            self.stretch = self._chosen()
        return self.stretch

    def _chosen(self) -> Stretch:
        own = max(statistics.median(self._own), 1e-9)
        full, cheap = statistics.median(self._full), statistics.fmean(self._cheap) if self._cheap else 0.0
        cheap_factor = _factor(cheap / own, self.share / 2, self.stretch.cheap)
        left = self.share - cheap / own / cheap_factor
        return Stretch(
            _factor(full / own / max(self._distances), max(left, self.share / 4), self.stretch.full), cheap_factor
        )


def _factor(share: float, most: float, before: int) -> int:
    """The smallest power of two that a share has to be divided by; not smaller than before unless that is clear."""
    factor = 1
    while share / factor > (most if factor >= before else 0.7 * most) and factor < LARGEST:
        factor *= 2
    return factor
