"""What a probe is: frozen options that can be printed and edited, and the listener that they become in a run."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

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
        model: what is trained.
        optimizer: that steps, if it is known.
        hub: where everything that is overheard arrives.
        seed: of random numbers of its own.
        rank: of this process.
        ranks: processes that train this model together, each with a part of the batch.
        sharded: whether parameters, gradients and optimizer state are spread over them, as DTensors.
        fixed: where the passes of the fixed batch are heard, if the monitor was given one.
    """

    model: nn.Module
    optimizer: Optimizer | None
    hub: Hub
    seed: int
    rank: int = 0
    ranks: int = 1
    sharded: bool = False
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
    """A probe attached to a run. On a measured step it is told what happens; ``collect`` ends the step.

    Attributes:
        reads: what it reads of parameters and gradients: ``nothing``; ``shards`` where they may be spread over ranks as
            DTensors; ``whole`` where every rank has to have all of them.
    """

    reads: Literal["nothing", "shards", "whole"] = "nothing"

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

    # On several ranks a listener has these two as well: what has them not is refused there, since the numbers of one
    # rank are not those of the run.
    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """This rank's part of sums over all ranks, by name and always of the same shape.

        Only what adds up: numbers with their weights, sums and counts. A name that is left out counts as zeros.
        """
        raise NotImplementedError

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """What ``read`` takes, from the sums over all ranks; None where they cannot be read.

        Args:
            label: that of this rank.
            sums: of the names that any rank has given in this step.
            present: how many ranks took part in this step; the part of another one has failed there.
        """
        raise NotImplementedError


class Absent(Listener):
    """Stands where a probe cannot measure: its quantities are NaN, with the reason."""

    def __init__(self, quantities: Sequence[str], reason: str) -> None:
        self.quantities = tuple(quantities)
        self.reason = reason

    def collect(self) -> tuple[Any, list[Tensor]]:
        """Nothing."""
        return None, []

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """The reason, for every quantity."""
        return Measured([Reading(step, key, math.nan, reason=self.reason) for key in self.quantities])

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Nothing."""
        return {}

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """Nothing."""
        return None, ()


def adds_up(listener: Listener) -> bool:
    """Whether what a listener measures on several ranks can be put together."""
    return type(listener).shares is not Listener.shares and type(listener).pooled is not Listener.pooled


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
