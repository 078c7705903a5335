"""What rank zero decides for all ranks, as numbers that travel with the sums: every other rank adds zeros to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.budget import Stretch
from thermo_monitor.records import KINDS, PHASES

_EVENTS = 4  # that one turn can tell of; further ones follow in the next
LENGTH = 2 + 3 * _EVENTS


class Told(NamedTuple):
    """What every rank needs to know of an event."""

    step: int
    kind: str
    phase: str


@dataclass(slots=True)
class Decisions:
    """What rank zero has decided since the last turn.

    Example:
        >>> decisions = Decisions(Stretch(4, 2), [Told(30, "shift", "generalization")])
        >>> Decisions.read(decisions.write())
        (Stretch(full=4, cheap=2), [Told(step=30, kind='shift', phase='generalization')])
        >>> Decisions.read(decisions.write())  # an event is told once
        (Stretch(full=4, cheap=2), [])
    """

    stretch: Stretch | None = None
    events: list[Told] = field(default_factory=list)

    def write(self) -> NDArray[np.float64]:
        """As numbers; events that are written are forgotten."""
        out = np.zeros(LENGTH)
        if self.stretch is not None:
            out[:2] = self.stretch
        now, self.events = self.events[:_EVENTS], self.events[_EVENTS:]
        for k, event in enumerate(now):
            # The kind counts from one, so that a place without an event is zero.
            out[2 + 3 * k : 5 + 3 * k] = event.step, 1 + KINDS.index(event.kind), PHASES.index(event.phase)
        return out

    @staticmethod
    def read(numbers: NDArray[np.float64]) -> tuple[Stretch | None, list[Told]]:
        """The stretch of the cadence, if there is a budget, and the events."""
        full, cheap = (int(n) for n in numbers[:2])
        events = []
        for step, kind, phase in numbers[2:].reshape(_EVENTS, 3):
            if kind > 0:
                events.append(Told(int(step), KINDS[int(kind) - 1], PHASES[int(phase)]))
        return (Stretch(full, cheap) if full else None), events
