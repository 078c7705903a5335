"""The ticks of one rank on their way to those of all: what every listener adds to sums, and what they are read as.

A turn comes at the beginning of a full measurement, and after so many cheap ones: what has arrived since the last turn
is added up over the ranks, and what was sent round then is read. Both happen at the same steps on every rank, since the
schedule depends on the step alone; so do the decisions that rank zero sends along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thermo_monitor.budget import Stretch
from thermo_monitor.decisions import LENGTH, Decisions, Told
from thermo_monitor.exchange import LEAVING, Array, Exchange, Name, step_sums, steps_agree
from thermo_monitor.guard import Guard, tell
from thermo_monitor.probes.base import Absent, Listener
from thermo_monitor.transport import Arrival

ROWS = 16  # cheap ticks of one turn

Parts = dict[str, tuple[Any, int]]


@dataclass(slots=True)
class _Tick:
    """One measured step of this rank."""

    step: int
    full: bool
    labels: dict[str, Any] = field(default_factory=dict)


class Pool:
    """Puts the ticks of all ranks together.

    Args:
        rank: of this process.
        ranks: how many there are.
        listeners: of the probes, by name of the part.
        quantities: that each of them gives.
        guard: switches off what fails.
    """

    def __init__(
        self,
        rank: int,
        ranks: int,
        listeners: Mapping[str, Listener],
        quantities: Mapping[str, Sequence[str]],
        guard: Guard,
    ) -> None:
        self._rank = rank
        self._listeners, self._quantities, self._guard = listeners, quantities, guard
        self._exchange = Exchange(rank, ranks, LENGTH + 3 * (1 + ROWS))
        self._ticks: list[_Tick] = []  # since the last turn
        self._sent: list[_Tick] = []  # in the turn that is under way
        self._decisions = Decisions()
        self._due: Array | None = None  # what rank zero has decided, until the next turn
        self._missing: set[str] = set()

    @property
    def bytes(self) -> int:
        """That this rank has given away."""
        return self._exchange.bytes

    @property
    def waiting(self) -> int:
        """Measured steps since the last turn."""
        return len(self._ticks)

    def begin(self, step: int, full: bool) -> None:
        """A measured step begins; it counts, whatever becomes of it."""
        self._ticks.append(_Tick(step, full))

    # -------------------------------------------------------------------------------------------------- decisions
    def propose(self, stretch: Stretch) -> None:
        """How far the cadence shall be stretched; what rank zero says is done, by all at the same step."""
        self._decisions.stretch = stretch

    def announce(self, event: Told) -> None:
        """Something that all ranks shall act on; what rank zero says reaches them."""
        self._decisions.events.append(event)

    def unsaid(self) -> list[Told]:
        """What was announced and has not gone round."""
        events, self._decisions.events = self._decisions.events, []
        return events

    def decided(self) -> tuple[Stretch | None, list[Told]]:
        """What rank zero has decided, as all ranks heard it in the last turn; once."""
        due, self._due = self._due, None
        return (None, []) if due is None else Decisions.read(due)

    # ------------------------------------------------------------------------------------------------------ turns
    def turn(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """What all ranks have measured up to the last turn; what has arrived since goes on its way."""
        found = self.finish()
        ticks, self._ticks = self._ticks, []
        head, named = self._batch(ticks, arrivals)
        if self._rank == 0:
            head[:LENGTH] = self._decisions.write()
        self._sent = ticks
        self._exchange.start(head, named)
        return found + [arrival for arrival in arrivals if "validation" in arrival.label[1]]

    def finish(self, last: bool = False, early: bool = False) -> list[Arrival]:
        """What was under way, waiting for the other ranks.

        Args:
            last: nothing comes after it: wait for a short time only.
            early: this rank alone asks, so that nothing can be agreed.
        """
        sums = self._exchange.finish(LEAVING if last else 0.0, agree=not early)
        if sums is None:
            return []
        ticks, self._sent = self._sent, []
        self._due = sums[0][:LENGTH].copy()
        return self._read(ticks, *sums)

    def close(self) -> None:
        """Leave the other ranks."""
        self._exchange.close()

    def _batch(self, ticks: Sequence[_Tick], arrivals: Sequence[Arrival]) -> tuple[Array, dict[Name, Array]]:
        head, named = np.zeros(LENGTH + 3 * (1 + ROWS)), dict[Name, Array]()
        rows = dict(_rows(ticks))
        for row, tick in rows.items():
            head[LENGTH + 3 * row : LENGTH + 3 * row + 3] = step_sums(tick.step)
        at = {tick.step: row for row, tick in rows.items()}
        for arrival in arrivals:
            row = at.get(arrival.step, -1)
            if row < 0 or "validation" in arrival.label[1]:
                continue
            start = 0
            for part, (label, count) in arrival.label[1].items():
                arrays = arrival.arrays[start : start + count]
                start += count
                shares = self._guard.run(part, self._listeners[part].shares, label, arrays)
                if shares is None:
                    continue
                rows[row].labels[part] = label
                named[str(row), part] = np.asarray(1.0)
                named |= {(str(row), part, key): np.asarray(value) for key, value in shares.items()}
        return head, named

    def _read(self, ticks: Sequence[_Tick], head: Array, sums: Mapping[Name, Array]) -> list[Arrival]:
        found = []
        by_part: dict[Name, dict[str, Array]] = {}
        for name, array in sums.items():
            if len(name) == 3:
                by_part.setdefault(name[:2], {})[name[2]] = array
        for row, tick in _rows(ticks):
            at = LENGTH + 3 * row
            if not steps_agree(head[at : at + 3], tick.step):
                raise RuntimeError(f"the ranks do not measure the same steps: this one is at step {tick.step}")
            parts: Parts = {}
            arrays: list[Array] = []
            for part, label in tick.labels.items():
                present = int(sums[str(row), part])
                if present < self._exchange.ranks:
                    self._tell_missing(part, present)
                of_part = by_part.get((str(row), part), {})
                pooled = self._guard.run(part, self._pooled, part, label, of_part, present)
                if pooled is not None:
                    parts[part] = (pooled[0], len(pooled[1]))
                    arrays += pooled[1]
            found.append(Arrival(tick.step, (tick.full, parts), arrays))
        return sorted(found, key=lambda arrival: arrival.step)

    def _pooled(self, part: str, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]]:
        found = self._listeners[part].pooled(label, sums, present)
        return (Absent(self._quantities[part], "probe_failed"), ()) if found is None else found

    def _tell_missing(self, part: str, present: int) -> None:
        if part not in self._missing and self._rank == 0:
            self._missing.add(part)
            tell(
                f"{part} is switched off on {self._exchange.ranks - present} of {self._exchange.ranks} ranks: it is "
                "read from the others, or NaN where every rank is needed."
            )


def _rows(ticks: Sequence[_Tick]) -> list[tuple[int, _Tick]]:
    """The place of each tick in the vector: 0 for the full one, of which a turn has one at most."""
    cheap = [tick for tick in ticks if not tick.full]
    return [(0, tick) for tick in ticks if tick.full] + list(enumerate(cheap, 1))
