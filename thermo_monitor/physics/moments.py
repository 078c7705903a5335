"""Count, mean and centred sum of squares: the three numbers through which variances merge exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thermo_monitor.physics.precision import accumulator


@dataclass(frozen=True, slots=True)
class Moments:
    """Moments of a set of numbers, any shape, one set per element.

    Sums travel and means do not: two sets merge without loss, in any order, over micro-batches, heads and ranks
    (Chan, Golub & LeVeque 1983). Unlike a sum of squares, ``m2`` keeps its digits when the mean is large.

    Attributes:
        count: how many numbers.
        mean: their mean, 0 for an empty set.
        m2: sum of (x - mean)^2.

    Example:
        >>> one, two = (moments_of(torch.tensor(x)) for x in ([1.0, 0.0], [11.0, 10.0]))
        >>> round(one.merge(two).variance().item(), 9)
        33.666666667
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def merge(self, other: Moments) -> Moments:
        """Moments of the union of both sets."""
        pairs = (self.count, other.count), (self.mean, other.mean), (self.m2, other.m2)
        return Moments(*(torch.stack(pair) for pair in pairs)).pooled(0)

    def pooled(self, dim: int | tuple[int, ...]) -> Moments:
        """Moments of the union of the sets along some dimensions, for example of all heads of a layer."""
        if dim == ():  # to torch, no dimension means every dimension
            return self
        count = self.count.sum(dim)
        mean = (self.count * self.mean).sum(dim) / count.clamp(min=1)
        shift = self.mean - _restored(mean, dim, self.mean)
        return Moments(count, mean, (self.m2 + self.count * shift * shift).sum(dim))

    def variance(self) -> Tensor:
        """Sample variance (ddof 1); NaN with fewer than two numbers."""
        return torch.where(self.count >= 2, self.m2 / (self.count - 1).clamp(min=1), torch.nan)


def _restored(reduced: Tensor, dim: int | tuple[int, ...], like: Tensor) -> Tensor:
    """The result of a reduction, with its dimensions back so that it broadcasts against the input."""
    for axis in sorted(axis % like.dim() for axis in (dim if isinstance(dim, tuple) else (dim,))):
        reduced = reduced.unsqueeze(axis)
    return reduced


def moments_of(x: Tensor, keep: Tensor | None = None) -> Moments:
    """Moments of all elements of a tensor.

    Args:
        x: any shape.
        keep: bool, broadcastable to x; False: the element does not belong to the set, whatever its value.

    Returns:
        0-d moments in float64.

    Example:
        >>> moments_of(torch.tensor([1.0, 3.0, torch.inf]), torch.tensor([True, True, False])).variance().item()
        2.0
    """
    x = x.to(accumulator(x.device))
    if keep is None:
        count, total = x.new_full((), x.numel()), x.sum()
    else:
        keep = keep.expand_as(x)
        count, total = keep.sum().to(x.dtype), torch.where(keep, x, 0.0).sum()
    mean = total / count.clamp(min=1)
    shift = x - mean
    square = shift * shift if keep is None else torch.where(keep, shift * shift, 0.0)
    return Moments(count, mean, square.sum())


def raw_moments(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Count, sum and sum of squares, which simply add up, from count, mean and centred sum of squares.

    In float64 a variance keeps ``16 - 2 log10(mean / standard deviation)`` digits on the way.

    Args:
        moments: [3, ...] count, mean and m2.

    Example:
        >>> raw_moments(np.array([2.0, 3.0, 8.0])).tolist(), moments_from_raw(np.array([2.0, 6.0, 26.0])).tolist()
        ([2.0, 6.0, 26.0], [2.0, 3.0, 8.0])
    """
    count, mean, m2 = moments
    return np.stack([count, count * mean, m2 + count * mean**2])


def moments_from_raw(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """The way back."""
    count, total, squares = raw
    mean = total / np.maximum(count, 1.0)
    m2 = squares - count * mean**2
    return np.stack([count, mean, np.where(m2 < 0, 0.0, m2)])  # rounding; what is no number stays none
