"""The online detector: a reading goes in, a decision comes out, and the state in between is plain JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thermo_monitor.detect import baseline, focus, follow, watch
from thermo_monitor.detect.eprocess import NOTHING
from thermo_monitor.records import Direction, Event, Kind

State = dict[str, Any]
_HUGE = 1e100  # in units of the burn-in; beyond, a reading is only "enormous"


@dataclass(frozen=True, slots=True)
class Decision:
    """What one reading led to.

    Attributes:
        statistic: natural logarithm of the detection statistic.
        threshold: natural logarithm of the alarm threshold.
        event: the change that this reading confirmed, or None.
        completed: an event that was announced while its change was still under way, again, now that the level has settled:
            its details have ``after`` and ``width``.
    """

    statistic: float
    threshold: float
    event: Event | None = None
    completed: Event | None = None


@dataclass(frozen=True)
class OnlineDetector:
    """Finds changes of level, spread and trend in a series of readings, one reading at a time.

    Args:
        arl: mean number of readings to a false alarm.
        minimum_effect: smallest change of level worth an event, in the units of the readings.
        burn_in: readings from which the baseline is learned.
        persistence: readings that a sharp change must persist, ``max(20, .6 burn_in)`` unless given.
        patience: non-finite readings in a row that make a ``divergence``, ``max(10, burn_in / 4)`` unless given.
        announce_late: whether what :meth:`late` finds is also given out by :meth:`update` after the burn-in.
    """

    arl: float = 10_000.0
    minimum_effect: float = 0.0
    burn_in: int = 200
    persistence: int | None = None
    patience: int | None = None
    announce_late: bool = False
    _wait: int = field(init=False, repr=False, compare=False, default=0)
    _patience: int = field(init=False, repr=False, compare=False, default=0)
    _threshold: float = field(init=False, repr=False, compare=False, default=0.0)

    def __post_init__(self) -> None:
        """Check the options."""
        if not (math.isfinite(self.arl) and self.arl > 1):
            raise ValueError(f"arl is a number of readings above 1 and finite, such as 10_000; got {self.arl!r}")
        if not (math.isfinite(self.minimum_effect) and self.minimum_effect >= 0):
            raise ValueError(f"minimum_effect is a finite size, 0 or larger; got {self.minimum_effect!r}")
        if isinstance(self.burn_in, bool) or not isinstance(self.burn_in, int) or self.burn_in < 10:
            raise ValueError(f"burn_in is a whole number of readings, 10 or more; got {self.burn_in!r}")
        for name in ("persistence", "patience"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 4):
                raise ValueError(f"{name} is a whole number of readings, 4 or more, or None; got {value!r}")
        wait = self.persistence if self.persistence is not None else max(20, int(0.6 * self.burn_in))
        object.__setattr__(self, "_wait", wait)
        object.__setattr__(self, "_patience", self.patience if self.patience is not None else max(10, self.burn_in // 4))
        object.__setattr__(self, "_threshold", math.log(self.arl))

    def init(self) -> State:
        """The state that has seen nothing."""
        return {
            "mode": "burn_in",
            "last_step": None,
            "missing": 0,
            "overlap": 0,
            "gap": 0,
            "zero": None,
            "unit": 1.0,
            "origin": 0.0,
            "values": [],
            "steps": [],
            "opening": {"values": [], "steps": []},
            "base": None,
            "stat": None,
            "follow": None,
            "open": None,
            "grace": None,
            "declared": [],
            "spike": None,
        }

    def update(self, state: State, value: float, step: int) -> tuple[State, Decision]:
        """Fold one reading into the state, which is changed in place and returned.

        Args:
            state: from :meth:`init`, from an earlier call, or read back from JSON.
            value: the reading; one that is not finite is counted and left out.
            step: its step; a reading whose step is not above the last one is counted and left out.

        Returns:
            The state and the decision.
        """
        step = int(step)
        last = state["last_step"]
        if last is not None and step <= last:
            state["overlap"] += 1
            return state, self._decide(state)
        state["last_step"] = step
        value = float(value)
        if not math.isfinite(value):
            state["missing"] += 1
            state["gap"] += 1
            event = None
            if state["gap"] == self._patience:
                event = self._event("divergence", state, step, onset=step, direction="none", details={"missing": state["gap"]})
            return state, self._decide(state, event)
        gap, state["gap"] = state["gap"], 0
        if state["mode"] == "watch":
            zero = state["zero"]
            x = (value - zero) / state["unit"]
            if not -_HUGE < x < _HUGE:
                x = math.copysign(_HUGE, x)
            values, steps = state["values"], state["steps"]
            values.append(x)
            steps.append(step)
            if len(values) > 3 * self._wait:
                del values[: self._wait], steps[: self._wait]
            statistic = watch.read(state, x, step, gap, 0.5 * self._threshold, self.minimum_effect / state["unit"])
            if statistic < self._threshold:
                return state, Decision(statistic, self._threshold)
            return self._alarm(state, step)
        if state["mode"] == "burn_in":
            return self._burn(state, value, step)
        x = (value - state["zero"]) / state["unit"]
        x = x if -_HUGE < x < _HUGE else math.copysign(_HUGE, x)
        state["values"].append(x)
        state["steps"].append(step)
        if len(state["values"]) > 3 * self._wait:
            del state["values"][: self._wait], state["steps"][: self._wait]
        if gap:
            watch.let_pass(state, gap)
        if state["mode"] == "follow":
            return self._follow(state, x, step)
        return self._grace(state, step)

    def declare(self, state: State, step: int, reason: str) -> State:
        """Announce an intervention at ``step``: what changes now is explained by it.

        The level and the spread are learned again during the next ``burn_in / 2`` readings; an event dated inside them
        carries the phase ``scheduled``.
        """
        declared = state["declared"]
        declared.append([int(step), None, str(reason)])
        del declared[:-8]
        if state["mode"] == "burn_in":
            state["values"], state["steps"] = [], []
        else:
            low, high, _, _ = watch.expected(state)
            if state["mode"] == "watch":
                state["stat"]["frozen"] = state["stat"]["frozen"] or self._freeze(state)
            if state["mode"] != "grace":
                state["grace"] = {"low": low, "high": high, "left": 0, "step": int(step), "reason": str(reason)}
            state["grace"]["left"] = max(self.burn_in // 2, 10)
            state["mode"], state["follow"], state["open"] = "grace", None, None
            state["values"], state["steps"] = [], []
        return state

    # ------------------------------------------------------------------------------------------------ burn-in
    def _burn(self, state: State, value: float, step: int) -> tuple[State, Decision]:
        values, steps = state["values"], state["steps"]
        values.append(value)
        steps.append(step)
        if len(values) >= self.burn_in:
            zero = float(np.median(values))
            size = max(max(abs(v - zero) for v in values), self.minimum_effect, baseline.ROUNDING * abs(zero))
            unit = 2.0 ** math.floor(math.log2(size)) if 0.0 < size < math.inf else 1.0
            state["opening"] = {"values": list(values), "steps": list(steps)}
            state["zero"], state["unit"], state["origin"] = zero, unit, zero / unit
            state["values"] = [(v - zero) / unit for v in values]
            self._rebase(state, np.array(state["values"]), None)
            for entry in state["declared"]:
                entry[1] = step if entry[1] is None else entry[1]
        return state, self._decide(state)

    def _rebase(self, state: State, values: np.ndarray[Any, np.dtype[np.float64]], known: tuple[float, float] | None) -> None:
        magnitude = abs(state["origin"]) + float(np.max(np.abs(values)))
        state["base"] = baseline.estimate(values, self.minimum_effect / state["unit"], magnitude, known)
        state["stat"] = baseline.fresh_statistics()
        state["mode"], state["follow"], state["open"], state["grace"] = "watch", None, None, None

    @staticmethod
    def _freeze(state: State) -> list[float]:
        low, high, slope, weight = watch.expected(state)
        level, ahead = (low, high) if slope > 0 else (high, low)
        return [0, level, ahead, slope, weight]

    # -------------------------------------------------------------------------------------------------- alarm
    def _alarm(self, state: State, step: int) -> tuple[State, Decision]:
        stat, base = state["stat"], state["base"]
        logs, statistic = stat["logs"], stat["log_sr"]
        strongest = max(range(4), key=lambda i: max(logs[i]))
        signs = (stat["sums"][0], -stat["sums"][1], stat["sums"][2], -stat["sums"][2])
        found = focus.date(stat["starts"][strongest], stat["count"], signs[strongest])
        onset, low, high = (found.onset, found.low, found.high) if found else (step, step, step)
        values, steps = state["values"], state["steps"]
        since = next((i for i, s in enumerate(steps) if s >= onset), len(steps) - 1)
        edge_low, edge_high, _, _ = watch.expected(state)
        effect = self.minimum_effect / state["unit"]
        noisy = base["noise"] >= (1.0 - base["phi"]) * effect
        stat["frozen"] = stat["frozen"] or self._freeze(state)
        earlier = values[max(0, since - (30 if noisy else self._wait // 2)) : since]
        before = float(np.median(earlier)) if len(earlier) >= 5 else 0.5 * (edge_low + edge_high)
        slope = 0.0
        if not noisy and len(earlier) >= 5:
            # Hardly any noise: the line through the last readings before the onset is known better than the band.
            # Only as far as the long trend agrees with its slope does it go on.
            slope, before = follow.line(earlier)
            trend = stat["frozen"][3]
            slope = math.copysign(min(abs(slope), abs(trend)), slope) if slope * trend > 0 else 0.0
            stat["frozen"] = [0, before, before + slope * (len(values) - since), slope, 4.0 * self._wait]
        edge_low, edge_high, _, _ = watch.expected(state)
        track = follow.begin(values[since:], steps[since:], before, 0.0 if noisy else slope, (edge_low, edge_high))
        track.update(
            {
                "least": self._wait // 2 if noisy else self._wait,
                "onset": onset,
                "low": low,
                "high": high,
                "evidence": statistic,
                "variance": strongest >= 2,
                "up": strongest in (0, 2),
                "warned": False,
            }
        )
        state["mode"], state["follow"] = "follow", track
        sharp = stat["count"] - stat["sharp"] <= watch.SHARP_FOR
        if strongest >= 2 or sharp or not noisy:
            return state, self._decide(state)
        event = self._level_event(state, "shift", step, math.nan, math.nan, math.nan)
        track["announced"] = True
        state["open"] = {"kind": "shift", "step": step}
        return state, self._decide(state, event)

    def _follow(self, state: State, x: float, step: int) -> tuple[State, Decision]:
        track, base = state["follow"], state["base"]
        effect = self.minimum_effect / state["unit"]
        follow.read(state, track, x, step, effect)
        elapsed = track["elapsed"]
        if elapsed < self._wait or (elapsed - self._wait) % max(self._wait // 4, 1):
            return state, self._decide(state)
        announced = state["open"] is not None
        if not follow.settled(base, track, self._wait, effect):
            if elapsed > 30 * self._wait:
                self._rebase(state, self._latest(state), self._known(state))
            elif elapsed > 10 * self._wait and not announced and not track["warned"]:
                track["warned"] = True
                return state, self._decide(state, self._level_event(state, "drift", step, math.nan, math.nan, math.nan))
            return state, self._decide(state)
        verdict = follow.judge(state, track, self._wait, effect)
        if announced:
            event = self._level_event(state, "shift", state["open"]["step"], verdict.after, follow.width(track, verdict.after), verdict.ratio)
            self._rebase(state, self._latest(state), self._known(state))
            return state, self._decide(state, None, event)
        event = None
        if verdict.kind != "none":
            kind: Kind = verdict.kind  # type: ignore[assignment]
            event = self._level_event(state, kind, step, verdict.after, verdict.width, verdict.ratio)
        if verdict.kind in ("shift", "variance"):
            self._rebase(state, self._latest(state), self._known(state))
        else:
            base["line"] = watch.trend.skip(base["line"], state["stat"]["frozen"][0])
            state["stat"] = baseline.fresh_statistics()
            state["mode"], state["follow"] = "watch", None
        return state, self._decide(state, event)

    def _latest(self, state: State) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The readings to learn the new level from: the tail of the trail."""
        track = state["follow"]
        count = len(follow.tail(track, track["least"])) * track["size"]
        return np.array(state["values"][-max(count, 10) :])

    @staticmethod
    def _known(state: State) -> tuple[float, float]:
        pairs = state["base"]["pairs"]
        return watch.autoregression.value(pairs), min(pairs[0], 500.0)

    def _grace(self, state: State, step: int) -> tuple[State, Decision]:
        grace = state["grace"]
        grace["left"] -= 1
        if grace["left"] > 0:
            return state, self._decide(state)
        values = state["values"]
        window = np.array(values[len(values) // 4 :])
        old = state["base"]
        known = self._known(state)
        state["declared"][-1][1] = step
        self._rebase(state, window, known)
        return state, self._decide(state, self._declared_event(state, grace, old, window, step))

    def _declared_event(
        self, state: State, grace: dict[str, Any], old: dict[str, Any], window: np.ndarray[Any, np.dtype[np.float64]], step: int
    ) -> Event | None:
        after = float(np.median(window))
        spread, dependence = baseline.long_run(old)
        error = 1.25 * max(spread, baseline.long_run(state["base"])[0]) * math.sqrt(dependence / window.size)
        away = after - grace["high"] if after > grace["high"] else after - grace["low"] if after < grace["low"] else 0.0
        ratio = state["base"]["raw"] / old["raw"]
        details = {"reason": grace["reason"], "minimum_effect": self.minimum_effect, "threshold": self._threshold}
        details |= {
            "before": self._out(state, 0.5 * (grace["low"] + grace["high"])),
            "after": self._out(state, after),
            "ratio": ratio,
        }
        if abs(away) > max(4.0 * error, self.minimum_effect / state["unit"]):
            return self._event("shift", state, step, grace["step"], "up" if away > 0 else "down", details)
        if not 0.6 < ratio < 1 / 0.6 and min(old["raw"], state["base"]["raw"]) > 1e-9:
            return self._event("variance", state, step, grace["step"], "up" if ratio > 1 else "down", details)
        return None

    # ------------------------------------------------------------------------------------------------- events
    @staticmethod
    def _out(state: State, x: float) -> float:
        return float(state["zero"] + x * state["unit"])

    def _level_event(self, state: State, kind: Kind, step: int, after: float, width: float, ratio: float) -> Event:
        track = state["follow"]
        up = track["up"]
        if kind == "variance":
            up = ratio > 1
        elif kind == "excursion":
            up = track["peak"] > 0
        elif not math.isnan(after):
            up = after > track["before"]
        elif track["blocks"]:
            up = up if not track["variance"] else track["blocks"][-1] > track["before"]
        details: dict[str, Any] = {
            "before": self._out(state, track["before"]),
            "minimum_effect": self.minimum_effect,
            "threshold": self._threshold,
        }
        if not math.isnan(after):
            details["after"] = self._out(state, after)
            details["peak"] = self._out(state, track["before"] + track["peak"])  # before, plus the largest distance from the band
        if not math.isnan(width):
            details["width"] = width
        if not math.isnan(ratio) and not 0.6 < ratio < 1 / 0.6:
            details["spread_ratio"] = ratio
        if kind == "shift" and not math.isnan(after):
            details["excursion"] = abs(track["peak"]) > 2.0 * abs(after - track["before"])
        event = self._event(kind, state, step, track["onset"], "up" if up else "down", details)
        return _with(event, onset_low=track["low"], onset_high=track["high"], evidence=track["evidence"])

    def _event(self, kind: Kind, state: State, step: int, onset: int, direction: Direction, details: dict[str, Any]) -> Event:
        phase = "unexplained"
        for begin, end, reason in state["declared"]:
            if begin <= onset <= (end if end is not None else step):
                phase = "scheduled"
                details = {**details, "reason": reason}
        statistic = state["stat"]["log_sr"] if state["stat"] else math.nan
        return Event(
            kind=kind,
            step=step,
            onset=onset,
            direction=direction,
            evidence=statistic,
            phase=phase,  # type: ignore[arg-type]
            onset_low=onset,
            onset_high=onset,
            details=details,
        )

    def _decide(self, state: State, event: Event | None = None, completed: Event | None = None) -> Decision:
        statistic = state["stat"]["log_sr"] if state["stat"] else NOTHING
        return Decision(statistic, self._threshold, event, completed)


def _with(event: Event, **changes: Any) -> Event:
    from dataclasses import replace

    return replace(event, **changes)
