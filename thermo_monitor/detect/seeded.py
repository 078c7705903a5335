"""Seeded binary segmentation, its threshold taken from permutations of the series itself.

Intervals of lengths that grow by sqrt(2), each overlapping the next by half, hold every change alone in at least one of
them. In each interval the largest standardised difference of means is the statistic; the threshold is what the
largest of all of them exceeds in 5 % of random orders of the series.

Source: Kovacs, Buehlmann, Li, Munk 2023, Biometrika 110(1).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def intervals(n: int, shortest: int = 4) -> list[tuple[int, int]]:
    """Seeded intervals ``[start, end)``, from short to long.

    Example:
        >>> intervals(8)
        [(0, 4), (2, 6), (4, 8), (0, 6), (1, 7), (2, 8), (0, 8)]
    """
    found: list[tuple[int, int]] = []
    length = float(shortest)
    while length < n * math.sqrt(2.0):
        size = min(round(length), n)
        count = max(1, 2 * math.ceil(n / size) - 1)
        shift = (n - size) / (count - 1) if count > 1 else 0.0
        found += [(round(i * shift), round(i * shift) + size) for i in range(count)]
        length *= math.sqrt(2.0)
    return list(dict.fromkeys(found))


def segment(values: NDArray[np.float64], draws: int = 100, level: float = 0.05) -> list[int]:
    """First samples of the segments after the first one.

    Args:
        values: standardised series, shape (n, d).
        draws: number of random orders.
        level: share of them that exceed the threshold.

    Returns:
        0-based indices, ascending.

    Example:
        >>> segment(np.repeat([-1.0, 1.0, -1.0], 30)[:, None])
        [30, 60]
    """
    n = len(values)
    if n < 8:
        return []
    rng = np.random.default_rng(0)
    orders = [np.arange(n)] + [rng.permutation(n) for _ in range(draws)]
    sums = np.zeros((draws + 1, n + 1, values.shape[1]), dtype=np.float32)
    np.cumsum(np.stack([values[order] for order in orders]), axis=1, out=sums[:, 1:])
    largest = np.zeros(draws)
    scores: list[tuple[float, int, int, int]] = []
    for start, end in intervals(n):
        inner = np.arange(start + 2, end - 1)
        before, after = (inner - start).astype(np.float32), (end - inner).astype(np.float32)
        left = sums[:, inner] - sums[:, start, None]
        whole = (sums[:, end] - sums[:, start])[:, None]
        gain = ((left - whole * (before / (before + after))[:, None]) ** 2).sum(axis=2) * (
            (before + after) / (before * after)
        )
        best = int(np.argmax(gain[0]))
        scores.append((float(gain[0, best]), int(inner[best]), start, end))
        np.maximum(largest, gain[1:].max(axis=1), out=largest)
    threshold = float(np.quantile(largest, 1.0 - level))
    changes: list[int] = []
    left_over = sorted((s for s in scores if s[0] > threshold), key=lambda s: -s[0])
    while left_over:
        change = left_over[0][1]
        changes.append(change)
        left_over = [s for s in left_over if not s[2] < change < s[3]]
    return sorted(changes)
