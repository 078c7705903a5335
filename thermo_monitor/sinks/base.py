"""What a destination of readings and events has to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.records import Event, Reading


@dataclass(frozen=True, slots=True)
class Frame:
    """One quantity over all layers and heads at one step.

    Attributes:
        step: index of the optimizer step.
        quantity: key of the registry.
        values: [L, H], or [L, 1] for a quantity without heads; NaN where a head was not measured.
        layers: name of the layer of each row, the qualified module name where there is one.
    """

    step: int
    quantity: str
    values: NDArray[np.float64]
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """Everything that was read at one step: model-wide readings (and layers asked for), and the frames behind them.

    Attributes:
        step: index of the optimizer step.
        wall: seconds since the epoch.
        readings: numbers.
        frames: quantities over layers and heads.
        full: False for a step between two full measurements, at which only the cheap quantities were read. A sink that
            draws curves may leave it out.
    """

    step: int
    wall: float
    readings: Sequence[Reading] = field(default_factory=tuple)
    frames: Sequence[Frame] = field(default_factory=tuple)
    full: bool = True


class Sink(Protocol):
    """A destination. It may raise: the monitor switches a failing sink off and training goes on."""

    def write(self, tick: Tick) -> None:
        """Take what was read at one step; steps never fall."""

    def event(self, event: Event) -> None:
        """Take an event, at once."""

    def close(self) -> None:
        """Write what is held back and release what is open; harmless when called twice."""
