"""How many examples a step averages over, and whether they are the same as at the last measurement."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thermo_monitor.probes.base import Array
from thermo_monitor.probes.calls import OutputCall
from thermo_monitor.probes.hub import Hub

_LABELS = 64  # of each micro-batch that are compared with those of the last measurement


@dataclass(frozen=True, slots=True)
class Batch:
    """The examples of one step.

    Attributes:
        examples: how many; 0 if not known.
        labels: some labels of each micro-batch, evenly spaced; or a number made of them.
        telling: whether labels can tell batches apart, where they are not there any more to be asked.
    """

    examples: int
    labels: tuple[Array, ...]
    telling: bool | None = None

    def same_as(self, other: Batch | None) -> bool:
        """Whether both steps saw the same examples in the same order, as full-batch training does.

        Labels that are all alike, or count up (a contrast within the batch), are so in every batch and prove nothing.
        """
        if other is None or self.examples != other.examples or len(self.labels) != len(other.labels):
            return False
        alike = all(one.tobytes() == two.tobytes() for one, two in zip(self.labels, other.labels, strict=True))
        return alike and (any(map(_telling, self.labels)) if self.telling is None else self.telling)


def digest(labels: Sequence[Array], rank: int) -> Array:
    """Two numbers that add up over ranks and tell whether all of them see the same labels again: [2].

    The first is a checksum of the labels, of the micro-batch and of the rank; a sum of those of 2^21 ranks is exact.
    """
    sums = [zlib.crc32(np.ascontiguousarray(x).tobytes(), rank * 1009 + k) for k, x in enumerate(labels)]
    return np.array([float(sum(sums)), float(any(map(_telling, labels)))])


def of_digest(examples: int, total: Array) -> Batch:
    """The batch of all ranks, from the sum of their digests."""
    return Batch(examples, (total[:1].copy(),), bool(total[1] > 0))


def _telling(labels: Array) -> bool:
    steps = labels[1:] - labels[:-1]
    return len(steps) > 0 and bool((steps != steps[0]).any())


class BatchSize:
    """Listens for the size of the batch, and for its labels, while a measured step is under way.

    Args:
        hub: where attention and cross entropy are heard.
        given: number of examples that the user gave, or None.
    """

    def __init__(self, hub: Hub, given: int | None = None) -> None:
        self._hub = hub
        self._given = given
        self._rows = 0
        self._examples = 0
        self._pass = -1
        self._labels: list[Tensor] = []
        hub.on_output.append(self._hear)

    def _hear(self, call: OutputCall) -> None:
        if self._pass == self._hub.passes:
            return  # auxiliary losses follow the first one
        self._pass = self._hub.passes
        self._rows = call.labels.shape[0]
        if self._rows:
            # A copy, since the program may fill the same tensor with the next batch.
            self._labels.append(call.labels[:: -(-self._rows // _LABELS)].clone())

    def end_of_micro_batch(self) -> None:
        """A micro-batch gave its loss."""
        self._examples += self._hub.examples or self._rows
        self._rows = 0
        self._hub.end_of_micro_batch()

    def collect(self) -> tuple[int, list[Tensor]]:
        """Number of examples on this rank, or as given, and the labels; then forget."""
        examples = self._given if self._given is not None else self._examples
        labels, self._labels = self._labels, []
        self._examples, self._rows, self._pass = 0, 0, -1
        return examples, labels


def ranks() -> int:
    """Number of data-parallel processes."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
