"""What the user's schedule does to a run, noticed from the numbers that it sets.

A learning rate that drops by a tenth, a warm-up that ends, a batch that doubles: each changes the curves, and none is a
discovery. A smooth decay is no intervention, however far it goes, and neither is a staircase of steps of a percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

JUMP = 0.1  # relative change at once that counts as an intervention
STEADY = 3  # steps in the same direction that make a trend, and steps at a new value that make it the new value

State = dict[str, Any]
_WORDS = {1: "rises", 0: "is constant", -1: "falls"}


def fresh() -> State:
    """The state that has seen nothing; plain JSON."""
    return {}


def update(state: State, facts: Mapping[str, float]) -> list[str]:
    """Reasons for a declaration that the newest facts give, one sentence each.

    Args:
        state: changed in place.
        facts: by name. A name that begins with ``learning rate``, ``weight decay`` or ``momentum`` is a schedule: it
            may jump or bend. Any other is a setting: it changes when a new value stays.

    Example:
        >>> state = fresh()
        >>> rates = [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.04, 0.04]
        >>> [reason for rate in rates for reason in update(state, {"learning rate": rate})]
        ['learning rate is constant now (it rose)', 'learning rate from 0.4 to 0.04']
    """
    reasons = []
    for name, value in facts.items():
        if not math.isfinite(value):
            continue
        own = state.setdefault(
            name, {"value": value, "change": 0.0, "trend": None, "sign": None, "run": 0, "next": None}
        )
        scheduled = name.startswith(("learning rate", "weight decay", "momentum"))
        reason = _schedule(own, value) if scheduled else _setting(own, value)
        if reason:
            reasons.append(f"{name} {reason}")
    return reasons


def _schedule(own: State, value: float) -> str | None:
    before, own["value"] = own["value"], value
    change = value - before
    last, own["change"] = own["change"], change
    size = max(abs(value), abs(before))
    # What goes on as it did is no jump, though the last steps of a decay to zero halve the rate, and the first of a
    # warm-up double it.
    if own["trend"] is not None and abs(change) > JUMP * size and abs(change) > 4 * abs(last):
        own["sign"], own["run"] = None, 0
        return f"from {before:.3g} to {value:.3g}"
    sign = 0 if abs(change) <= 1e-9 * size else (1 if change > 0 else -1)
    own["run"] = own["run"] + 1 if sign == own["sign"] else 1
    own["sign"] = sign
    if own["run"] < STEADY or sign == own["trend"]:
        return None
    old, own["trend"] = own["trend"], sign
    if old is None:
        return None
    return f"{_WORDS[sign]} now (it {'rose' if old > 0 else 'fell' if old < 0 else 'was constant'})"


def _setting(own: State, value: float) -> str | None:
    if value == own["value"]:
        own["run"], own["next"] = 0, None
        return None
    own["run"] = own["run"] + 1 if value == own["next"] else 1
    own["next"] = value
    if own["run"] < STEADY:  # the last batch of an epoch is smaller, once
        return None
    before, own["value"] = own["value"], value
    own["run"], own["next"] = 0, None
    return f"from {before:g} to {value:g}"
