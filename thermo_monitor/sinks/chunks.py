"""Every number of a curve, a hundred to a tensor: a loader that keeps a thousand scalars keeps all of these."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.records import Reading

SIZE = 100  # points of a full chunk
LEAST = 20  # points that are worth a tensor of their own before a chunk is full

Chunk = NDArray[np.float64]  # [k, 3]: step, wall time, value


class Chunks:
    """Gathers the model-wide readings by quantity.

    Example:
        >>> chunks = Chunks()
        >>> for step in range(150):
        ...     chunks.add([Reading(step, "loss/train", 0.5)], 1e9 + step)
        >>> [(quantity, chunk.shape) for quantity, chunk in chunks.full()]
        [('loss/train', (100, 3))]
        >>> [(quantity, chunk[0].tolist()) for quantity, chunk in chunks.rest(1)]
        [('loss/train', [100.0, 1000000100.0, 0.5])]
    """

    def __init__(self) -> None:
        self._points: dict[str, list[tuple[float, float, float]]] = {}

    def add(self, readings: Iterable[Reading], wall: float) -> None:
        """Take the readings of one tick; a NaN is left out, its place in the curve is a gap."""
        for r in readings:
            if r.layer is None and r.head is None and not math.isnan(r.value):
                points = self._points.setdefault(r.quantity, [])
                if not points or points[-1][0] < r.step:
                    points.append((r.step, wall, r.value))

    def full(self) -> Iterator[tuple[str, Chunk]]:
        """Chunks that are full, by quantity; they are gone then."""
        for quantity, points in self._points.items():
            if len(points) >= SIZE:
                yield quantity, np.array(points[:SIZE], np.float64)
                del points[:SIZE]

    def rest(self, least: int) -> Iterator[tuple[str, Chunk]]:
        """What has at least some points, full or not."""
        yield from self.full()
        for quantity, points in self._points.items():
            if len(points) >= least:
                yield quantity, np.array(points, np.float64)
                points.clear()
