"""Series with known changes, for tests, examples and benchmarks: noise as training metrics have it, and events.

The noise has unit variance, so an amplitude is in standard deviations.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Series = NDArray[np.float64]


def noise(n: int, seed: int, phi: float = 0.0, tail: str = "normal") -> Series:
    """AR(1) noise of unit variance, its innovations normal or Student t with 3 degrees of freedom.

    Args:
        n: number of readings.
        seed: of the random generator.
        phi: lag-one coefficient, within [0, 1).
        tail: ``normal`` or ``t3``.

    Returns:
        Shape (n,).

    Example:
        >>> x = noise(20_000, seed=0, phi=0.5)
        >>> round(float(np.mean(x[1:] * x[:-1])), 1)
        0.5
    """
    rng = np.random.default_rng(seed)
    out = rng.standard_normal(n + 200) if tail == "normal" else rng.standard_t(3, n + 200) / math.sqrt(3.0)
    level, scale = 0.0, math.sqrt(1.0 - phi * phi)
    for i, innovation in enumerate(out.tolist()):
        out[i] = level = phi * level + scale * innovation
    return out[200:]


def sigmoid(n: int, middle: int, width: float = 1.0) -> Series:
    """From 0 to 1; ``width`` is the number of readings between 5 % and 95 %, 1 is a step.

    Example:
        >>> sigmoid(4, 2).tolist()
        [0.0, 0.0, 1.0, 1.0]
    """
    time = np.arange(n) - middle
    if width <= 1:
        return (time >= 0).astype(np.float64)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(time * 2.0 * math.log(19.0) / width, -60.0, 60.0))))


def spike(n: int, at: int, decay: float) -> Series:
    """From 0 to 1 at once, and back with the time constant ``decay``.

    Example:
        >>> spike(4, 1, 1e-9).tolist()
        [0.0, 1.0, 0.0, 0.0]
    """
    time = np.arange(n) - at
    return np.where(time >= 0, np.exp(-np.maximum(time, 0) / decay), 0.0)
