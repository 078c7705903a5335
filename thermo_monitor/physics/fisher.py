"""Fisher information of the parameters: three things with three names.

With l_i the loss ``-ln p(y_i|x_i)`` of an example and g_i its gradient: the *empirical* Fisher information is
``mean g_i g_i^T`` with the labels of the data; the Fisher information proper has labels drawn from the model itself,
and *Monte Carlo* draws them; for a softmax with cross entropy it is the *GGN*, ``mean J_i^T (diag p - p p^T) J_i``. The
empirical one is no curvature away from a well-specified optimum (Kunstner et al. 2019, arXiv:1905.12558).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from thermo_monitor.physics.information import fisher_rao_distance as distance_of_weights
from thermo_monitor.physics.information import weights
from thermo_monitor.physics.precision import working

Vectors = Sequence[Tensor]


def sampled_residual(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Gradient of ``-ln p(y)`` at the logits, with labels y drawn from the model: ``p - onehot(y)``.

    Args:
        logits: [N, V].
        generator: of the draws; None: the global one.

    Returns:
        [N, V], each row with mean zero over the draws.

    Example:
        >>> sampled_residual(torch.tensor([[50.0, 0.0]])).abs().max().item() < 1e-6
        True
    """
    p = working(logits).softmax(-1)
    # The largest of p over exponential draws is a draw from p; unlike multinomial it neither waits for the device nor
    # limits the number of categories.
    noise = torch.empty_like(p).exponential_(generator=generator)
    drawn = (p / noise).argmax(-1, keepdim=True)
    return p - torch.zeros_like(p).scatter_(-1, drawn, 1.0)


def one_backward_diagonal(gradients: Vectors, rows: int) -> list[Tensor]:
    """Diagonal of the Fisher information from one gradient: ``N g * g``, g of the mean loss over N drawn labels.

    With labels that are independent given the inputs the cross terms vanish in expectation, so that no gradient of a
    single example is needed (Gauss-Newton-Bartlett, Liu et al. 2023, arXiv:2305.14342). One draw has a relative
    standard deviation of ``sqrt(2 tr F^2)/tr F``, whatever N is: average several.

    Args:
        gradients: of the mean loss over the rows, one tensor for each parameter.
        rows: N.

    Returns:
        Same shapes; their sum estimates the trace.

    Example:
        >>> one_backward_diagonal([torch.tensor([1.0, 2.0])], rows=3)[0].tolist()
        [3.0, 12.0]
    """
    return [rows * g * g for g in gradients]


def softmax_fisher_trace(logits: Tensor, hidden: Tensor) -> Tensor:
    """Fisher trace of the weight of a softmax layer, ``mean |h|^2 (1 - sum p^2)``: a closed form to compare with.

    Args:
        logits: [N, V].
        hidden: [N, d], the inputs of the layer.

    Example:
        >>> round(softmax_fisher_trace(torch.tensor([[2.0, 1.0, 0.0, -1.0]]).double(), torch.ones(1, 1)).item(), 6)
        0.520639
    """
    p = working(logits).softmax(-1)
    return (working(hidden).square().sum(-1) * (1 - p.square().sum(-1))).mean()


def softmax_metric(logits: Tensor, tangent: Tensor) -> Tensor:
    """``(diag p - p p^T) t`` for each row: the GGN's middle factor, applied to a change t of the logits.

    Args:
        logits: [N, V].
        tangent: [N, V].

    Example:
        >>> softmax_metric(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).tolist()
        [[0.25, -0.25]]
    """
    p = working(logits).softmax(-1)
    return p * (tangent - (p * tangent).sum(-1, keepdim=True))


def effective_dimension(diagonal: Vectors, damping: float | Tensor) -> Tensor:
    """``tr F (F + d)^-1`` from the diagonal: how many parameters are known better than the prior precision d says.

    Only the diagonal is taken, so correlated parameters count each by itself.

    Args:
        diagonal: of F, in parts of any shape.
        damping: d > 0, in the unit of F.

    Example:
        >>> effective_dimension([torch.tensor([1.0, 0.0]), torch.tensor([[3.0]])], damping=1.0).item()
        1.25
    """
    parts = [(f / (f + damping)).sum(dtype=torch.float64) for f in map(working, diagonal)]
    return torch.stack(parts).sum()


def participation(diagonal: Vectors) -> Tensor:
    """``(sum F_k)^2 / sum F_k^2``: over how many parameters the trace is spread.

    Example:
        >>> participation([torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0])]).item()
        2.6666666666666665
    """
    total = torch.stack([f.sum(dtype=torch.float64) for f in diagonal]).sum()
    squares = torch.stack([f.square().sum(dtype=torch.float64) for f in diagonal]).sum()
    return total * total / squares


def diagonal_summary(diagonal: Vectors) -> Tensor:
    """Mean, maximum and participation ratio of a diagonal, [3] float64.

    Of an estimate from n draws the mean has no bias. The maximum is too large, and the participation ratio too small,
    by a factor that goes to 1 as n grows: an entry of one draw scatters by 1.4 times its value.

    Example:
        >>> diagonal_summary([torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.0])]).tolist()
        [1.0, 2.0, 2.6666666666666665]
    """
    total = torch.stack([f.sum(dtype=torch.float64) for f in diagonal]).sum()
    largest = torch.stack([f.max().double() for f in diagonal if f.numel()]).max()
    return torch.stack([total / sum(f.numel() for f in diagonal), largest, participation(diagonal)])


def ggn_residual(outputs: Tensor, loss: str, generator: torch.Generator | None = None) -> Tensor:
    """``H^(1/2) e`` with normal e, H the curvature of the loss of a row at its outputs.

    Its image under ``J^T`` has the GGN for covariance, as that of ``sampled_residual`` has; drawn from another
    distribution, so that both estimate the same trace for a softmax.

    Args:
        outputs: [N, V].
        loss: ``cross_entropy``, H = diag p - p p^T, or ``squared_error`` (sum over V of squares), H = 2 I.
        generator: of the draws.

    Example:
        >>> ggn_residual(torch.tensor([[50.0, 0.0]]), "cross_entropy").abs().max().item() < 1e-6
        True
    """
    noise = torch.empty_like(working(outputs)).normal_(generator=generator)
    if loss == "squared_error":
        return noise * 2**0.5
    root = working(outputs).softmax(-1).sqrt()
    return root * noise - root.square() * (root * noise).sum(-1, keepdim=True)


def lanczos(product: Callable[[Vectors], Vectors], start: Vectors, steps: int) -> Tensor:
    """The tridiagonal matrix whose eigenvalues approach those of a symmetric matrix from within.

    Full reorthogonalisation, nothing read back: ``largest_eigenvalue`` of a copy on the host does the rest.

    Args:
        product: matrix times vector, the vector in parts.
        start: not zero, same shapes; a random one.
        steps: products to spend.

    Returns:
        [2, steps] float64: the diagonal, and what stands beside it (the last entry is left over).

    Example:
        >>> matrix = lanczos(lambda v: [torch.tensor([1.0, 4.0]) * v[0]], [torch.ones(2)], steps=2)
        >>> round(largest_eigenvalue(matrix).item(), 5)
        4.0
    """
    vector = _scaled(start, _dot(start, start).rsqrt())
    basis, diagonal, beside = [vector], [], []
    for _ in range(steps):
        image = list(product(vector))
        diagonal.append(_dot(image, vector))
        for known in (*basis, *basis):  # a second time, for what rounding left of the first
            part = _dot(image, known)
            image = [x - part.to(x.dtype) * y for x, y in zip(image, known, strict=True)]
        length = _dot(image, image).sqrt()
        # Where the space is exhausted only rounding is left: it gets no weight, and what follows is zero.
        usable = length > 1e-6 * diagonal[0].abs()
        beside.append(torch.where(usable, length, 0.0))
        vector = _scaled(image, torch.where(usable, 1 / length, 0.0))
        basis.append(vector)
    return torch.stack([torch.stack(diagonal), torch.stack(beside)])


def largest_eigenvalue(tridiagonal: Tensor) -> Tensor:
    """Largest eigenvalue of the matrix that ``lanczos`` gave; for a copy on the host.

    Args:
        tridiagonal: [2, n].

    Example:
        >>> largest_eigenvalue(torch.tensor([[2.0, 2.0], [1.0, 0.0]])).item()
        3.0
    """
    diagonal, beside = tridiagonal
    off = torch.diag(beside[:-1], 1)
    values: Tensor = torch.linalg.eigvalsh(torch.diag(diagonal) + off + off.T)
    return values[-1]


def fisher_rao_distance(before: Tensor, after: Tensor) -> Tensor:
    """Distance of two softmax distributions along the manifold, ``2 arccos sum sqrt(p q)``, by its stable form.

    To second order in a small change d^2 is twice the Kullback-Leibler divergence.

    Args:
        before: [N, V] logits.
        after: [N, V] logits.

    Returns:
        [N] in [0, pi], float64 where the device has it.

    Example:
        >>> far = torch.tensor([[100.0, -100.0]])
        >>> round(fisher_rao_distance(far, -far).item(), 6), fisher_rao_distance(far, far).item()
        (3.141593, 0.0)
    """
    return distance_of_weights(weights(before), weights(after))


def _dot(a: Vectors, b: Vectors) -> Tensor:
    return torch.stack([(x.double() * y.double()).sum() for x, y in zip(a, b, strict=True)]).sum()


def _scaled(vectors: Vectors, factor: Tensor) -> list[Tensor]:
    return [x * factor.to(x.dtype) for x in vectors]
