"""A straight line through the recent past of a series, older readings weighing less.

State: ``[S0, S1, S2, Y0, Y1, Q]`` = weighted sums of 1, u, u^2, y, u y over the readings seen, where u is the time
    counted
back from the newest reading (0, -1, -2, ...), and Q the sum of squared weights.
"""

from __future__ import annotations

from typing import NamedTuple

Line = list[float]


class Band(NamedTuple):
    """Where the next reading is expected.

    Attributes:
        level: weighted mean of the past: where the next reading lies if the series stays where it was.
        ahead: the fitted line, one step on: where it lies if the trend goes on.
        slope: slope of the line per reading.
        weight: number of equally weighted readings that would fix the mean as well.
    """

    level: float
    ahead: float
    slope: float
    weight: float


def init() -> Line:
    """The state that has seen nothing."""
    return [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def update(state: Line, value: float, memory: float) -> Line:
    """One more reading, in place; a reading that is ``memory`` readings old weighs 1/e.

    Moving the origin of time by one turns ``S1`` into ``S1 - S0`` and ``S2`` into ``S2 - 2 S1 + S0``: discounted least
    squares (Brown 1963) at a constant cost.
    """
    keep = 1.0 - 1.0 / memory
    s0, s1, s2, y0, y1, q = state
    state[2] = keep * (s2 - 2.0 * s1 + s0)
    state[1] = keep * (s1 - s0)
    state[0] = keep * s0 + 1.0
    state[4] = keep * (y1 - y0)
    state[3] = keep * y0 + value
    state[5] = keep * keep * q + 1.0
    return state


def skip(state: Line, readings: float) -> Line:
    """Let time pass without readings, in place."""
    state[2] += readings * (readings * state[0] - 2.0 * state[1])
    state[1] -= readings * state[0]
    state[4] -= readings * state[3]
    return state


def value(state: Line) -> Band:
    """The band that the past allows for the next reading.

    Example:
        >>> state = init()
        >>> for x in range(5):
        ...     state = update(state, 10.0 + 2.0 * x, 1e12)
        >>> band = value(state)
        >>> round(band.level, 6), round(band.ahead, 6), round(band.slope, 6), round(band.weight, 6)
        (14.0, 20.0, 2.0, 5.0)
    """
    return Band(*band(state))


def band(state: Line) -> tuple[float, float, float, float]:
    """The fields of :func:`value` alone, for loops that cannot afford their names."""
    s0, s1, s2, y0, y1, q = state
    level = y0 / s0
    spread = s2 - s1 * s1 / s0
    slope = (y1 - s1 * level) / spread if spread > 1e-9 * s2 else 0.0
    return level, level + slope * (1.0 - s1 / s0), slope, s0 * s0 / q
