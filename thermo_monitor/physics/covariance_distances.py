"""Distances between two sentences through the covariances of their tokens.

A covariance has no order of tokens and no common length, so sentences of any length compare. It is of low rank (fewer
tokens than dimensions), which decides what can be said: Frobenius, Bures and the matrix Jensen-Shannon divergence are
defined then; the affine-invariant and the Stein distance need a ridge, and depend on it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thermo_monitor.physics.precision import accumulator, precise_matmul

DISTANCES = ("frobenius", "bures", "affine_invariant", "stein", "jensen_shannon")


def frobenius(a: Tensor, b: Tensor) -> Tensor:
    """``|A - B|_F`` of two symmetric matrices [..., d, d]; [...].

    Example:
        >>> a, b = torch.tensor([1.0, 4.0], dtype=torch.float64).diag(), torch.tensor([4.0, 1.0]).double().diag()
        >>> round(frobenius(a, b).item(), 6)
        4.242641
    """
    difference: Tensor = torch.linalg.matrix_norm(_wide(a) - _wide(b))
    return difference


def bures(a: Tensor, b: Tensor) -> Tensor:
    """Squared Bures distance ``tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2``: transport between Gaussians of equal mean.

    Args:
        a: [..., d, d] symmetric, positive semidefinite.
        b: the same.

    Returns:
        [...] float64, at least 0; NaN where an entry is not finite.

    Example:
        >>> a, b = torch.tensor([1.0, 4.0], dtype=torch.float64).diag(), torch.tensor([4.0, 1.0]).double().diag()
        >>> round(bures(a, b).item(), 9)
        2.0
    """
    # tr (A^1/2 B A^1/2)^1/2 is the sum of the singular values of A^1/2 B^1/2, which loses no small eigenvalues.
    overlap = torch.linalg.svdvals(_safe(precise_matmul(_power(a, 0.5), _power(b, 0.5)))).sum(-1)
    return torch.where(_usable(a, b), (_trace(a) + _trace(b) - 2 * overlap).clamp(min=0), math.nan)


def affine_invariant(a: Tensor, b: Tensor, ridge: float = 1e-6) -> Tensor:
    """``|ln(A^-1/2 B A^-1/2)|_F``: the same whatever invertible map acts on both (without a ridge).

    Args:
        a: [..., d, d] symmetric, positive semidefinite.
        b: the same.
        ridge: added to the diagonals. Directions that only one of the two has weigh ``ln(lam / ridge)`` each.

    Returns:
        [...] float64; NaN without a ridge where a matrix is singular to working precision, and where an entry is not
        finite.

    Example:
        >>> a, b = torch.tensor([1.0, 4.0], dtype=torch.float64).diag(), torch.tensor([4.0, 1.0]).double().diag()
        >>> round(affine_invariant(a, b, ridge=0.0).item(), 6)
        1.960516
    """
    a, b = _ridged(a, ridge), _ridged(b, ridge)
    positive = _positive(a) & _positive(b)
    a, b = (_regular(x, positive) for x in (a, b))
    # Singular values of L^-1 M, with A = L L^T and B = M M^T: eigenvalues would lose the small ones beside the large.
    ratio = torch.linalg.solve_triangular(torch.linalg.cholesky(a), torch.linalg.cholesky(b), upper=False)
    lam = torch.linalg.svdvals(ratio)
    good = positive & (lam > 0).all(-1)
    length: Tensor = 2 * torch.linalg.vector_norm(torch.where(lam > 0, lam, 1.0).log(), dim=-1)
    return torch.where(good, length, math.nan)


def stein(a: Tensor, b: Tensor, ridge: float = 1e-6) -> Tensor:
    """``ln det((A + B)/2) - (1/2) ln det(A B)``, the symmetric Stein loss: Jensen-Shannon of Gaussians, but for scale.

    Args:
        a: [..., d, d] symmetric, positive semidefinite.
        b: the same.
        ridge: as in ``affine_invariant``.

    Returns:
        [...] float64, at least 0; NaN as in ``affine_invariant``.

    Example:
        >>> a, b = torch.tensor([1.0, 4.0], dtype=torch.float64).diag(), torch.tensor([4.0, 1.0]).double().diag()
        >>> round(stein(a, b, ridge=0.0).item(), 6)
        0.446287
    """
    a, b = _ridged(a, ridge), _ridged(b, ridge)
    positive = _positive(a) & _positive(b)
    a, b = (_regular(x, positive) for x in (a, b))
    value = _log_det((a + b) / 2) - (_log_det(a) + _log_det(b)) / 2
    return torch.where(positive, value.clamp(min=0), math.nan)


def jensen_shannon(a: Tensor, b: Tensor) -> Tensor:
    """Von Neumann entropy of the mean less the mean entropy, of A/tr A and B/tr B: in [0, ln 2], blind to size.

    Args:
        a: [..., d, d] symmetric, positive semidefinite.
        b: the same.

    Returns:
        [...] nats, float64; NaN where a trace is 0 (all tokens equal) or an entry is not finite.

    Example:
        >>> a, b = torch.tensor([1.0, 4.0], dtype=torch.float64).diag(), torch.tensor([4.0, 1.0]).double().diag()
        >>> round(jensen_shannon(a, b).item(), 6)
        0.192745
    """
    usable = _usable(a, b) & (_trace(a) > 0) & (_trace(b) > 0)
    a, b = (_safe(_wide(x)) / torch.where(usable, _trace(x), 1.0)[..., None, None] for x in (a, b))
    value = _entropy((a + b) / 2) - (_entropy(a) + _entropy(b)) / 2
    return torch.where(usable, value.clamp(min=0), math.nan)


def sentence_distances(x: Tensor, y: Tensor, ridge: float = 1e-6) -> dict[str, Tensor]:
    """All five distances between the covariances (ddof 0) of two sets of token representations.

    Both covariances live in the span of the centred tokens, so the matrices have the side n + m where that is less
    than d; outside the span only the ridge is left, the same in both, and it cancels.

    Args:
        x: [..., n, d] tokens of one sentence, rows of any length.
        y: [..., m, d] tokens of the other.
        ridge: as in ``affine_invariant``.

    Returns:
        Name in ``DISTANCES`` -> [...] float64. Of a single token the covariance is 0: the Jensen-Shannon divergence
        is then NaN, the others are distances to the zero matrix.

    Example:
        >>> x = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
        >>> {name: round(d.item(), 3) for name, d in sentence_distances(x, x).items()}
        {'frobenius': 0.0, 'bures': 0.0, 'affine_invariant': 0.0, 'stein': 0.0, 'jensen_shannon': 0.0}
    """
    x, y = _centred(_wide(x)), _centred(_wide(y))
    n, m, d = x.shape[-2], y.shape[-2], x.shape[-1]
    if n + m < d:
        # Coordinates in an orthonormal basis of the joint span: the triangular factor of all tokens side by side.
        r = torch.linalg.qr(_safe(torch.cat([x.mT, y.mT], -1)), mode="r").R
        finite = (x.isfinite().flatten(-2).all(-1) & y.isfinite().flatten(-2).all(-1))[..., None, None]
        r = torch.where(finite, r, math.nan)
        x, y = r[..., :n].mT, r[..., n:].mT
    a, b = precise_matmul(x.mT, x) / n, precise_matmul(y.mT, y) / m
    return {
        "frobenius": frobenius(a, b),
        "bures": bures(a, b),
        "affine_invariant": affine_invariant(a, b, ridge),
        "stein": stein(a, b, ridge),
        "jensen_shannon": jensen_shannon(a, b),
    }


def _wide(x: Tensor) -> Tensor:
    return x.to(accumulator(x.device))


def _centred(z: Tensor) -> Tensor:
    z = z - z[..., :1, :]  # first a row, so that equal tokens give exactly zero
    centred: Tensor = z - z.mean(-2, keepdim=True)
    return centred


def _safe(x: Tensor) -> Tensor:
    return torch.where(x.isfinite(), x, 0.0)


def _usable(a: Tensor, b: Tensor) -> Tensor:
    return a.isfinite().flatten(-2).all(-1) & b.isfinite().flatten(-2).all(-1)


def _trace(x: Tensor) -> Tensor:
    trace: Tensor = _wide(x).diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace


def _power(x: Tensor, exponent: float) -> Tensor:
    lam, vectors = torch.linalg.eigh(_safe(_wide(x)))
    root: Tensor = (vectors * lam.clamp(min=0).pow(exponent).unsqueeze(-2)) @ vectors.mT
    return root


def _ridged(x: Tensor, ridge: float) -> Tensor:
    x = _wide(x)
    ridged: Tensor = x + ridge * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return ridged


def _positive(x: Tensor) -> Tensor:
    """Whether all eigenvalues stand above the rounding of the largest."""
    finite = x.isfinite().flatten(-2).all(-1)
    lam = torch.linalg.eigvalsh(torch.where(finite[..., None, None], x, 0.0))
    rounding = x.shape[-1] * torch.finfo(x.dtype).eps
    positive: Tensor = finite & (lam[..., 0] > rounding * lam[..., -1])
    return positive


def _regular(x: Tensor, positive: Tensor) -> Tensor:
    return torch.where(positive[..., None, None], x, torch.eye(x.shape[-1], dtype=x.dtype, device=x.device))


def _log_det(x: Tensor) -> Tensor:
    volume: Tensor = torch.linalg.slogdet(x).logabsdet
    return volume


def _entropy(x: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(torch.linalg.eigvalsh(x).clamp(min=0)).sum(-1)
    return entropy
