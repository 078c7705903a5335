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


def update(state: State, facts: Mapping[str, float], step: int | None = None) -> list[str]:
    """Reasons for a declaration that the newest facts give, one sentence each.

    Args:
        state: changed in place.
        facts: by name. A name that begins with ``learning rate``, ``weight decay`` or ``momentum`` is a schedule: it
            may jump or bend. Any other is a setting: it changes when a new value stays.
        step: of the optimizer, for ``explanation``.

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
        reason = _schedule(own, value) if scheduled else _setting(own, value, step)
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
    own["run"] = min(own["run"] + 1, STEADY) if sign == own["sign"] else 1
    own["sign"] = sign
    if own["run"] < STEADY or sign == own["trend"]:
        return None
    old, own["trend"] = own["trend"], sign
    if old is None:
        return None
    return f"{_WORDS[sign]} now (it {'rose' if old > 0 else 'fell' if old < 0 else 'was constant'})"


def explanation(state: State, onset: int, low: int, high: int) -> str | None:
    """The setting that explains a change that began at a step, or between two; None if there is none.

    A setting counts as changed once its new value has stayed, but what it does to the curves begins at the first step
    that has it.

    Example:
        >>> state = fresh()
        >>> for step, size in enumerate([64, 64, 256]):
        ...     _ = update(state, {"batch size": size}, step)
        >>> explanation(state, 2, 2, 2), explanation(state, 1, 0, 1)
        ('batch size from 64 to 256', None)
    """
    for name, own in state.items():
        since, until = own.get("since"), own.get("until")
        if since is None:
            continue
        if since <= onset <= (math.inf if until is None else until) or low <= since <= high:
            return f"{name} from {own['before']:g} to {own['next' if until is None else 'value']:g}"
    return None


def _setting(own: State, value: float, step: int | None) -> str | None:
    if value == own["value"]:
        own["run"], own["next"] = 0, None
        if own.get("until") is None:
            own["since"] = None  # the other value was there once, and is forgotten
        return None
    if value != own["next"]:
        own |= {"run": 0, "since": step, "until": None, "before": own["value"]}
    own["run"] += 1
    own["next"] = value
    if own["run"] < STEADY:  # the last batch of an epoch is smaller, once
        return None
    before, own["value"] = own["value"], value
    own |= {"run": 0, "next": None, "until": step}
    return f"from {before:g} to {value:g}"
