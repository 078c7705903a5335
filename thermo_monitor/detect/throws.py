"""A training loss that is thrown up tenfold within twenty steps, and whether it comes down again.

A spike, a slingshot, the begin of a divergence: no statistics are needed to see one, and it should be told while it can
still be stopped. Three readings in a row that are ten times the median of the last twenty steps are an event at once;
when the loss is a tenth of its peak again, that is an ``excursion``, also after a shorter throw. A detector that waits
for the level before would wait for hundreds of steps: a loss of 1e-6 that a bad batch threw to 1 is long harmless again
at 1e-3. Where it happens again and again, as in small batches that hold a hard example now and then, it is how this
loss scatters: after three throws in a thousand steps further ones are not told.
"""

from __future__ import annotations

import math
from typing import Any

from thermo_monitor.records import Event

TENFOLD = math.log(10.0)
WITHIN = 20  # steps
FEWEST = 5  # readings before that make a median
IN_A_ROW = 3
OFTEN, LATELY = 3, 1000  # so many throws in so many steps are how the loss scatters
ROUNDING = math.log(1e-7)  # a smaller loss is rounding in single precision

State = dict[str, Any]


def update(state: State, quantity: str, step: int, log_loss: float) -> list[Event]:
    """The events that one reading of the loss completes.

    Args:
        state: changed in place, empty at first, plain JSON.
        quantity: of the loss.
        step: of the reading.
        log_loss: its logarithm.
    """
    if not math.isfinite(log_loss):
        return []
    if "since" in state:
        return _followed(state, quantity, step, log_loss)
    recent = [[s, x] for s, x in state.get("recent", []) if s >= step - WITHIN]
    state["recent"] = [*recent, [step, log_loss]]
    if len(recent) < FEWEST:
        return []
    floor = max(sorted(x for _, x in recent)[len(recent) // 2], ROUNDING)
    if log_loss < floor + TENFOLD:
        return []
    times = [at for at in state.get("times", []) if at >= step - LATELY]
    state["times"] = [*times, step][-OFTEN:]
    usual = len(times) >= OFTEN
    state |= {"since": step, "floor": floor, "peak": log_loss, "row": 1, "told": False, "usual": usual}
    return []


def _followed(state: State, quantity: str, step: int, log_loss: float) -> list[Event]:
    state["peak"] = max(state["peak"], log_loss)
    if log_loss <= state["peak"] - TENFOLD:
        rule = "thrown up tenfold, and a tenth of its peak again"
        event = _event("excursion", state, quantity, step, {"rule": rule, "after": log_loss})
        usual, times = state["usual"], state["times"]
        state.clear()
        state["times"] = times
        return [] if usual else [event]
    state["row"] = state["row"] + 1 if log_loss >= state["floor"] + TENFOLD else 0
    if state["told"] or state["usual"] or state["row"] < IN_A_ROW:
        return []
    state["told"] = True
    rule = f"ten times its median over {WITHIN} steps, for {IN_A_ROW} readings in a row"
    return [_event("shift", state, quantity, step, {"rule": rule, "after": log_loss})]


def _event(kind: Any, state: State, quantity: str, step: int, details: dict[str, Any]) -> Event:
    since = state["since"]
    return Event(
        kind, step, since, "up", quantity, state["peak"] - state["floor"], onset_low=since, onset_high=since,
        details={"before": state["floor"], "peak": state["peak"], **details},
    )  # fmt: skip
