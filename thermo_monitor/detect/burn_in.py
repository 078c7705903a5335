"""The first readings: they are kept until there are enough to learn the baseline from, and the units to work in."""

from __future__ import annotations

import math

import numpy as np

from thermo_monitor.detect import alarm, baseline, late
from thermo_monitor.detect.report import Decision, State, decide
from thermo_monitor.detect.settings import Settings

HUGE = 1e100  # in units of the burn-in; beyond, a reading is only "enormous"


def go_on(state: State, settings: Settings, value: float, step: int, announce_late: bool) -> Decision:
    """One more reading; after the last one the detector begins to watch."""
    values, steps = state["values"], state["steps"]
    values.append(value)
    steps.append(step)
    if len(values) < settings.burn_in:
        return decide(state, settings)
    zero = float(np.median(values))
    size = max(max(abs(0.5 * v - 0.5 * zero) for v in values), settings.minimum_effect, baseline.ROUNDING * abs(zero))
    # A power of two, so that dividing by it is exact and a rescaled series gives the same decisions.
    unit = 2.0 ** min(math.floor(math.log2(size)), 1000) if size > 0.0 else 1.0
    state["zero"], state["unit"], state["origin"] = zero, unit, zero / unit
    state["values"] = [min(max((v - zero) / unit, -HUGE), HUGE) for v in values]
    state["opening"] = late.opening(state["values"], steps)
    alarm.rebase(state, settings, np.array(state["values"]), None)
    for entry in state["declared"]:
        entry[1] = step if entry[1] is None else entry[1]
    if announce_late:
        state["queue"] = [found.to_json() for found in late.find(state, settings)]
    return decide(state, settings)
