"""How many directions the representations of a layer use.

Input ``z [..., n, d]``: n token representations of width d. Every quantity follows from a Gram matrix of the smaller
side (``gram``). Determinants and eigenvalues are then taken of a copy on the host, in float64, because on a device they
wait for it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thermo_monitor.physics.gram import centred_gram as centred_gram
from thermo_monitor.physics.gram import normalised_gram as normalised_gram
from thermo_monitor.physics.precision import accumulator


def representation_entropy_from_gram(gram: Tensor, n: int | Tensor | None, d: int, eps: float = 0.1) -> Tensor:
    """``representation_entropy`` from ``normalised_gram``; for a copy on the host.

    Args:
        gram: [..., m, m] Gram matrix of unit rows.
        n: number of rows that are not zero. None: the trace of the matrix, rounded, which is that number.
        d: width of the representations.
        eps: as in ``representation_entropy``.

    Returns:
        [...] float64; NaN without rows.

    Example:
        As many equal directions as dimensions.

        >>> representation_entropy_from_gram(torch.eye(64), None, 64).item()
        1.0
    """
    gram = gram.to(accumulator(gram.device))
    rows = (
        gram.diagonal(dim1=-2, dim2=-1).sum(-1).round()
        if n is None
        else torch.as_tensor(n, device=gram.device).to(gram.dtype)
    )
    a = d / (rows.clamp(min=1) * eps * eps)
    matrix = gram * a[..., None, None]
    matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
    # Symmetric with no eigenvalue below 1, up to rounding: half of the work of a determinant of any matrix.
    factor, failed = torch.linalg.cholesky_ex(matrix)
    volume = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + _zero_if_finite(gram)
    # What has no factor is no Gram matrix, and a determinant of it would be a guess.
    return torch.where((rows > 0) & (failed == 0), volume / (d * math.log1p(1 / eps**2)), math.nan)


def _zero_if_finite(gram: Tensor) -> Tensor:
    """[...] 0 where all elements of a matrix are finite, else NaN: added to what follows from it, it spoils that."""
    return (gram * 0).sum((-2, -1))


def representation_entropy(z: Tensor, eps: float = 0.1) -> Tensor:
    """Rate-distortion volume of unit representations, ``ln det(I + d/(n eps^2) Z^T Z) / (d ln(1 + 1/eps^2))``.

    How much space the directions of the tokens fill at resolution eps: 1 for isotropic directions, close to 0 when all
    point the same way. Rows are brought to unit length and zero rows are dropped. With fewer rows than d it stays
    below ``(n/d) ln(1 + d/(n eps^2)) / ln(1 + 1/eps^2)``, so values of different widths or lengths do not compare.
    The definition is a reconstruction of that of Tan, Li & Huang 2024, arXiv:2402.03471; coding length:
    Ma et al. 2007.

    Args:
        z: [..., n, d] representations.
        eps: distortion, relative to the unit length.

    Returns:
        [...] float64 in (0, 1]; NaN without a row that is not zero.

    Example:
        Identical tokens, d = 64.

        >>> round(representation_entropy(torch.ones(10, 64, dtype=torch.float64)).item(), 7)
        0.0296722
    """
    return representation_entropy_from_gram(normalised_gram(z), None, z.shape[-1], eps)


def spectrum_from_gram(gram: Tensor) -> Tensor:
    """``spectrum`` from ``centred_gram``; for a copy on the host.

    Args:
        gram: [..., m, m] symmetric, positive semidefinite.

    Returns:
        [..., m] float64, largest first, sum 1; NaN if the matrix is zero or not finite.

    Example:
        >>> spectrum_from_gram(torch.diag(torch.tensor([1.0, 3.0]))).tolist()
        [0.75, 0.25]
    """
    gram = gram.to(accumulator(gram.device))
    lam = torch.linalg.eigvalsh(gram.nan_to_num(0.0, 0.0, 0.0)).flip(-1).clamp(min=0)
    shares: Tensor = lam / lam.sum(-1, keepdim=True)  # zero over zero is NaN
    return shares + _zero_if_finite(gram).unsqueeze(-1)


def spectrum(z: Tensor) -> Tensor:
    """Normalised eigenvalues of the covariance of the representations: the share of variance of each direction.

    Args:
        z: [..., n, d] representations.

    Returns:
        [..., min(n, d)] float64, largest first, sum 1 (the d - n others are zero); NaN if all rows are equal.

    Example:
        >>> spectrum(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])).tolist()
        [0.5, 0.5]
    """
    return spectrum_from_gram(centred_gram(z))


def spectral_entropy(lam: Tensor, d: int) -> Tensor:
    """Entropy of the spectrum as a share of its largest value, ``-sum lam ln lam / ln d``.

    1: variance in all directions alike, 0: in one. Falls when representations reorganise (Truong et al. 2026,
    arXiv:2604.13123).

    Args:
        lam: [..., m] normalised eigenvalues.
        d: width of the representations, at least 2.

    Returns:
        [...] in [0, 1]; NaN if the spectrum is, or for d = 1.

    Example:
        >>> spectral_entropy(torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64), 4).item()
        0.875
    """
    value = torch.special.entr(lam).sum(-1)
    return value / math.log(d) if d > 1 else torch.full_like(value, math.nan)


def effective_rank(lam: Tensor) -> Tensor:
    """Number of directions that carry the variance, ``exp(-sum lam ln lam)`` (Roy & Vetterli 2007).

    Args:
        lam: [..., m] normalised eigenvalues.

    Returns:
        [...] in [1, m]; NaN if the spectrum is.

    Example:
        >>> round(effective_rank(torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)).item(), 6)
        3.363586
    """
    entropy: Tensor = torch.special.entr(lam).sum(-1)
    return entropy.exp()


def participation_ratio(lam: Tensor) -> Tensor:
    """Number of dominant directions, ``(sum lam)^2 / sum lam^2``: smaller than the effective rank, blind to the tail.

    Args:
        lam: [..., m] eigenvalues, normalised or not.

    Returns:
        [...] in [1, m]; NaN if the spectrum is.

    Example:
        >>> round(participation_ratio(torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)).item(), 6)
        2.909091
    """
    total: Tensor = lam.sum(-1)
    ratio: Tensor = total * total / (lam * lam).sum(-1)
    return ratio


def head_tail_contrast(lam: Tensor, top: int = 5) -> Tensor:
    """How far the largest eigenvalues stand out, ``m = ln(sum of the top ones / sum of the rest)``.

    An order parameter of representations that condense into few directions (Bi et al. 2026, arXiv:2603.24746; known
    second-hand). To be taken on held-out data.

    Args:
        lam: [..., m] eigenvalues, largest first, normalised or not.
        top: how many count as the head.

    Returns:
        [...]; NaN with ``top`` directions or fewer, and where the rest is less than a millionth of the whole, which is
        what rounding in single precision leaves of zero.

    Example:
        >>> round(head_tail_contrast(torch.full((10,), 0.1, dtype=torch.float64)).item(), 12)
        0.0
    """
    head, rest = lam[..., :top].sum(-1), lam[..., top:].sum(-1)
    usable = rest > 1e-6 * head
    return torch.where(usable, (head / torch.where(usable, rest, 1.0)).log(), math.nan)


def binder_cumulant(m: Tensor) -> Tensor:
    """Shape of the distribution of an order parameter over runs, ``U4 = 1 - <m^4> / (3 <m^2>^2)``.

    2/3: the same size of m in every run; 0: Gaussian around zero; below zero: runs of two kinds, as where two phases
    coexist. Not invariant to a shift of m, so m has to have a natural zero (Binder 1981).

    Args:
        m: [..., R] one value for each of R runs, R >= 2.

    Returns:
        [...]; NaN with fewer than 2 runs and where all m are 0.

    Example:
        >>> round(binder_cumulant(torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64)).item(), 9)
        0.666666667
    """
    if m.shape[-1] < 2:
        return torch.full(m.shape[:-1], math.nan, dtype=m.dtype, device=m.device)
    scale = m.abs().amax(-1)
    usable = scale > 0
    square = (m / torch.where(usable, scale, 1.0).unsqueeze(-1)).square()  # fourth powers of small numbers vanish
    second = square.mean(-1)
    ratio = square.square().mean(-1) / torch.where(usable, second.square(), 1.0)
    return torch.where(usable, 1 - ratio / 3, math.nan)


def representation_entropy_cap(n: int, d: int, eps: float = 0.1) -> float:
    """Largest representation entropy that n rows of width d can have: that of min(n, d) equal directions.

    Example:
        >>> round(representation_entropy_cap(8, 64), 7), round(representation_entropy_cap(100, 64), 7)
        (0.1810858, 1.0)
    """
    r = min(n, d)
    return r / d * math.log1p(d / (r * eps**2)) / math.log1p(1 / eps**2) if r else math.nan
