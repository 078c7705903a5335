"""Several series, one statistic: the weighted average of their evidence decides when, its largest share says where.

Every series k has its own Shiryaev-Roberts statistic ``SR^k`` (``eprocess``). With weights ``w_k`` that add up to one,

    ``F_t = sum_k w_k SR^k_t``,  alarm when ``F_t >= A``.

*Why an average.* ``SR^k_t`` minus the number of readings of k so far is a supermartingale, and sums of supermartingales
are supermartingales whatever the dependence between the series. So ``A <= E[F_T] <= E[sum_k w_k n_k(T)]`` at a false
alarm at time T, ``n_k`` being the readings of k. A product would need independence, which the readings of one model
never have; a maximum needs the threshold ``A / w_k`` for each k, which implies ``F >= A``: the average is never later.

*What A counts.* ``sum_k w_k n_k``, a weighted mean of the readings of each series, is at most the readings of the
fastest one. A series that is read on every optimizer step makes A optimizer steps; slow ones only lengthen it. A series
without a new reading keeps its ``SR^k``.

*Restarts.* An alarm spends the evidence of its leading series, whose statistic starts again, and leaves that of the
others. So the long-run rate of false alarms, each counted by the share of its leader, is at most ``1 / A``.

Source: Shin, Ramdas, Rinaldo 2024, "E-detectors", New England J. Statistics in Data Science (averages of e-detectors).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from thermo_monitor.detect import alarm
from thermo_monitor.detect.eprocess import NOTHING

CONTRIBUTES = 0.1  # share from which a series widens the interval of the onset
MENTIONED = 0.01  # share from which it is named in the event


class Fused(NamedTuple):
    """The statistic of a run and where it comes from.

    Attributes:
        log: natural logarithm of F.
        shares: ``w_k SR^k / F`` of every series, the largest first; empty where there is no evidence.
    """

    log: float
    shares: dict[str, float]

    @property
    def leader(self) -> str:
        """The series with the largest share."""
        return next(iter(self.shares))


def weights(groups: Mapping[str, str]) -> dict[str, float]:
    """Equal weights for the groups, shared equally by the series of each.

    They know nothing of the values. When a series is heard for the first time the weights of the others fall and its
    own statistic is still zero, which can only lower F: the guarantee survives.

    Args:
        groups: group of every series that has been heard.

    Example:
        >>> weights({"loss/train": "loss", "repr/a": "representation", "repr/b": "representation"})
        {'loss/train': 0.5, 'repr/a': 0.25, 'repr/b': 0.25}
    """
    members = list(groups.values())
    count = len(set(members))
    return {key: 1.0 / (count * members.count(group)) for key, group in groups.items()}


def combine(logs: Mapping[str, float], weight: Mapping[str, float]) -> Fused:
    """F and its shares, from the logarithm of every ``SR^k``.

    Example:
        >>> fused = combine({"a": math.log(30.0), "b": math.log(10.0)}, {"a": 0.5, "b": 0.5})
        >>> round(math.exp(fused.log), 9), fused.leader, round(fused.shares["a"], 9)
        (20.0, 'a', 0.75)
    """
    terms = {key: log + math.log(weight[key]) for key, log in logs.items() if log > NOTHING}
    if not terms:
        return Fused(NOTHING, {})
    top = max(terms.values())
    total = top + math.log(sum(math.exp(term - top) for term in terms.values()))
    shares = {key: math.exp(term - total) for key, term in terms.items()}
    return Fused(total, dict(sorted(shares.items(), key=lambda item: -item[1])))


def evidence(state: Mapping[str, Any]) -> float:
    """``log SR`` of one detector while it is looking for a change; that of zero while it is not."""
    return float(state["stat"]["log_sr"]) if state["mode"] == "watch" else NOTHING


def interval(states: Mapping[str, dict[str, Any]], fused: Fused, step: int) -> tuple[int, int]:
    """Interval of the onset: that of the leader, widened by the series that contribute to the same change.

    Args:
        states: of the detectors.
        fused: statistic of the run at the alarm.
        step: of the alarm.
    """
    intervals = {key: alarm.dated(states[key], step)[2:] for key, share in fused.shares.items() if share > CONTRIBUTES}
    return hull(intervals[fused.leader], intervals.values(), step)


def hull(leader: tuple[int, int], others: Iterable[tuple[int, int]], step: int) -> tuple[int, int]:
    """The smallest interval that holds that of the leader and those near it.

    A date further from the leader's than the leader took to alarm belongs to another change, such as a bend that has
    not become one yet.

    Example:
        >>> hull((120, 130), [(100, 125), (20, 30)], step=150)
        (100, 130)
    """
    low, high = leader
    reach = step - low
    near = [(a, b) for a, b in others if b >= low - reach and a <= high + reach]
    return min([low, *(a for a, _ in near)]), max([high, *(b for _, b in near)])


def facts(fused: Fused, weight: Mapping[str, float], threshold: float) -> dict[str, Any]:
    """What the details of an event say about the fusion: shares above one per cent, all weights, the threshold."""
    return {
        "shares": {key: round(share, 4) for key, share in fused.shares.items() if share > MENTIONED},
        "weights": {key: round(value, 4) for key, value in weight.items()},
        "threshold": threshold,
    }
