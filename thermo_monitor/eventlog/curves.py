"""Numbers of one run by name, as they come in."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.eventlog.resume import current

Series = tuple[NDArray[np.float64], NDArray[np.float64]]


class Column:
    """Steps, wall times and values of one name, in the order of the file: 24 bytes a point."""

    __slots__ = ("steps", "values", "walls")

    def __init__(self) -> None:
        self.steps, self.walls, self.values = array("d"), array("d"), array("d")

    def add(self, step: float, wall: float, value: float) -> None:
        """One point."""
        self.steps.append(step)
        self.walls.append(wall)
        self.values.append(value)

    def __len__(self) -> int:
        return len(self.steps)

    def series(self) -> Series:
        """Steps (n,) and values (n,) that hold, by step.

        Example:
            >>> column = Column()
            >>> for wall, (step, value) in enumerate([(0, 1.0), (10, 2.0), (10, 3.0)]):
            ...     column.add(step, wall, value)
            >>> [x.tolist() for x in column.series()]
            [[0.0, 10.0], [1.0, 3.0]]
        """
        steps, walls, values = (np.array(c, np.float64) for c in (self.steps, self.walls, self.values))
        if steps.size and bool(np.all(steps[1:] > steps[:-1])) and bool(np.all(walls[1:] >= walls[:-1])):
            return steps, values
        keep = current(steps, walls)
        return steps[keep], values[keep]


Columns = dict[str, Column]
