"""From an alarm to an event: the change is dated, followed while that is needed, judged, and the baseline learned anew.

A gradual alarm in noise is announced at once. One that holds a large innovation may be a spike, one of the spread may
be outliers, and one on a nearly noiseless curve may be a bend: those wait until the level has settled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.detect import baseline, focus, follow, watch
from thermo_monitor.detect.report import Decision, State, decide, followed
from thermo_monitor.detect.settings import Settings
from thermo_monitor.records import Event, Kind
from thermo_monitor.streaming import autoregression, trend

WIDE = 10  # waits after which a change that has not settled is a drift
ENDLESS = 30  # waits after which it is not followed any longer
FOOT = 0.1  # share of its way up to which a change may have been announced already, its foot taken for the whole
BEFORE = 30  # readings whose median is the level before the onset


def frozen(state: State) -> list[float]:
    """The expected band, no longer learning: ``[readings since, level, line, slope, weight]``."""
    low, high, slope, weight = watch.expected(state)
    return [0, low, high, slope, weight] if slope > 0 else [0, high, low, slope, weight]


def rebase(state: State, settings: Settings, values: NDArray[np.float64], known: tuple[float, float] | None) -> None:
    """Learn the baseline from ``values`` and start the statistics again."""
    magnitude = abs(state["origin"]) + float(np.max(np.abs(values)))
    state["base"] = baseline.estimate(values, settings.minimum_effect / state["unit"], magnitude, known)
    state["stat"] = baseline.fresh_statistics()
    state["mode"], state["follow"], state["open"], state["grace"] = "watch", None, None, None


def known(state: State) -> tuple[float, float]:
    """The lag-one coefficient, which a change of level leaves as it is, and how much it should weigh."""
    pairs = state["base"]["pairs"]
    return autoregression.value(pairs), min(pairs[0], 500.0)


def dated(state: State, step: int) -> tuple[int, int, int, int]:
    """The strongest of the four statistics, and the onset that it suggests with its interval."""
    stat = state["stat"]
    terms = stat["terms"]
    strongest = max(range(4), key=lambda i: max(terms[i]))
    sums = (stat["sums"][0], -stat["sums"][1], stat["sums"][2], -stat["sums"][2])
    found = focus.date(stat["starts"][strongest], stat["count"], sums[strongest])
    return (strongest, found.onset, found.low, found.high) if found else (strongest, step, step, step)


def sound(state: State, settings: Settings, step: int, verdict: Mapping[str, Any] | None = None) -> Decision:
    """The statistic has crossed its threshold: date the change and announce or follow it.

    Args:
        state: changed in place.
        settings: of the detector.
        step: of the alarm.
        verdict: what an outer decision knows better: ``low``, ``high``, ``evidence``, and ``facts`` for the details.
    """
    stat = state["stat"]
    strongest, onset, low, high = dated(state, step)
    noisy = is_noisy(state, settings)
    track = _track(state, settings, onset, noisy)
    track |= {
        "onset": onset,
        "low": low,
        "high": high,
        "evidence": stat["log_sr"],
        "variance": strongest >= 2,
        "up": strongest in (0, 2),
        "warned": False,
        "noisy": noisy,
        "least": settings.wait // 2 if noisy else settings.wait,
        "spike": state["spike"] is not None and onset - state["spike"] <= settings.wait,
    }
    track |= verdict or {}
    state["mode"], state["follow"], state["values"] = "follow", track, state["values"]
    sharp = stat["count"] - stat["sharp"] <= watch.SHARP_FOR
    if strongest >= 2 or sharp or not noisy:
        return decide(state, settings)
    state["open"] = {"step": step}
    return decide(state, settings, followed(state, settings, "shift", step, None, float("nan")))


def is_noisy(state: State, settings: Settings) -> bool:
    """Whether noise, and not the minimum effect, sets the scale of the test."""
    base = state["base"]
    return bool(base["noise"] >= (1.0 - base["phi"]) * settings.minimum_effect / state["unit"])


def _track(state: State, settings: Settings, onset: int, noisy: bool) -> dict[str, Any]:
    values, steps, stat = state["values"], state["steps"], state["stat"]
    since = next((i for i, s in enumerate(steps) if s >= onset), len(steps) - 1)
    stat["frozen"] = stat["frozen"] or frozen(state)
    low, high, _, _ = watch.expected(state)
    earlier = values[max(0, since - (BEFORE if noisy else settings.wait // 2)) : since]
    slope, before = 0.0, 0.5 * (low + high)
    if len(earlier) >= 5:
        before = float(np.median(earlier))
        if not noisy:
            # Hardly any noise: the line through the last readings before the onset is known better than the band. It
            # goes on only as far as the long trend agrees, or half of a transition would be the trend of the rest.
            slope, before = follow.line(earlier)
            long = stat["frozen"][3]
            slope = min(abs(slope), abs(long)) * (1.0 if slope > 0 else -1.0) if slope * long > 0 else 0.0
            stat["frozen"] = [0, before, before + slope * (len(values) - since), slope, 4.0 * settings.wait]
            low, high, _, _ = watch.expected(state)
    return follow.begin(values[since:], steps[since:], before, slope, (low, high))


def go_on(state: State, settings: Settings, x: float, step: int) -> Decision:
    """One more reading of a change that is followed."""
    track, base = state["follow"], state["base"]
    effect = settings.minimum_effect / state["unit"]
    follow.read(state, track, x, step, effect, settings.wait)
    elapsed = track["elapsed"]
    if elapsed < settings.wait or (elapsed - settings.wait) % max(settings.wait // 4, 1):
        return decide(state, settings)
    announced = state["open"]
    if not follow.settled(base, track, settings.wait, effect):
        if elapsed > ENDLESS * settings.wait:
            rebase(state, settings, latest(state), known(state))
        elif elapsed > WIDE * settings.wait and announced is None and not track["warned"]:
            track["warned"] = True
            return decide(state, settings, followed(state, settings, "drift", step, None, float("nan")))
        return decide(state, settings)

    verdict = follow.judge(state, track, settings.wait, effect)
    if announced is not None:
        width = follow.width(track, verdict.after)
        completed = followed(state, settings, "shift", announced["step"], verdict, width)
        state["shift"] = [track["onset"], track["low"], track["before"], verdict.after]
        rebase(state, settings, latest(state), known(state))
        return decide(state, settings, None, completed)
    event: Event | None = None
    grown: Event | None = None
    if verdict.kind == "shift" and _has_grown(state, track, verdict):
        track["onset"], track["low"], track["before"], _ = state["shift"]
        track["facts"] = {**track.get("facts", {}), "grown": True}
        grown = followed(state, settings, "shift", step, verdict, follow.width(track, verdict.after))
    elif verdict.kind != "none":
        kind: Kind = verdict.kind
        event = followed(state, settings, kind, step, verdict, verdict.width)
    if verdict.kind in ("shift", "variance"):
        if verdict.kind == "shift":
            state["shift"] = [track["onset"], track["low"], track["before"], verdict.after]
        rebase(state, settings, latest(state), known(state))
        state["spike"] = None
    else:
        state["spike"] = step if verdict.kind == "excursion" else state["spike"]
        trend.skip(base["line"], state["stat"]["frozen"][0])
        state["stat"] = baseline.fresh_statistics()
        state["mode"], state["follow"] = "watch", None
    return decide(state, settings, event, grown)


def _has_grown(state: State, track: follow.Follow, verdict: follow.Verdict) -> bool:
    """Whether the shift announced last was only the foot of this one: small beside it, and no further than its width.

    A wide sigmoid in little noise stands out long before it is under way, and lies nearly still for a while after.
    """
    if state["shift"] is None:
        return False
    onset, _, before, after = state["shift"]
    way, first, steps = verdict.after - before, after - before, track["steps"]
    pace = (steps[-1] - steps[0]) / max((len(steps) - 1) * track["size"], 1)  # steps from reading to reading
    return 0.0 < first / way <= FOOT and track["onset"] - onset <= verdict.width * pace if way else False


def latest(state: State) -> NDArray[np.float64]:
    """The readings to learn the new level from: the tail of the trail."""
    track = state["follow"]
    count = len(follow.tail(track, track["least"])) * track["size"]
    return np.array(state["values"][-max(count, 10) :])
