"""Gram matrices of token representations, on their device.

Input ``z [..., n, d]``: n token representations of width d. What is said of them follows from a matrix of the smaller
side, ``[m, m]`` with m = min(n, d): matrix products, cheap on a device and without synchronisation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from thermo_monitor.physics.precision import precise_matmul, working

_SIDE = 1024  # of the blocks in which large Gram matrices are made


def _small_gram(x: Tensor) -> Tensor:
    """``x^T x`` or ``x x^T``, whichever is smaller; both have the same eigenvalues apart from zeros."""
    columns = x.mT if x.shape[-2] < x.shape[-1] else x
    m = columns.shape[-1]
    if m < 2 * _SIDE:
        return precise_matmul(columns.mT, columns)
    # The lower half is the mirror image of the upper one, so it is not computed.
    gram = columns.new_empty(*columns.shape[:-2], m, m)
    for at in range(0, m, _SIDE):
        here = slice(at, at + _SIDE)
        gram[..., here, at:] = precise_matmul(columns[..., here].mT, columns[..., at:])
        gram[..., at + _SIDE :, here] = gram[..., here, at + _SIDE :].mT
    return gram


def normalised_gram(z: Tensor, present: Tensor | None = None) -> Tensor:
    """Gram matrix of the rows brought to unit length. Its trace is the number of rows that are not zero.

    Args:
        z: [..., n, d] representations, any float dtype.
        present: [..., n] bool; False: the row does not count, as if it were zero. None: all count.

    Returns:
        [..., m, m], m = min(n, d), float32 or float64.

    Example:
        >>> normalised_gram(torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 2.0]])).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    z = working(z)
    if present is not None:
        z = torch.where(present.unsqueeze(-1), z, 0.0)
    # By the largest entry first: the square of a small number is zero long before the number is.
    # Zero stays zero over the smallest number, and nothing else is that small but what rounding has spoilt already.
    tiny = torch.finfo(z.dtype).tiny
    z = z / z.abs().amax(-1, keepdim=True).clamp(min=tiny)
    return _small_gram(z / torch.linalg.vector_norm(z, dim=-1, keepdim=True).clamp(min=tiny))


def centred_gram(z: Tensor, present: Tensor | None = None) -> Tensor:
    """Covariance (ddof 0) of the representations, or the smaller matrix with the same eigenvalues apart from zeros.

    A constant representation gives exactly zero: a row is subtracted before the mean is.

    Args:
        z: [..., n, d] representations, any float dtype.
        present: [..., n] bool; False: the row does not count. None: all count.

    Returns:
        [..., m, m], m = min(n, d), float32 or float64.

    Example:
        >>> centred_gram(torch.tensor([[1.0, 5.0], [3.0, 5.0], [1.0, 5.0], [3.0, 5.0]])).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    z = working(z)
    if present is None:
        x = z - z[..., :1, :]
        x = x - x.mean(-2, keepdim=True)
        count: Tensor | int = max(1, z.shape[-2])
    else:
        keep = present.unsqueeze(-1).expand(*z.shape[:-1], 1)
        z = torch.where(keep, z, 0.0)
        first = keep.to(torch.uint8).argmax(-2, keepdim=True).expand(*z.shape[:-2], 1, z.shape[-1])
        count = keep.sum(-2, keepdim=True).clamp(min=1).to(z.dtype)
        x = torch.where(keep, z - z.gather(-2, first), 0.0)
        x = torch.where(keep, x - x.sum(-2, keepdim=True) / count, 0.0)
    return _small_gram(x) / count
