"""Readings and events in plain lists, for notebooks and tests."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks.base import Frame, Tick


class MemorySink:
    """Keeps everything, in the order of arrival.

    Attributes:
        readings: every reading.
        events: every event.
        frames: every frame; they make up most of the memory of a long run with many heads.

    Example:
        >>> sink = MemorySink()
        >>> sink.write(Tick(step=3, wall=0.0, readings=[Reading(3, "loss/train", 0.5)]))
        >>> sink.series("loss/train")
        (array([3]), array([0.5]))
    """

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.events: list[Event] = []
        self.frames: list[Frame] = []

    def write(self, tick: Tick) -> None:
        """Keep what was read at one step."""
        self.readings.extend(tick.readings)
        self.frames.extend(tick.frames)

    def event(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)

    def close(self) -> None:
        """Nothing is held back; the lists stay readable."""

    def series(self, quantity: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Steps [n] and values [n] of the model-wide readings of one quantity, NaN where it was not valid."""
        return series(self.readings, quantity)


def series(readings: Iterable[Reading], quantity: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Steps [n] and values [n] of the model-wide readings of one quantity, in the order given.

    Readings of single layers and heads are left out: they are other series of the same quantity.
    """
    chosen = [r for r in readings if r.quantity == quantity and r.layer is None and r.head is None]
    return np.array([r.step for r in chosen], np.int64), np.array([r.value for r in chosen], np.float64)
