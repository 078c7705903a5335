"""How much a new token adds to the ones before it.

Of a Gaussian process with kernel k and noise sigma^2, the observation of one more point x gains
``(1/2) ln(1 + s^2 / sigma^2)`` nats, s^2 being the variance that the points before leave to x. With the linear kernel
s^2 is the residual of a ridge regression of x on them. The gains of all positions add up to a log-determinant.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thermo_monitor.physics.precision import accumulator


def information_gain(z: Tensor, x: Tensor, sigma: float = 0.01) -> Tensor:
    """Gain of one token over others, by ridge regression.

    ``(1/2) ln(1 + s^2/sigma^2)`` with ``s^2 = min_a |x - z^T a|^2 + sigma^2 |a|^2``, which equals
    ``k(x, x) - k^T (K + sigma^2 I)^-1 k`` for the linear kernel. A token in the span of the others gains what its
    coefficients cost, ``(1/2) ln(1 + |a|^2)`` for small sigma; an unforeseen one about ``ln(|x| / sigma)``. The
    identity is standard; that Tan, Li & Huang 2024 (arXiv:2402.03471) use this kernel is a guess.

    Args:
        z: [..., n, d] the tokens before, n >= 0.
        x: [..., d] the new one; the dots stand for the same in both.
        sigma: noise, in the unit of the representations; positive.

    Returns:
        [...] nats, float64, at least 0; NaN where an entry is not finite.

    Raises:
        ValueError: sigma is not positive.

    Example:
        >>> z = torch.eye(3, dtype=torch.float64)[:2]
        >>> x = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
        >>> [round(gain, 6) for gain in information_gain(z, x, sigma=1.0).tolist()]
        [0.549306, 0.346574]
    """
    _check(sigma)
    wide = accumulator(z.device)
    z, x = z.to(wide), x.to(wide)
    usable = z.isfinite().flatten(-2).all(-1) & x.isfinite().all(-1)
    z, x = torch.where(usable[..., None, None], z, 0.0), torch.where(usable[..., None], x, 0.0)
    batch, n = z.shape[:-2], z.shape[-2]
    # One least-squares problem instead of normal equations, which would square the condition number.
    a = torch.cat([z.mT, sigma * torch.eye(n, dtype=wide, device=z.device).expand(*batch, n, n)], -2)
    b = torch.cat([x, x.new_zeros(*batch, n)], -1).unsqueeze(-1)
    q = torch.linalg.qr(a).Q
    residual = b - q @ (q.mT @ b)
    residual = residual - q @ (q.mT @ residual)  # the second pass takes away what the first one rounded
    s2 = residual.square().sum((-2, -1))
    return torch.where(usable, torch.log1p(s2 / sigma**2) / 2, math.nan)


def information_gains(z: Tensor, sigma: float = 0.01) -> Tensor:
    """Gain of each token over those before it, all at once.

    The gain of position t is the step of ``(1/2) ln det(I + z z^T / sigma^2)`` when row t is added. All steps are
    read off one triangular factor, ``R^T R = z z^T + sigma^2 I``: gain_t = ln(|R_tt| / sigma).

    Args:
        z: [..., n, d] representations in the order of the text.
        sigma: as in ``information_gain``.

    Returns:
        [..., n] nats, float64, at least 0; the first is ``(1/2) ln(1 + |z_0|^2 / sigma^2)``. NaN in a sequence
        that holds an entry that is not finite.

    Raises:
        ValueError: sigma is not positive.

    Example:
        A token that was there before gains half of ln 2 or less: the first is remembered.

        >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
        >>> [round(gain, 4) for gain in information_gains(z).tolist()]
        [4.6052, 0.3465]
    """
    _check(sigma)
    z = z.to(accumulator(z.device))
    usable = z.isfinite().flatten(-2).all(-1)
    z = torch.where(usable[..., None, None], z, 0.0)
    n = z.shape[-2]
    noise = sigma * torch.eye(n, dtype=z.dtype, device=z.device).expand(*z.shape[:-2], n, n)
    r = torch.linalg.qr(torch.cat([z.mT, noise], -2), mode="r").R
    gains: Tensor = (r.diagonal(dim1=-2, dim2=-1).abs() / sigma).log().clamp(min=0)
    return torch.where(usable.unsqueeze(-1), gains, math.nan)


def information_gains_from_gram(gram: Tensor, sigma: float = 0.01) -> Tensor:
    """``information_gains`` for any kernel, from its matrix over the tokens of a sequence.

    Args:
        gram: [..., n, n] symmetric, positive semidefinite.
        sigma: noise; the smaller it is beside the entries of the matrix, the more digits the squares cost.

    Returns:
        [..., n] nats, float64; NaN where the matrix is not finite, or not positive semidefinite.

    Raises:
        ValueError: sigma is not positive.

    Example:
        >>> [round(gain, 6) for gain in information_gains_from_gram(torch.eye(2), sigma=1.0).tolist()]
        [0.346574, 0.346574]
    """
    _check(sigma)
    gram = gram.to(accumulator(gram.device))
    usable = gram.isfinite().flatten(-2).all(-1)
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    safe = torch.where(usable[..., None, None], gram, identity) + sigma**2 * identity
    factor, failed = torch.linalg.cholesky_ex(safe)
    gains = (factor.diagonal(dim1=-2, dim2=-1) / sigma).log().clamp(min=0)
    return torch.where((usable & (failed == 0)).unsqueeze(-1), gains, math.nan)


def _check(sigma: float) -> None:
    if not sigma > 0:
        raise ValueError(f"sigma={sigma}: the noise has to be positive")
