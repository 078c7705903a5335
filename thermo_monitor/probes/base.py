"""What a probe is: frozen options that can be printed and edited, and the listener that they become in a run."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from thermo_monitor import quantities
from thermo_monitor.probes.hub import Hub
from thermo_monitor.records import Reading

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Map:
    """One quantity over layers and heads: values [L, H], NaN where a head was not measured."""

    quantity: str
    values: Array
    layers: tuple[str, ...]


@dataclass(slots=True)
class Measured:
    """What one listener read at one step."""

    readings: list[Reading] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a listener may need to know of the run.

    Attributes:
        model: the monitored model.
        optimizer: None if the monitor was not given it.
        hub: where the training is heard.
        seed: of random numbers.
        fixed: where the passes of the fixed batch are heard, if the monitor was given one.
    """

    model: nn.Module
    optimizer: Optimizer | None
    hub: Hub
    seed: int
    fixed: Hub | None = None


class Probe(Protocol):
    """Options of one kind of measurement. Frozen; one object may serve several runs."""

    @property
    def quantities(self) -> tuple[str, ...]:
        """Keys of the registry that this probe gives."""

    @property
    def fast(self) -> bool:
        """Whether it is cheap enough for the fast cadence."""

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run: everything that has to be installed is installed here, once."""


class Listener(ABC):
    """A probe attached to a run. On a measured step it is told what happens; ``collect`` ends the step."""

    def on_loss(self, loss: Tensor) -> None:  # noqa: B027 - most listeners have no use for it
        """A micro-batch gave this loss."""

    def before_step(self) -> None:  # noqa: B027
        """Gradients are complete and not yet clipped; the optimizer has not stepped."""

    def after_step(self) -> None:  # noqa: B027
        """The optimizer has stepped."""

    def describe(self) -> dict[str, str]:
        """How each layer was read last, in words; empty where there is nothing to say."""
        return {}

    def close(self) -> None:  # noqa: B027
        """Remove what was installed; harmless when called twice."""

    @abstractmethod
    def collect(self) -> tuple[Any, list[Tensor]]:
        """What was measured in this step, and the host-side facts to read it by; then forget.

        Tensors of its own, which nothing changes afterwards: they may be read some steps later.
        """

    @abstractmethod
    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Readings from the arrays that ``collect`` gave, now on the host."""


def check_quantities(given: Sequence[str], possible: Sequence[str], probe: str) -> None:
    """Raise a ``ValueError`` when a probe is asked for what it cannot measure."""
    for key in given:
        quantities.get(key)
        if key not in possible:
            raise ValueError(f"{probe} does not measure {key!r}; it measures {', '.join(possible)}")


def number(step: int, key: str, value: float, *, reason: str, error: float | None = None) -> Reading:
    """A reading of the whole model; a value that is not finite becomes NaN with the given reason."""
    if math.isfinite(value):
        return Reading(step, key, float(value), error=error)
    return Reading(step, key, math.nan, reason=reason)
