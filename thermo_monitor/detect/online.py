"""The online detector: a reading goes in, a decision comes out, and the state in between is plain JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from thermo_monitor.detect import alarm, burn_in, grace, late, watch
from thermo_monitor.detect.report import Decision as Decision
from thermo_monitor.detect.report import State, decide, event
from thermo_monitor.detect.settings import Settings, resolve
from thermo_monitor.records import Event


@dataclass(frozen=True)
class OnlineDetector:
    """Finds changes of level, spread and trend in a series of readings, one reading at a time.

    1. After ``burn_in`` readings the baseline is known: a line, the lag-one coefficient phi of the noise and the size
       sigma of its innovations. Every later reading refines it while nothing is suspected.
    2. A reading is expected between the level of the past and its line continued (``baseline``); the distance from that
       band is whitened, ``u_t = r_t - phi r_{t-1}``, divided by sigma and clipped at 3.
    3. Mixture Shiryaev-Roberts statistics (``eprocess``) add up the evidence for a level above, a level below, a larger
       and a smaller spread. Their mean is compared with ``arl``: that alone bounds the rate of false alarms.
    4. An alarm is dated by functional pruning (``focus``) and, if it may be a spike or a bend, followed until the level
       has settled (``follow``). ``shift``, ``variance``, ``excursion``, ``drift`` and ``divergence`` are told apart by
       what is left. An event is announced once.

    *Run length.* The bound holds for a known baseline; that it is estimated is paid for by a dead band of
    ``1.5 / sqrt(effective readings)`` innovation standard deviations. Mean readings to a false alarm of the statistic
    that level and spread share, with 90 % intervals, from ``benchmarks/run_length.py`` (1.4 to 1.9 million readings of
    each noise at 10,000, 6 million at 100,000), and confirmed events for each 10,000 readings:

    ====================  =====================  =========  ===================  =========
    noise                 ``arl=10_000``         confirmed  ``arl=100_000``      confirmed
    ====================  =====================  =========  ===================  =========
    independent, normal   95,000 (65k, 145k)     .06        above 2 million      0
    AR(1), phi = .5       71,000 (51k, 102k)     .11        above 2 million      0
    AR(1), phi = .9       21,000 (17k, 27k)      .38        1.9M (.7M, 7.1M)     .002
    independent, t3       112,000 (74k, 179k)    .03        2.9M (.9M, 16M)      .002
    AR(1), .9, t3         274,000 (146k, 585k)   .02        1.9M (.7M, 7.1M)     .002
    ====================  =====================  =========  ===================  =========

    The promise is kept with room to spare: clipping, the band and the dead band all err on the side of silence.

    *Minimum effect.* With ``minimum_effect=0`` every change that stands out of the noise counts, which is right for
    mini-batch series. A full-batch curve has hardly any noise and each of its bends would count: there the minimum
    effect sets the scale, an alarm waits until the level has settled, and a change is a ``shift`` if the level differs
    by the minimum effect from where it was *and* from where its trend would have taken it.

    *Short runs.* ``burn_in`` may be as small as 20 or 30. The price: until more readings come, the dead band is about
    .3 innovation standard deviations at 30 readings (.1 at 200), phi is raised by its bias and half a standard error
    (from .9 to .98 at 30) and sigma by a tenth, so that small changes early in the run are missed rather than
    invented. Mean run length then: 159,000 for independent readings and 42,000 for phi = .9, at 20 as at 30. What
    changed inside the burn-in is found by :meth:`late`.

    Args:
        arl: mean number of readings to a false alarm, at least.
        minimum_effect: smallest change of level worth an event, in the units of the readings (which the caller has
            transformed: a logarithm turns a factor of 1.25 into ``log(1.25)``).
        burn_in: readings from which the baseline is learned, 10 or more; no alarm before.
        persistence: readings that a sharp change must persist; ``.6 burn_in`` within 20 and 120 unless given.
        patience: non-finite readings in a row that make a ``divergence``; ``max(10, burn_in / 4)`` unless given.
        announce_late: whether :meth:`update` also gives out, one by one after the burn-in, what :meth:`late` finds.

    Raises:
        ValueError: if an option is out of its range.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).standard_normal(1000)
        >>> detector = OnlineDetector(arl=10_000)
        >>> state = detector.init()
        >>> for step, value in enumerate(noise + 3.0 * (np.arange(1000) >= 600)):
        ...     state, decision = detector.update(state, value, step)
        ...     if decision.event is not None:
        ...         print(decision.event.kind, decision.event.onset, decision.event.direction)
        shift 600 up
    """

    arl: float = 10_000.0
    minimum_effect: float = 0.0
    burn_in: int = 200
    persistence: int | None = None
    patience: int | None = None
    announce_late: bool = False
    _settings: Settings = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options."""
        options = (self.arl, self.minimum_effect, self.burn_in, self.persistence, self.patience)
        object.__setattr__(self, "_settings", resolve(*options))

    def init(self) -> State:
        """The state that has seen nothing: a dict that JSON holds without loss."""
        return {
            "mode": "burn_in",  # then watch; follow after an alarm, grace after a declaration
            "last_step": None,
            "missing": 0,
            "overlap": 0,
            "gap": 0,
            "since": None,  # step of the first reading of the gap
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
            "shift": None,  # onset, earliest onset, level before and after of the last one
            "queue": [],
        }

    def update(self, state: State, value: float, step: int, *, alone: bool = True) -> tuple[State, Decision]:
        """Fold one reading into the state, **which is changed in place** and returned.

        Args:
            state: from :meth:`init`, from an earlier call, or read back from JSON.
            value: the reading; one that is not finite is counted in ``state["missing"]`` and left out.
            step: its step; a reading whose step is not above the last one is counted in ``state["overlap"]`` and left
                out.
            alone: whether the alarm is raised here; otherwise whoever weighs several series raises it by
                :meth:`sound`, and a change that is followed is still followed here.

        Returns:
            The state and the decision.
        """
        settings, step = self._settings, int(step)
        last = state["last_step"]
        if last is not None and step <= last:
            state["overlap"] += 1
            return state, decide(state, settings)
        state["last_step"] = step
        value = float(value)
        if not math.isfinite(value):
            return state, self._missing(state, step)
        gap, state["gap"] = state["gap"], 0
        mode = state["mode"]
        if mode == "burn_in":
            return state, burn_in.go_on(state, settings, value, step, self.announce_late)

        x = (value - state["zero"]) / state["unit"]
        if not -burn_in.HUGE < x < burn_in.HUGE:
            x = math.copysign(burn_in.HUGE, x)
        values, steps = state["values"], state["steps"]
        values.append(x)
        steps.append(step)
        if len(values) > max(2 * settings.wait, 80):
            del values[: settings.wait // 2], steps[: settings.wait // 2]
        if mode == "watch":
            statistic = watch.read(state, x, step, gap, settings.freeze, settings.minimum_effect / state["unit"])
            if alone and statistic >= settings.threshold:
                return state, alarm.sound(state, settings, step)
            if state["queue"]:
                return state, Decision(statistic, settings.threshold, Event.from_json(state["queue"].pop(0)))
            return state, Decision(statistic, settings.threshold)
        if gap:
            watch.let_pass(state, gap)
        if mode == "follow":
            if gap:
                state["follow"]["last"] = None
            return state, alarm.go_on(state, settings, x, step)
        return state, grace.go_on(state, settings, step)

    def sound(self, state: State, step: int, verdict: Mapping[str, Any] | None = None) -> tuple[State, Decision]:
        """Raise the alarm on an outer decision, such as that of several series together (``fusion``).

        The change is dated, announced or followed exactly as on an alarm of its own.

        Args:
            state: changed in place; one that is not looking for a change is left as it is.
            step: of the decision, not below the last one.
            verdict: what the outer decision knows better: ``low`` and ``high`` of the onset, ``evidence``, and
                ``facts`` for the details of the event.

        Returns:
            The state and the decision.
        """
        if state["mode"] != "watch":
            return state, decide(state, self._settings)
        return state, alarm.sound(state, self._settings, int(step), verdict)

    def declare(self, state: State, step: int, reason: str) -> State:
        """Announce an intervention at ``step``, such as a drop of the learning rate: it explains what changes now.

        During the next ``burn_in / 2`` readings the level and the spread are learned again; the lag-one coefficient is
        kept. A change of either is reported at their end with phase ``scheduled``, and so is every event dated inside.
        A change that was followed and not yet announced is lost in that of the intervention; its onset is in the
        event's ``details['pending']``. During the burn-in it starts the burn-in again. It is for jumps: a schedule that
        moves a little on every step needs none.

        Args:
            state: changed in place.
            step: the step from which the intervention acts.
            reason: for the event's details.

        Returns:
            The state.
        """
        grace.begin(state, self._settings, int(step), str(reason))
        return state

    def late(self, state: State) -> list[Event]:
        """Shifts inside the burn-in, dated afterwards; also at the end of a run shorter than the burn-in.

        The burn-in's readings (at most 200 block means of them) are kept in the state and cut by
        :func:`~thermo_monitor.detect.offline.segment`. A change counts when the levels before and after differ by the
        minimum effect and neither side moves much itself, which leaves out smooth trends. The events carry
        ``details['late']``, and ``details['doubt']`` where a random walk explains them as well.

        Args:
            state: left as it is.

        Returns:
            Events in order of onset; the same ones on every call after the burn-in.

        Example:
            >>> detector = OnlineDetector(minimum_effect=0.05, burn_in=60)
            >>> state = detector.init()
            >>> for t in range(60):
            ...     state, _ = detector.update(state, 0.2 if t < 25 else 0.9, t)
            >>> [(e.onset, e.direction, e.details["late"]) for e in detector.late(state)]
            [(25, 'up', True)]
        """
        return late.find(state, self._settings)

    def _missing(self, state: State, step: int) -> Decision:
        state["missing"] += 1
        state["gap"] += 1
        state["since"] = step if state["gap"] == 1 else state.get("since", step)
        if state["gap"] != self._settings.patience:
            return decide(state, self._settings)
        evidence = state["stat"]["log_sr"] if state["stat"] else math.nan
        details = {"missing": state["gap"]}
        dates = (state["since"], state["since"], state["since"])
        found = event(state, self._settings, "divergence", step, dates, "none", evidence, details)
        return decide(state, self._settings, found)
