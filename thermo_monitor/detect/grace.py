"""A declared intervention: its change is expected, so it is measured and explained, and the level is learned again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.detect import alarm, baseline, watch
from thermo_monitor.detect.report import Decision, State, decide, event, raw
from thermo_monitor.detect.settings import Settings
from thermo_monitor.records import Event


def begin(state: State, settings: Settings, step: int, reason: str) -> None:
    """Stop looking for changes during the next ``burn_in / 2`` readings."""
    declared = state["declared"]
    declared.append([step, None, reason])
    del declared[:-8]
    if state["mode"] == "burn_in":
        state["values"], state["steps"] = [], []
        return
    if state["mode"] != "grace":
        low, high, _, _ = watch.expected(state)
        state["grace"] = {"low": low, "high": high, "step": step}
        if state["mode"] == "follow" and state["open"] is None:
            state["grace"]["pending"] = state["follow"]["onset"]
        state["stat"]["frozen"] = state["stat"]["frozen"] or alarm.frozen(state)
    state["grace"]["left"] = max(settings.burn_in // 2, 10)
    state["mode"], state["follow"], state["open"], state["shift"] = "grace", None, None, None
    state["values"], state["steps"] = [], []


def go_on(state: State, settings: Settings, step: int) -> Decision:
    """One more reading; after the last one the level is learned and compared with that before."""
    grace = state["grace"]
    grace["left"] -= 1
    if grace["left"] > 0:
        return decide(state, settings)
    values = state["values"]
    window = np.array(values[len(values) // 4 :])  # the first quarter may still be on its way
    old = state["base"]
    for entry in state["declared"]:
        entry[1] = step if entry[1] is None else entry[1]
    alarm.rebase(state, settings, window, alarm.known(state))
    return decide(state, settings, _explained(state, settings, grace, old, window, step))


def _explained(
    state: State, settings: Settings, grace: dict[str, Any], old: dict[str, Any], window: NDArray[np.float64], step: int
) -> Event | None:
    after = float(np.median(window))
    (before_spread, dependence), (spread, _) = baseline.long_run(old), baseline.long_run(state["base"])
    error = 1.25 * max(before_spread, spread) * math.sqrt(dependence / window.size)
    away = after - grace["high"] if after > grace["high"] else min(after - grace["low"], 0.0)
    ratio = state["base"]["noise"] / old["noise"]
    details = {
        "before": raw(state, 0.5 * (grace["low"] + grace["high"])),
        "after": raw(state, after),
        "spread_ratio": ratio,
    }
    if "pending" in grace:  # a change under way already, of which only the sum with the intervention's is known now
        details["pending"] = grace["pending"]
    dates = (grace["step"], grace["step"], grace["step"])
    if abs(away) > max(4.0 * error, settings.minimum_effect / state["unit"]):
        return event(state, settings, "shift", step, dates, "up" if away > 0 else "down", abs(away) / error, details)
    visible = (
        max(before_spread, spread) * state["unit"] > 0.5 * settings.minimum_effect and min(before_spread, spread) > 1e-9
    )
    if visible and not 0.5 < ratio < 2.0:
        return event(
            state, settings, "variance", step, dates, "up" if ratio > 1 else "down", abs(math.log(ratio)), details
        )
    return None
