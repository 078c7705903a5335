"""Averages over a stretch of a run: their errors where readings hang together, and whether it is stationary."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from thermo_monitor.probes.base import Array

_BLOCKS = 8


class Window:
    """The last readings of several numbers, as a table.

    Args:
        size: most readings that are kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._rows: deque[tuple[float, ...]] = deque(maxlen=size)

    def add(self, *values: float) -> None:
        """One reading; one that is not finite is left out."""
        if all(map(math.isfinite, values)):
            self._rows.append(values)

    def clear(self) -> None:
        """Forget, since what is averaged has become something else."""
        self._rows.clear()

    @property
    def full(self) -> bool:
        """Whether there is enough for an average with an error bar."""
        return len(self._rows) == self._size

    def columns(self) -> Array:
        """[values, readings], oldest first."""
        return np.array(self._rows, dtype=np.float64).T


def standard_error(values: Array) -> float:
    """Standard error of a mean from the means of blocks, which are nearly independent where single values are not.

    Example:
        >>> round(standard_error(np.tile([0.0, 1.0], 8)), 6)
        0.0
    """
    blocks = np.array_split(values, _BLOCKS)
    return float(np.std([block.mean() for block in blocks], ddof=1) / math.sqrt(_BLOCKS))


def stationary(values: Array) -> bool:
    """Whether the two halves of a stretch have the same mean, within four standard errors of their difference.

    Example:
        >>> stationary(np.tile([0.0, 1.0, 3.0], 30)), stationary(np.arange(90.0))
        (True, False)
    """
    halves = np.array_split(values, 2)
    spread = math.hypot(*(standard_error(half) for half in halves))
    scale = 1e-12 * float(np.abs(values).max(initial=0.0))
    return bool(abs(halves[0].mean() - halves[1].mean()) <= 4 * spread + scale)
