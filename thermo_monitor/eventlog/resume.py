"""What of a log still holds when a run was taken up at an earlier step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def current(steps: NDArray[np.float64], walls: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the points that hold, by step: where a run was taken up at an earlier step, its later account counts.

    A point is superseded when a later one (by wall time) has the same step or a lower one.

    Args:
        steps: (n,).
        walls: wall times (n,).

    Example:
        >>> current(np.array([0.0, 10.0, 20.0, 10.0, 15.0]), np.arange(5.0)).tolist()
        [0, 3, 4]
    """
    order = np.argsort(walls, kind="stable")
    if not order.size:
        return order
    by_time = steps[order]
    later = np.append(np.minimum.accumulate(by_time[::-1])[::-1][1:], np.inf)  # the lowest step that comes after
    return order[by_time < later]
