"""When to measure: functions from an optimizer step to yes or no.

A schedule depends on the step alone, so that every rank and every repetition of a run measures at the same steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], bool]


def every(n: int) -> Schedule:
    """Steps 0, n, 2 n, ...

    Args:
        n: distance between two measurements, at least 1.

    Example:
        >>> [step for step in range(7) if every(3)(step)]
        [0, 3, 6]
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"every={n!r} is no cadence: give a whole number of optimizer steps, 1 or more")

    def schedule(step: int) -> bool:
        return step % n == 0

    return schedule


def log_spaced(per_decade: int = 20) -> Schedule:
    """Steps that are evenly spaced on a logarithmic axis: dense at the start, where training changes fastest.

    Step 0 and every step k at which ``floor(per_decade * log10(k))`` is larger than at the step before.

    Args:
        per_decade: measurements for each factor of ten in the step.

    Example:
        >>> [step for step in range(200) if log_spaced(3)(step)]
        [0, 1, 3, 5, 10, 22, 47, 100]
    """
    if isinstance(per_decade, bool) or not isinstance(per_decade, int) or per_decade < 1:
        raise ValueError(f"per_decade={per_decade!r}: give a whole number of measurements for each factor of ten")

    def mark(step: int) -> int:
        # The small term keeps exact powers of ten on their own side of the rounding of the logarithm.
        return math.floor(per_decade * math.log10(step) + 1e-9)

    def schedule(step: int) -> bool:
        return step <= 1 or mark(step) > mark(step - 1)

    return schedule


class Stretched:
    """A part of a schedule: every ``factor``-th of its steps, the factor being changed while the run goes on.

    Args:
        cadence: as for :func:`resolve`.

    Example:
        >>> stretched = Stretched(2)
        >>> stretched.factor = 3
        >>> [step for step in range(20) if stretched(step)]
        [0, 6, 12, 18]
    """

    def __init__(self, cadence: int | Schedule) -> None:
        self._schedule = resolve(cadence)
        self._distance = None if callable(cadence) else cadence
        self._hits = -1
        self.factor = 1

    def __call__(self, step: int) -> bool:
        """Whether this step is one of them. A step has to be asked about once, in order, unless the cadence is even."""
        if not self._schedule(step):
            return False
        self._hits += 1
        number = self._hits if self._distance is None else step // self._distance
        return number % self.factor == 0


def resolve(cadence: int | Schedule) -> Schedule:
    """A schedule from what a user may pass as ``every=``: a number of steps or a function of the step."""
    if callable(cadence):
        return cadence
    return every(cadence)
