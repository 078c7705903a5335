"""Global norms: gradient, weights, and the change of the weights in one step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thermo_monitor.physics.precision import accumulator, run_norms
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, number


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
    def __init__(self, key: str, run: Surroundings, gradients: bool) -> None:
        self._key = key
        self._hub = run.hub
        self._parameters = list(run.model.parameters())
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
        return _UpdateListener(list(run.model.parameters()), self.elements)


class _UpdateListener(Listener):
    def __init__(self, parameters: list[nn.Parameter], elements: int) -> None:
        self._parameters = parameters
        self._elements = elements
        self._before: list[tuple[Tensor, Tensor]] = []
        self._sums: Tensor | None = None

    def _kept(self, parameter: Tensor) -> Tensor:
        flat = parameter.detach().reshape(-1)
        return flat[:: max(1, math.ceil(flat.numel() / self._elements))]

    def before_step(self) -> None:
        """Keep the parameters, from before the first optimizer where there are several."""
        if not self._before:
            self._before = [(p, self._kept(p).clone()) for p in self._parameters if p.requires_grad and p.numel()]

    def after_step(self) -> None:
        """Sum the squared change and, where it was sampled, the variance of that sum."""
        if not self._before:
            return
        device = self._before[0][0].device
        with torch.no_grad():
            whole = [(p, before) for p, before in self._before if before.numel() == p.numel()]
            sampled = [(p, before) for p, before in self._before if before.numel() < p.numel()]
            sums = [_sampled_change(p, self._kept(p) - before) for p, before in sampled]
            if whole:  # one call for all of them: there are many, and most are small
                changes = torch._foreach_sub([self._kept(p) for p, _ in whole], [before for _, before in whole])
                total = total_norm(changes).to(accumulator(device)).square()
                sums.append(torch.stack([total, torch.zeros_like(total)]))
            self._sums = torch.stack([s.to(device, non_blocking=True) for s in sums]).sum(0)
        self._before = []

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


def _sampled_change(parameter: Tensor, change: Tensor) -> Tensor:
    """Squared change of a tensor from that of some of its elements, and the variance of the estimate."""
    squares = change.float().square()
    count, size = squares.numel(), parameter.numel()
    total = squares.sum(dtype=accumulator(squares.device)) * (size / count)
    # Simple random sampling without replacement; even spacing does not depend on the values.
    variance = squares.var() * (size**2 / count * (1 - count / size))
    return torch.stack([total, variance.to(total)])
