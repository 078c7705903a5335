"""Examples that come to help each other after the training set was fitted: generalization, seen without held-out data.

Gradient coherence is 1 plus how much of what a step does to an example comes from the gradients of the others
(``physics.coherence``). Learned by heart, every example is on its own, or the steps for one undo those for another: it
is 1 or less. Above 1, training on the others would help an example that is left out, which is generalization to first
order. Three things are asked for: that it is above 1 by a minimum effect; that it came there quickly, 1.6 times as
high as at half the steps, or as when the training set was fitted if that is later; and that this lasts for a twentieth
of the steps. Weight decay alone lifts it slowly, in runs that never generalize too, since all examples agree that the
weights should be larger: with shuffled labels to 1.2 at thirty times the steps of memorization. And where the optimizer
is close to being unstable it swings about 1.

How well that tells runs apart, and how early, is in docs/transitions.md.
"""

from __future__ import annotations

import math
from typing import Any

from thermo_monitor.records import Event, Reading

QUANTITY = "fisher/gradient_coherence"
ALONE = 1.0  # every example is learned by itself
EFFECT = 0.1  # minimum effect: a tenth as much from the others as from itself
RISE = 1.6  # factor of the rise
FINENESS = 1.1  # ratio of the steps at which earlier levels are kept
SMOOTH = 5  # readings in the running median that is compared
IN_A_ROW = 3
UNCERTAIN = 0.25  # share of a reading that its standard error may be: of eight examples it is more
LASTING = 0.05  # share of the steps so far for which it has to be so

State = dict[str, Any]


def update(state: State, reading: Reading, fitted: int | None) -> list[Event]:
    """The event that one reading completes.

    Args:
        state: changed in place, empty at first, plain JSON.
        reading: of the gradient coherence.
        fitted: step at which it was clear that the training set is fitted; None before.
    """
    if not math.isfinite(reading.value) or reading.step <= state.get("step", -1):  # seen before the run was resumed
        return []
    if reading.error is not None and reading.error > UNCERTAIN * abs(reading.value):
        return []
    state["step"] = reading.step
    state["last"] = [*state.get("last", []), reading.value][-SMOOTH:]
    if fitted is None or len(state["last"]) < SMOOTH:
        return []
    level = state["level"] = sorted(state["last"])[SMOOTH // 2]
    trail = state.setdefault("trail", [])
    earlier = state["earlier"] = next((value for step, value in trail if step >= reading.step / 2), level)
    if not trail or reading.step >= FINENESS * trail[-1][0]:
        trail.append([reading.step, level])
    if level < ALONE + EFFECT / 3.0:
        state["since"] = reading.step
    risen = level >= ALONE + EFFECT and level >= RISE * max(earlier, 0.0)
    if not risen:
        state["row"], state["begin"] = 0, reading.step
        return []
    state["row"] = state.get("row", 0) + 1
    lasts = state["row"] >= IN_A_ROW and reading.step - state.get("begin", reading.step) >= LASTING * reading.step
    # Where it was never below 1 that is how the task is learned, and no transition.
    if not lasts or state.get("told") or "since" not in state:
        return []
    state["told"] = True
    since = state["since"]
    details = {
        "rule": f"above {ALONE:.0f} and {RISE} times as high as at half the steps, for a twentieth of the steps",
        "before": earlier,
        "after": level,
    }
    return [
        Event(
            "drift", reading.step, since, "up", QUANTITY, math.nan, onset_low=since, onset_high=since, details=details
        )
    ]


def restart(state: State) -> None:
    """What changed by plan from here on is not compared with what was before."""
    for key in ("last", "level", "earlier", "trail", "row", "begin", "since"):
        state.pop(key, None)


def progress(state: State) -> float | None:
    """How far it is on its way, within 0 and 1; None where coherence is not read.

    The smaller of ``coherence / 1.1`` and ``coherence / (1.6 x coherence at half the steps)``: of what is asked for.

    Example:
        >>> state = {}
        >>> for step in range(5):
        ...     events = update(state, Reading(step, QUANTITY, 0.4), fitted=0)
        >>> round(progress(state), 3)
        0.364
    """
    if "level" not in state:
        return None
    level = max(state["level"], 0.0)
    far = level / (ALONE + EFFECT)
    quick = level / (RISE * state["earlier"]) if state["earlier"] > 0.0 else 1.0
    return float(min(far, quick, 1.0))
