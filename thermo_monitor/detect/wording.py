"""An event in one sentence for a person, and how urgent it is."""

from __future__ import annotations

import math

from thermo_monitor import quantities
from thermo_monitor.records import Event, Level

_VERBS = {"up": "rose", "down": "fell", "none": "changed"}


def level(event: Event) -> Level:
    """``error``: the run may be lost; ``warning``: worth a look; ``info``: for the record."""
    if event.kind in ("divergence", "collapse"):
        return "error"
    if event.phase == "scheduled" or event.kind == "excursion" or event.details.get("late"):
        return "info"
    drifts = event.kind == "drift" and event.phase != "generalization" and "held_out" not in event.details
    if event.phase == "unexplained" or drifts:
        return "info"
    return "warning"


def sentence(event: Event) -> str:
    """What happened, when, and what it looks like."""
    entry = quantities.REGISTRY.get(event.quantity)
    name = entry.name if entry else event.quantity.replace("val/", "held-out ", 1)
    when = f"step {event.onset}"
    if event.onset_low is not None and event.onset_high is not None and event.onset_low < event.onset_high:
        when = f"between steps {event.onset_low} and {event.onset_high}"
    at = when if when.startswith("between") else f"at {when}"
    what = {
        "divergence": f"the {name} is not finite since {when}",
        "collapse": f"{name} collapsed {at}",
        "excursion": f"{name} was thrown {event.direction} {at} and came back",
        "variance": f"the spread of {name} {_VERBS[event.direction]} {at}",
        "drift": f"{name} drifts {event.direction}{_levels(event)}, since {when}",
    }.get(event.kind, f"{name} {_VERBS[event.direction]}{_levels(event)} {at}")
    looks = "" if event.phase == "unexplained" else f"; looks like {event.phase}"
    if event.phase == "scheduled":
        looks = f"; explained by: {event.details.get('reason', 'a declared intervention')}"
    if event.details.get("held_out") == "overfitting":
        looks = "; looks like overfitting"
    said = (event.details.get("validation") or {}).get("confirms")
    if said is not None and "held_out" not in event.details:
        looks += ", which held-out metrics confirm" if said else ", which held-out metrics do not confirm"
    late = " (found late)" if event.details.get("late") else ""
    return f"{what}{late}{looks}"


def _levels(event: Event) -> str:
    """Levels before and after, in the unit of the quantity."""
    before, after = event.details.get("before"), event.details.get("after")
    if not isinstance(before, float) or not isinstance(after, float):
        return ""
    entry = quantities.REGISTRY.get(event.quantity)
    if entry is not None and entry.scale == "log":
        before, after = math.exp(min(before, 700.0)), math.exp(min(after, 700.0))
    return f" from {before:.3g} to {after:.3g}"
