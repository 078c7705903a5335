"""Representations that become simpler bit by bit after the training set was fitted: the rule, and how far it is.

A slow fall is a drift to a detector that follows trends; by its size it matters all the same. The course of the two
normalised entropies of the representations is followed from twice the step of memorization on: what memorization
itself did to them has settled then. One of them alone has to fall by .1; where both fall, each by a minimum effect and
together by two and a half, the weights shrink meanwhile, and it takes no longer than four times what memorization took,
that says as much, and earlier. Too little data and weight decay make representations simpler as well, only slowly: on
the seeds with which this was built it took .4 to 2.7 times the memorization before a generalization, and 4.7 to 13
times where there never was one.

By itself it is a weak sign: scored alone, on seeds that were not used to build it, it announced 27 % of grokking runs
before half of their held-out answers were right, beside 9 % of the runs that never generalize. Hidden units of a
perceptron do not become simpler when it generalizes. The stronger sign is gradient coherence (``helping``), where it is
read; figures of both together are in docs/transitions.md.
"""

from __future__ import annotations

import math
from typing import Any

from thermo_monitor.detect.eprocess import NOTHING
from thermo_monitor.records import Event, Reading

ENTROPIES = ("repr/representation_entropy", "repr/spectral_entropy")
WEIGHTS = "opt/weight_norm"
EFFECT = 0.03  # minimum effect, as in the registry
ALONE = 0.1  # a fall of one of them
TOGETHER = 2.5 * EFFECT  # falls of both, added up
QUICK = 4.0  # times what memorization took: the fall of both may take that long
SLOW = 8.0  # a fall of one that takes longer than that is the slow work of weight decay
SMOOTH = 5  # readings in the running median that is compared
IN_A_ROW = 3
SHRINK = 0.005  # logarithm by which the weight norm has to fall to be called shrinking

State = dict[str, Any]


def update(state: State, reading: Reading, fitted: int | None) -> list[Event]:
    """The event that one reading completes.

    Args:
        state: changed in place: one entry for each quantity, empty at first, plain JSON.
        reading: of one of the two entropies, or of the weight norm.
        fitted: step at which it was clear that the training set is fitted; None before.
    """
    if fitted is None or reading.step < 2 * fitted or not math.isfinite(reading.value):
        return []
    own = state.setdefault(
        reading.quantity,
        {"last": [], "top": NOTHING, "begin": reading.step, "since": reading.step, "low": 0, "told": False},
    )
    own["step"], own["fitted"] = reading.step, fitted
    own["last"] = [*own["last"], reading.value][-SMOOTH:]
    if len(own["last"]) < SMOOTH:
        return []
    own["level"] = level = sorted(own["last"])[SMOOTH // 2]
    own["top"] = max(own["top"], level)
    if own["told"] or reading.quantity == WEIGHTS:
        return []
    if level > own["top"] - EFFECT:
        own["since"] = reading.step
    if level > own["top"] - EFFECT / 3.0:
        own["begin"] = reading.step
    both = progress(state) >= 1.0
    own["low"] = own["low"] + 1 if both or level <= own["top"] - ALONE else 0
    if own["low"] < IN_A_ROW:
        return []
    own["told"] = True
    how = ", both entropies of the representations together" if both else ""
    details = {
        "rule": f"fell by {own['top'] - level:.3f} since the training set was fitted{how}",
        "before": own["top"],
        "after": level,
    }
    if both:
        details["shrinking"] = True
    since = own["since"]
    if reading.step - own["begin"] > SLOW * max(fitted, 1):
        details["slow"] = True
    return [
        Event(
            "drift", reading.step, since, "down", reading.quantity, math.nan,
            onset_low=own["begin"], onset_high=since, details=details,
        )
    ]  # fmt: skip


def restart(state: State) -> None:
    """What changed by plan from here on is not compared with what was before."""
    for own in state.values():
        own["last"], own["top"], own["low"] = [], NOTHING, 0
        own.pop("level", None)


def _fall(state: State, quantity: str) -> float:
    own = state.get(quantity, {})
    return float(own["top"] - own["level"]) if "level" in own else 0.0


def _both(state: State) -> float:
    """How far both have fallen, 1 at most, times how quickly."""
    falls = [_fall(state, key) for key in ENTROPIES]
    far = max(min(min(falls) / EFFECT, sum(falls) / TOGETHER, 1.0), 0.0)
    if far == 0.0:
        return 0.0
    taken = max(state[key]["step"] for key in ENTROPIES) - min(state[key]["begin"] for key in ENTROPIES)
    share = QUICK * state[ENTROPIES[0]]["fitted"] / max(taken, 1)  # of the time that it may take
    return far * min(float(share), 1.0)


def progress(state: State) -> float:
    """How far both entropies are on their way to be told together, from 0 to 1; 0 while the weights do not shrink.

    ``min(smaller fall / e, sum of falls / 2.5 e, 1)`` with the minimum effect ``e``, times ``4 memorization / time
    taken`` and the fall of the logarithm of the weight norm over .005, both 1 at most. 0 before the training set is
    fitted.

    Example:
        >>> state = {}
        >>> for step in range(200, 300):
        ...     for key in ENTROPIES:
        ...         events = update(state, Reading(step, key, 0.6 - 0.0002 * (step - 200)), fitted=100)
        ...     events = update(state, Reading(step, WEIGHTS, 30.0 - 0.01 * (step - 200)), fitted=100)
        >>> round(progress(state), 3)  # both entropies fell by .019, of the 2.5 e / 2 = .0375 that they need
        0.507
    """
    weights = state.get(WEIGHTS, {})
    if "level" not in weights or weights["level"] <= 0.0:
        return 0.0
    shrunk = math.log(weights["top"] / weights["level"]) / SHRINK
    return _both(state) * min(shrunk, 1.0)
