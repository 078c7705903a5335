"""Global norms: gradient, weights, and the change of the weights in one step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thermo_monitor.physics.precision import accumulator, run_norms
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, number
from thermo_monitor.probes.shards import by_share, local, share


@dataclass(frozen=True, slots=True)
class GradientProbe:
    """l2 norm of all gradients of a step, before clipping."""

    @property
    def quantities(self) -> tuple[str, ...]:
        """Keys that this probe gives."""
        return ("opt/gradient_norm",)

    @property
    def fast(self) -> bool:
        """One pass over the gradients."""
        return True

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run."""
        return _NormListener("opt/gradient_norm", run, gradients=True)


@dataclass(frozen=True, slots=True)
class WeightProbe:
    """l2 norm of all trainable parameters, as the forward pass of the step saw them."""

    @property
    def quantities(self) -> tuple[str, ...]:
        """Keys that this probe gives."""
        return ("opt/weight_norm",)

    @property
    def fast(self) -> bool:
        """A pass over the parameters costs as much as one over the gradients, and weights move slowly, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run."""
        return _NormListener("opt/weight_norm", run, gradients=False)


class _NormListener(Listener):
    reads = "shards"

    def __init__(self, key: str, run: Surroundings, gradients: bool) -> None:
        self._key = key
        self._hub = run.hub
        self._parameters = list(run.model.parameters())
        self._ranks = run.ranks
        self._spread = run.sharded or run.ranks > 1
        self._gradients = gradients
        self._norm: Tensor | None = None

    def before_step(self) -> None:
        """Measure. When the program tells twice in a step, the last gradients and the first weights count."""
        if self._norm is not None and not self._gradients:
            return
        # Asked each time, since a fine-tuning may thaw parameters on its way.
        trained = [p for p in self._parameters if p.requires_grad]
        tensors: Sequence[Tensor]
        if self._gradients:
            grads = [p.grad for p in trained]
            tensors = [g if g.layout is torch.strided else dense(g) for g in grads if g is not None]
        else:
            tensors = trained
        if self._spread:
            parts = [total_norm(part) * math.sqrt(w) for w, part in by_share(tensors, self._ranks).items()]
            self._norm = total_norm(parts) if parts else None
        else:
            self._norm = total_norm(tensors) if tensors else None
        if self._gradients and self._norm is not None and self._hub.gradient_scale is not None:
            self._norm = self._norm / self._hub.gradient_scale.to(self._norm)

    def collect(self) -> tuple[Any, list[Tensor]]:
        """The norm, if there was anything to measure."""
        norm, self._norm = self._norm, None
        return None, [] if norm is None else [norm]

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """As a reading."""
        if not arrays:
            return Measured([number(step, self._key, math.nan, reason="no_gradient")])
        return Measured([number(step, self._key, float(arrays[0]), reason="non_finite")])

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Squares add up; replicas were weighted when they were read."""
        return {"square": np.square(arrays[0])} if arrays else {}

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """Their root, if no rank's part is missing."""
        if present < self._ranks:
            return None
        return None, [np.sqrt(sums["square"])] if "square" in sums else []


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """l2 norm of all elements of all tensors, on their device, in single precision at least, without a host read.

    The public ``get_total_norm`` returns the norm of bf16 tensors in bf16, with two or three digits.
    """
    with torch.no_grad():
        norms, _ = run_norms(tensors)
        device = norms[0].device
        if len({n.device for n in norms}) > 1:
            norms = [n.to(device, non_blocking=True) for n in norms]
        whole: Tensor = torch.linalg.vector_norm(torch.stack(norms), dtype=accumulator(device))
        return whole


def dense(gradient: Tensor) -> Tensor:
    """The values of a coalesced sparse gradient, which are all of its elements that are not zero, or the gradient."""
    return gradient.detach().coalesce().values() if gradient.is_sparse else gradient.detach()


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


class _UpdateListener(Listener):
    reads = "shards"

    def __init__(self, run: Surroundings, elements: int) -> None:
        self._parameters = list(run.model.parameters())
        self._ranks, self._sharded = run.ranks, run.sharded
        self._elements = elements
        self._before: list[tuple[Tensor, Tensor]] = []
        self._sums: Tensor | None = None

    def _size(self, parameter: Tensor) -> int:
        """Elements that this rank has; asking an ordinary tensor costs less than looking where it lies."""
        return local(parameter).numel() if self._sharded else parameter.numel()

    def _kept(self, parameter: Tensor) -> Tensor:
        flat = local(parameter).reshape(-1)
        return flat[:: max(1, math.ceil(flat.numel() / self._elements))]

    def before_step(self) -> None:
        """Keep the parameters, from before the first optimizer where there are several."""
        if not self._before:
            trained = [p for p in self._parameters if p.requires_grad and self._size(p)]
            self._before = [(p, self._kept(p).clone()) for p in trained]

    def after_step(self) -> None:
        """Sum the squared change and, where it was sampled, the variance of that sum."""
        if not self._before:
            return
        device = self._before[0][1].device
        with torch.no_grad():
            sums = []
            for count, kept in self._by_share().items():
                change = [s.to(device, non_blocking=True) for s in self._change(kept)]
                sums += change if count == 1 else [count * s for s in change]
            self._sums = torch.stack(sums).sum(0)
        self._before = []

    def _by_share(self) -> dict[float, list[tuple[Tensor, Tensor]]]:
        """What was kept, by what it counts in a sum over ranks."""
        if self._ranks == 1:
            return {1.0: self._before}
        found: dict[float, list[tuple[Tensor, Tensor]]] = {}
        for parameter, before in self._before:
            found.setdefault(share(parameter, self._ranks), []).append((parameter, before))
        return found

    def _change(self, kept: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        whole = [(p, before) for p, before in kept if before.numel() == self._size(p)]
        sums = [
            _sampled_change(local(p), self._kept(p) - before) for p, before in kept if before.numel() < self._size(p)
        ]
        if whole:  # one call for all of them: there are many, and most are small
            changes = torch._foreach_sub([self._kept(p) for p, _ in whole], [before for _, before in whole])
            total = total_norm(changes)
            total = total.to(accumulator(total.device)).square()
            sums.append(torch.stack([total, torch.zeros_like(total)]))
        return sums

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
