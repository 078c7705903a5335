"""Backward passes over a fixed batch, none of which touches ``.grad``: drawn labels, and products with the GGN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from thermo_monitor.physics import fisher as physics

Outputs = Callable[[], Tensor]  # a forward pass: [rows, V]


class Drawn(NamedTuple):
    """What labels drawn from a model gave.

    Attributes:
        outputs: [rows, V].
        traces: [draws, parameters] of each kind of draws, one column for each tensor of parameters.
        diagonal: of the Fisher information, averaged over the draws of the first kind; empty where there is none.
    """

    outputs: Tensor
    traces: dict[str, Tensor]
    diagonal: list[Tensor]


def drawn(
    forward: Outputs, parameters: Sequence[Tensor], kinds: Sequence[str], loss: str, draws: int,
    generator: torch.Generator,
) -> Drawn:  # fmt: skip
    """One forward pass, and a backward pass for each draw.

    Args:
        forward: gives the outputs.
        parameters: that gradients are taken of.
        kinds: ``mc`` (labels) or ``ggn`` (normal residuals with the same covariance).
        loss: ``cross_entropy`` or ``squared_error``.
        draws: of each kind.
        generator: of the draws.
    """
    with torch.enable_grad():
        outputs = forward()
    fixed, rows = outputs.detach(), len(outputs)
    diagonal = [torch.zeros_like(p, dtype=torch.float32) for p in parameters] if kinds else []
    found = {}
    for kind in kinds:
        traces = []
        for _ in range(draws):
            if kind == "mc":
                residual = physics.sampled_residual(fixed, generator)
            else:
                residual = physics.ggn_residual(fixed, loss, generator)
            gradients = torch.autograd.grad(
                outputs, parameters, (residual / rows).to(outputs.dtype), retain_graph=True, allow_unused=True
            )
            filled = [torch.zeros_like(d) if g is None else g.float() for g, d in zip(gradients, diagonal, strict=True)]
            squares = physics.one_backward_diagonal(filled, rows)
            traces.append(torch.stack([s.sum() for s in squares]))
            if kind == kinds[0]:
                torch._foreach_add_(diagonal, squares, alpha=1 / draws)
        found[kind] = torch.stack(traces)
    return Drawn(fixed, found, diagonal)


def ggn_tridiagonal(
    forward: Outputs, parameters: Sequence[Tensor], loss: str, steps: int, generator: torch.Generator
) -> Tensor:
    """Lanczos with the GGN: down by a backward pass of the backward pass, and up by another.

    Args:
        forward: gives the outputs.
        parameters: of the matrix.
        loss: ``cross_entropy`` or ``squared_error``.
        steps: products to spend.
        generator: of the vector that it starts from.

    Returns:
        [2, steps], for ``physics.fisher.largest_eigenvalue``.
    """
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        outputs = forward()
        dual = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(outputs, parameters, dual, create_graph=True, materialize_grads=True)
        rows = len(outputs)

        def product(vectors: Sequence[Tensor]) -> Sequence[Tensor]:
            (pushed,) = torch.autograd.grad(pulled, dual, list(vectors), retain_graph=True)
            bent = physics.softmax_metric(outputs.detach(), pushed) if loss == "cross_entropy" else 2 * pushed
            return torch.autograd.grad(outputs, parameters, bent / rows, retain_graph=True, materialize_grads=True)

        start = [torch.empty_like(p).normal_(generator=generator) for p in parameters]
        return physics.lanczos(product, [v.detach() for v in start], steps)
