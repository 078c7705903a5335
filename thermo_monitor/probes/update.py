"""How far the weights move in one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thermo_monitor.physics.precision import accumulator, working
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, number
from thermo_monitor.probes.shards import local, share


@dataclass(frozen=True, slots=True)
class UpdateProbe:
    """l2 norm of the parameter change of one optimizer step.

    The parameters have to be kept from before the step. At most ``elements`` of each tensor are: a larger one is
    sampled evenly and scaled up, and the reading then carries a standard error. So the copy stays small beside any
    model.

    Attributes:
        elements: most elements that are kept of one tensor.
    """

    elements: int = 65_536

    def __post_init__(self) -> None:
        if self.elements < 2:
            raise ValueError(f"elements={self.elements}: keep at least 2 elements of each tensor")

    @property
    def quantities(self) -> tuple[str, ...]:
        """Keys that this probe gives."""
        return ("opt/update_norm",)

    @property
    def fast(self) -> bool:
        """Needs a copy of the parameters, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run."""
        return _UpdateListener(run, self.elements)


class _Kept(NamedTuple):
    """Some parameters from before the step: those that are kept whole as one vector, a sampled one alone.

    Attributes:
        parameters: of one device and type.
        before: their values.
        counts: what they count in a sum over ranks.
    """

    parameters: list[Tensor]
    before: Tensor
    counts: float


class _UpdateListener(Listener):
    reads = "shards"

    def __init__(self, run: Surroundings, elements: int) -> None:
        self._parameters = list(run.model.parameters())
        self._ranks, self._sharded = run.ranks, run.sharded
        self._elements = elements
        self._before: list[_Kept] = []
        self._sums: Tensor | None = None

    def _here(self, parameter: Tensor) -> Tensor:
        """What this rank has; asking an ordinary tensor costs less than looking where it lies."""
        return local(parameter) if self._sharded else parameter.detach()

    def _some(self, x: Tensor) -> Tensor:
        """Evenly spaced elements of one that is too large to be kept whole."""
        return x.reshape(-1)[:: math.ceil(x.numel() / self._elements)]

    def before_step(self) -> None:
        """Keep the parameters, from before the first optimizer where there are several."""
        if self._before:
            return
        whole: dict[Any, list[Tensor]] = {}
        for parameter in self._parameters:
            here = self._here(parameter)
            size = here.numel()
            if not size or not parameter.requires_grad:
                continue
            counts = share(parameter, self._ranks)
            if size > self._elements:
                self._before.append(_Kept([parameter], self._some(here).clone(), counts))
            else:
                whole.setdefault((here.device, here.dtype, counts), []).append(parameter)
        for (_, _, counts), parameters in whole.items():
            self._before.append(_Kept(parameters, self._vector(parameters), counts))

    def _vector(self, parameters: Sequence[Tensor]) -> Tensor:
        """A copy of all of them, in one call: there are many, and most are small."""
        return torch.cat([self._here(p).reshape(-1) for p in parameters])

    def after_step(self) -> None:
        """Sum the squared change and, where it was sampled, the variance of that sum."""
        if not self._before:
            return
        device = self._before[0].before.device
        with torch.no_grad():
            sums = []
            for kept in self._before:
                change = self._change(kept).to(device, non_blocking=True)
                sums.append(change if kept.counts == 1 else kept.counts * change)
            self._sums = sums[0] if len(sums) == 1 else torch.stack(sums).sum(0)
        self._before = []

    def _change(self, kept: _Kept) -> Tensor:
        here = self._here(kept.parameters[0])
        if here.numel() > self._elements:
            return _sampled_change(here, self._some(here) - kept.before)
        # A sum adds up in pairs and keeps all digits, a norm of so many does not.
        total = working(self._vector(kept.parameters).sub_(kept.before)).square_().sum()
        total = total.to(accumulator(total.device))
        return torch.stack([total, torch.zeros_like(total)])

    def collect(self) -> tuple[Any, list[Tensor]]:
        """The sums."""
        sums, self._sums, self._before = self._sums, None, []
        return None, [] if sums is None else [sums]

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Their root, with the error by the delta method."""
        if not arrays:
            return Measured()
        total, variance = (float(v) for v in arrays[0])
        norm = math.sqrt(total) if total >= 0 else math.nan
        error = math.sqrt(variance) / (2 * norm) if variance > 0 and norm > 0 else None
        return Measured([number(step, "opt/update_norm", norm, reason="non_finite", error=error)])

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Squares and variances add up; replicas were weighted when they were read."""
        return {"sums": arrays[0]} if arrays else {}

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """The sums, if no rank's part is missing."""
        return None if present < self._ranks else (None, list(sums.values()))


def _sampled_change(parameter: Tensor, change: Tensor) -> Tensor:
    """Squared change of a tensor from that of some of its elements, and the variance of the estimate."""
    squares = change.float().square()
    count, size = squares.numel(), parameter.numel()
    total = squares.sum(dtype=accumulator(squares.device)) * (size / count)
    # Simple random sampling without replacement; even spacing does not depend on the values.
    variance = squares.var() * (size**2 / count * (1 - count / size))
    return torch.stack([total, variance.to(total)])
