"""Global norms of the gradient and of the weights."""

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
from thermo_monitor.probes.shards import by_share


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
