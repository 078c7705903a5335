"""When did the change start? The list of start times that can still be the best, kept by functional pruning.

With ``S_t`` the sum of standardised innovations, a change of the mean from 0 to anything positive after tau readings
has the log-likelihood ratio ``(S_t - S_tau)^2 / (2 (t - tau))`` (where ``S_t > S_tau``). The best tau lies on the
lower convex hull of the points ``(tau, S_tau)``, and one whose ``S`` is not below the newest can never win again.
What remains is O(log t) candidates, each added once and removed once.

Written from Romano, Eckley, Fearnhead, Rigaill 2023, "Fast online changepoint detection via functional pruning CUSUM
statistics", JMLR 24(81).
"""

from __future__ import annotations

from typing import NamedTuple

Candidate = list[float]  # [tau, S_tau, step of the first reading after tau]


class Date(NamedTuple):
    """The best start of the new regime.

    Attributes:
        evidence: log-likelihood ratio of the best start.
        onset: step of the first reading of the new regime.
        low: first step whose evidence is within ``drop`` of the best.
        high: last such step.
    """

    evidence: float
    onset: int
    low: int
    high: int


def push(candidates: list[Candidate], count: float, total: float, step: int) -> None:
    """Offer the start after ``count`` readings, whose sum is ``total``; ``step`` is that of the next reading.

    For a downward change, keep a second list of the negated sums.
    """
    while candidates and candidates[-1][1] >= total:
        candidates.pop()
    while len(candidates) > 1:
        (t0, s0, _), (t1, s1, _) = candidates[-2], candidates[-1]
        if (s1 - s0) * (count - t1) < (total - s1) * (t1 - t0):
            break
        candidates.pop()
    candidates.append([count, total, step])


def date(candidates: list[Candidate], count: float, total: float, drop: float = 2.0) -> Date | None:
    """The start that explains the readings best, or None where nothing has moved up.

    Args:
        candidates: the list that :func:`push` keeps.
        count: number of readings seen.
        total: their sum.
        drop: starts on the list within this log-likelihood of the best form the interval.

    Example:
        >>> candidates, total = [], 0.0
        >>> for t, z in enumerate([0.0, 0.0, -1.0, 2.0, 2.0, 2.0]):
        ...     push(candidates, t, total, 10 * t)
        ...     total += z
        >>> date(candidates, 6, total)
        Date(evidence=6.0, onset=30, low=30, high=30)
    """
    scores = [
        ((total - s) ** 2 / (2.0 * (count - t)), int(step)) for t, s, step in candidates if total > s and count > t
    ]
    if not scores:
        return None
    best, onset = max(scores, key=lambda score: score[0])
    near = [step for score, step in scores if score >= best - drop]
    return Date(best, onset, near[0], near[-1])
