"""Agreement between dissimilar segmentations: a change is kept when enough place it at nearly one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Change:
    """A change of regime, found after the run.

    Attributes:
        index: 0-based first sample of the new regime.
        low: earliest date that a voter gave.
        high: latest date that a voter gave.
        votes: names of the segmentations that agree.
        doubt: why it may be no change, in a sentence; empty where nothing speaks against it.
    """

    index: int
    low: int
    high: int
    votes: tuple[str, ...]
    doubt: str = ""


def vote(proposals: Mapping[str, Sequence[int]], needed: int, margin: int = 5) -> list[Change]:
    """Changes that at least ``needed`` voters place within ``margin`` samples of each other; the date is their median.

    Example:
        >>> [c.index for c in vote({"a": [10, 50], "b": [12], "c": [11, 90]}, needed=2)]
        [11]
    """
    left = {name: sorted(dates) for name, dates in proposals.items()}
    kept: list[Change] = []
    while True:
        best: tuple[int, int, dict[str, int]] | None = None
        for centre in sorted({date for dates in left.values() for date in dates}):
            near = {name: min(dates, key=lambda d: (abs(d - centre), d)) for name, dates in left.items() if dates}
            near = {name: date for name, date in near.items() if abs(date - centre) <= margin}
            rank = (len(near), -sum(abs(date - centre) for date in near.values()))
            if len(near) >= needed and (best is None or rank > best[:2]):
                best = (*rank, near)
        if best is None:
            return sorted(kept, key=lambda change: change.index)
        dates = sorted(best[2].values())
        kept.append(Change(round(float(np.median(dates))), dates[0], dates[-1], tuple(sorted(best[2]))))
        for name, date in best[2].items():
            left[name].remove(date)
