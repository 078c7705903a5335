"""From the device to the host: one packed copy a tick, read one tick later, so that nothing ever waits.

On CUDA the copy goes to pinned memory without blocking, and an event tells when it has arrived. A tick whose copy is
still under way at the next one is left in the queue; only ``drain`` waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays = list[NDArray[np.float64]]


@dataclass(slots=True)
class Arrival:
    """What one tick measured, on the host.

    Attributes:
        step: index of the optimizer step.
        label: what the sender attached.
        arrays: one float64 array for each tensor that was sent, same shapes.
    """

    step: int
    label: Any
    arrays: Arrays


@dataclass(slots=True)
class _Flight:
    step: int
    label: Any
    shapes: list[torch.Size]
    host: Tensor | list[Tensor]  # packed, or as they were sent where they are on the host already
    landed: Any  # torch.cuda.Event, or None where the copy is complete


class Transport:
    """Packs the tensors of a tick into one vector and brings it to the host."""

    def __init__(self) -> None:
        self._flying: deque[_Flight] = deque()
        self.bytes = 0

    @property
    def waiting(self) -> int:
        """Ticks that were sent and not yet taken."""
        return len(self._flying)

    def send(self, step: int, label: Any, tensors: Sequence[Tensor]) -> None:
        """Start the copy of one tick."""
        shapes = [t.shape for t in tensors]
        if not tensors:
            self._flying.append(_Flight(step, label, shapes, [], None))
            return
        if all(t.device.type == "cpu" for t in tensors):  # there already, and need no packing
            self.bytes += sum(8 * t.numel() for t in tensors)
            copies = [t.detach().to(torch.float64, copy=True) for t in tensors]
            self._flying.append(_Flight(step, label, shapes, copies, None))
            return
        with torch.no_grad():
            device = tensors[0].device
            # Sums were taken in float64 where the device has it; what is single precision is widened without loss.
            dtype = torch.float32 if device.type == "mps" else torch.float64
            packed = torch.cat([t.detach().reshape(-1).to(device, dtype, non_blocking=True) for t in tensors])
            self.bytes += packed.numel() * packed.element_size()
            landed = None
            if device.type == "cuda":
                host = torch.empty(packed.shape, dtype=dtype, pin_memory=True)
                host.copy_(packed, non_blocking=True)
                landed = torch.cuda.Event()  # type: ignore[no-untyped-call]
                landed.record(torch.cuda.current_stream(device))
            else:
                host = packed.to("cpu")
        self._flying.append(_Flight(step, label, shapes, host, landed))

    def arrived(self) -> list[Arrival]:
        """The ticks that have landed, oldest first; never waits."""
        out = []
        while self._flying and (self._flying[0].landed is None or self._flying[0].landed.query()):
            out.append(_unpack(self._flying.popleft()))
        return out

    def drain(self) -> list[Arrival]:
        """All ticks, waiting for those that are still under way."""
        for flight in self._flying:
            if flight.landed is not None:
                flight.landed.synchronize()
        return self.arrived()


def _unpack(flight: _Flight) -> Arrival:
    if isinstance(flight.host, list):
        return Arrival(flight.step, flight.label, [t.numpy() for t in flight.host])
    flat = flight.host.numpy().astype(np.float64, copy=False)
    arrays, at = [], 0
    for shape in flight.shapes:
        size = shape.numel()
        arrays.append(flat[at : at + size].reshape(tuple(shape)))
        at += size
    return Arrival(flight.step, flight.label, arrays)
