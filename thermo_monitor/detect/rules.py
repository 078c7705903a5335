"""Changes that need no statistics.

A loss that is no number or is thrown up (``throws``), an attention that has collapsed, a training set that is fitted,
and after that representations that become simpler bit by bit (``simpler``) or examples that come to help each other
(``helping``). Each rule asks for a few readings in a row, so that one bad reading is no event. State is plain JSON.
"""

from __future__ import annotations

import math
from typing import Any

from thermo_monitor.detect import helping, simpler, throws
from thermo_monitor.detect.phases import MEMORIZED, SPIKE
from thermo_monitor.records import Event, Reading

LOSS, ENTROPY, PREDICTIVE = "loss/train", "attn/entropy_fraction", "out/predictive_entropy"
IN_A_ROW = 3
FITTED_IN_A_ROW = 5
COLLAPSED = 0.05  # entropy fraction below which hardly more than one key is attended
UNWATCHED = (helping.QUANTITY,)  # read by a rule here and by no detector
UNDECIDED = 0.25  # share of its first value to which the predictive entropy has to fall with the loss

State = dict[str, Any]


def fresh() -> State:
    """The state that has seen nothing."""
    return {
        "bad": 0, "bad_since": None, "diverged": False,
        "low": 0, "low_since": None, "collapsed": False,
        "first": [], "first_entropy": None, "entropy": None, "half": None, "fitted": 0, "fitted_since": None,
        "memorized": None, "loss": None, "floor": None, "simpler": {}, "helping": {}, "throws": {},
    }  # fmt: skip


def handles(quantity: str, event: Event) -> bool:
    """Whether an event of a detector is left to the rules here."""
    return quantity == LOSS and event.kind == "divergence"


def update(state: State, reading: Reading, transformed: float) -> list[Event]:
    """Events that one reading completes; ``transformed`` is the value as the detectors see it."""
    if reading.quantity == LOSS:
        if math.isfinite(transformed):
            state["loss"] = transformed
            state["floor"] = transformed if state["floor"] is None else min(state["floor"], transformed)
        thrown = throws.update(state["throws"], LOSS, reading.step, transformed)
        return _divergence(state, reading) + thrown + _memorization(state, reading, transformed)
    if reading.quantity == ENTROPY:
        return _collapse(state, reading)
    if reading.quantity in simpler.ENTROPIES or reading.quantity == simpler.WEIGHTS:
        return simpler.update(state["simpler"], reading, state["memorized"])
    if reading.quantity == helping.QUANTITY:
        if not _fits(state):
            helping.restart(state["helping"])
        return helping.update(state["helping"], reading, state["memorized"])
    if reading.quantity == PREDICTIVE and math.isfinite(reading.value):
        state["first_entropy"] = reading.value if state["first_entropy"] is None else state["first_entropy"]
        state["entropy"] = reading.value
    return []


def finish(state: State) -> list[Event]:
    """The run is over: a loss that is no number at its end is a divergence, however short."""
    if state["bad"] and not state["diverged"]:
        state["diverged"] = True
        return [_diverged(state, state["bad_last"])]
    return []


def _divergence(state: State, reading: Reading) -> list[Event]:
    if math.isfinite(reading.value):
        state["bad"], state["bad_since"], state["diverged"] = 0, None, False
        return []
    state["bad"] += 1
    state["bad_last"] = reading.step
    state["bad_since"] = reading.step if state["bad_since"] is None else state["bad_since"]
    if state["bad"] < IN_A_ROW or state["diverged"]:
        return []
    state["diverged"] = True
    return [_diverged(state, reading.step)]


def _diverged(state: State, step: int) -> Event:
    since = state["bad_since"]
    details = {"rule": f"the loss was not finite for {state['bad']} readings in a row"}
    return Event("divergence", step, since, "none", LOSS, math.nan, onset_low=since, onset_high=since, details=details)


def _collapse(state: State, reading: Reading) -> list[Event]:
    if not reading.value < COLLAPSED:
        state["low"], state["low_since"], state["collapsed"] = 0, None, False
        return []
    state["low"] += 1
    state["low_since"] = reading.step if state["low_since"] is None else state["low_since"]
    if state["low"] < IN_A_ROW or state["collapsed"]:
        return []
    state["collapsed"] = True
    since = state["low_since"]
    details = {"rule": f"entropy fraction below {COLLAPSED} for {IN_A_ROW} readings in a row", "after": reading.value}
    return [
        Event(
            "collapse",
            reading.step,
            since,
            "down",
            ENTROPY,
            math.nan,
            onset_low=since,
            onset_high=since,
            details=details,
        )
    ]


def early(state: State) -> float:
    """``detect/early_warning``: how far the nearer of the two announcements of a generalization is on its way."""
    return max(helping.progress(state["helping"]) or 0.0, simpler.progress(state["simpler"]))


def restart(state: State) -> None:
    """What changed by plan from here on is not compared with what was before."""
    simpler.restart(state["simpler"])
    helping.restart(state["helping"])


def _fits(state: State) -> bool:
    """Whether the training set is fitted and the loss has not been thrown up since, from however small a value."""
    if state["memorized"] is None or state["loss"] is None:
        return False
    return bool(state["loss"] <= min(_begin(state) + math.log(MEMORIZED), state["floor"] + SPIKE))


def _begin(state: State) -> float:
    return float(sorted(state["first"])[FITTED_IN_A_ROW // 2])


def _memorization(state: State, reading: Reading, log_loss: float) -> list[Event]:
    """The training loss stays below a tenth of where it began, and the model has become sure of its answers."""
    if state["memorized"] is not None or not math.isfinite(log_loss):
        return []
    if len(state["first"]) < FITTED_IN_A_ROW:
        state["first"].append(log_loss)
        return []
    begin = _begin(state)
    if log_loss > begin + math.log(0.5) or state["half"] is None:
        state["half"] = reading.step
    if log_loss > begin + math.log(MEMORIZED):
        state["fitted"], state["fitted_since"] = 0, None
        return []
    state["fitted"] += 1
    state["fitted_since"] = reading.step if state["fitted_since"] is None else state["fitted_since"]
    sure = state["entropy"] is None or state["entropy"] <= UNDECIDED * state["first_entropy"]
    if state["fitted"] < FITTED_IN_A_ROW or not sure:
        return []
    state["memorized"] = reading.step
    details = {
        "milestone": "memorization",
        "rule": f"training loss below {MEMORIZED} of its first level for {FITTED_IN_A_ROW} readings in a row",
        "before": begin,
        "after": log_loss,
    }
    low, high = state["half"], state["fitted_since"]
    return [
        Event(
            "shift", reading.step, low, "down", LOSS, begin - log_loss, onset_low=low, onset_high=high, details=details
        )
    ]
