"""Changes inside the burn-in, found when it is over: too late to warn, not too late to be known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.detect.follow import begin, width
from thermo_monitor.detect.offline import segment
from thermo_monitor.detect.report import State, event
from thermo_monitor.detect.settings import Settings
from thermo_monitor.records import Direction, Event

KEPT = 200  # readings of the burn-in that stay in the state; of a longer one, block means
FLAT = 0.5  # share of the way that both sides together may move


def opening(values: list[float], steps: list[int]) -> dict[str, list[float] | list[int]]:
    """What is kept of the burn-in: the readings, or their block means, to five digits.

    Example:
        >>> opening([0.25, 0.5], [0, 1])
        {'values': [0.25, 0.5], 'steps': [0, 1]}
    """
    size = -(-len(values) // KEPT)
    whole = len(values) // size * size
    means = np.array(values[:whole]).reshape(-1, size).mean(axis=1)
    return {"values": [round(float(x), 5) for x in means], "steps": steps[:whole:size]}


def find(state: State, settings: Settings) -> list[Event]:
    """Shifts inside the burn-in, with ``details['late']``; see :meth:`OnlineDetector.late`."""
    if state["mode"] == "burn_in":
        x, steps = np.array(state["values"]), state["steps"]
        zero, unit = 0.0, 1.0
    else:
        x, steps = np.array(state["opening"]["values"]), state["opening"]["steps"]
        zero, unit = state["zero"], state["unit"]
    if len(x) < 8:
        return []
    changes = segment(x, confidence=True)
    edges = [0, *(change.index for change in changes), len(x)]
    found = []
    for change, start, end in zip(changes, edges, edges[2:], strict=False):
        before, after = x[start : change.index], x[change.index : end]
        way = float(np.median(after) - np.median(before))
        if abs(way) * unit < settings.minimum_effect or way == 0.0 or _moved(before) + _moved(after) > FLAT * abs(way):
            continue
        track = begin(x[start:end].tolist(), steps[start:end], float(np.median(before)), 0.0, (0.0, 0.0))
        details = {
            "late": True,
            "before": zero + float(np.median(before)) * unit,
            "after": zero + float(np.median(after)) * unit,
            "width": width(track, float(np.median(after))),
            "votes": list(change.votes),
        }
        if change.doubt:
            details["doubt"] = change.doubt
        dates = (steps[change.index], steps[change.low], steps[change.high])
        direction: Direction = "up" if way > 0 else "down"
        found.append(event(state, settings, "shift", state["last_step"], dates, direction, float("nan"), details))
    return found


def _moved(side: NDArray[np.float64]) -> float:
    """How far the level moves within one side; on a smooth trend, as far as from one side to the other."""
    half = len(side) // 2
    return abs(float(np.median(side[half:]) - np.median(side[:half]))) if half else 0.0
