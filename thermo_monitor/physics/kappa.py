"""Whether a statistic of attention rows settles as the context grows: a surrogate for a constant of Kim 2026.

The source (arXiv:2602.08216) shows a constant kappa that settles for two architectures as the context volume grows;
its formula is not public to us. What can be asked without it: is a candidate intensive, that is, does its mean over
rows with n keys stop depending on n, and does its scatter shrink? Rows are sorted into octaves of n. The candidate
decides the answer (for independent logits of fixed variance C tends to a constant while C/C_max falls to 0), so all of
``CANDIDATES`` are to be shown. A reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from thermo_monitor.physics.canonical import ROW_QUANTITIES, RowStatistics
from thermo_monitor.physics.precision import accumulator

CANDIDATES: dict[str, Callable[[RowStatistics], Tensor]] = {
    "specific_heat": ROW_QUANTITIES["specific_heat"],
    "specific_heat_norm": ROW_QUANTITIES["specific_heat_norm"],
    "entropy_fraction": ROW_QUANTITIES["entropy_fraction"],
    "free_energy_gap": lambda row: ROW_QUANTITIES["free_energy_gap"](row) / row.n.log(),
}
"""What may be intensive, as functions of the statistics of rows: C, C/C_max, S/ln n, gap/ln n."""

OCTAVES = 24
"""Bins: octave j holds the rows with 2^j <= n < 2^(j+1)."""
LEAST_ROWS = 100
LEAST_OCTAVES = 4
# Two-sided 95 % points of Student's t for 1, 2, ... degrees of freedom.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074,
)  # fmt: skip


class OctaveSums(NamedTuple):
    """Sums over the rows of each octave, which add up over layers, heads and batches.

    Attributes:
        rows: [OCTAVES] how many.
        log_n: [OCTAVES] sum of ln n.
        total: [OCTAVES] sum of the candidate.
        squares: [OCTAVES] sum of its squares.
    """

    rows: Tensor
    log_n: Tensor
    total: Tensor
    squares: Tensor


class Kappa(NamedTuple):
    """How a candidate depends on the length of the context.

    Attributes:
        slope: of its mean over the rows of an octave against ln n.
        slope_error: half the 95 % interval of the slope, from the scatter of the octaves around the line.
        spread_ratio: standard deviation in the last octave over that in the first.
        octaves: how many octaves had enough rows.
    """

    slope: Tensor
    slope_error: Tensor
    spread_ratio: Tensor
    octaves: Tensor

    @property
    def intensive(self) -> Tensor:
        """Whether the interval of the slope holds 0 and the scatter falls; false where it cannot be told."""
        return (self.slope.abs() <= self.slope_error) & (self.spread_ratio < 1)


def octave_sums(values: Tensor, n: Tensor, valid: Tensor | None = None) -> OctaveSums:
    """Sort rows into octaves of their number of keys.

    Args:
        values: [...] a candidate for each row.
        n: [...] number of keys of each row.
        valid: bool, broadcastable; rows that are no padding. None: all. Rows with fewer than two keys never count.

    Returns:
        Four tensors [OCTAVES], float64.

    Example:
        >>> octave_sums(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([2.0, 3.0, 4.0])).rows[:4].tolist()
        [0.0, 2.0, 1.0, 0.0]
    """
    high = accumulator(values.device)
    keep = n.expand(values.shape) >= 2
    keep = keep if valid is None else keep & valid
    n = torch.where(keep, n, 2.0).to(high)
    x = torch.where(keep, values, 0.0).to(high).flatten()
    weight = keep.to(high).flatten()
    # A hair above, so that the logarithm of a power of two is not rounded below its octave.
    at = ((n.log2() + 1e-9).floor().long().clamp(0, OCTAVES - 1)).flatten()

    def added(each: Tensor) -> Tensor:
        return each.new_zeros(OCTAVES).scatter_add(0, at, each)

    return OctaveSums(added(weight), added(n.log().flatten() * weight), added(x), added(x * x))


def kappa_surrogate(sums: OctaveSums) -> Kappa:
    """Slope of the means of octaves against ln n, and how the scatter changes from the first octave to the last.

    Octaves with fewer than ``LEAST_ROWS`` rows are left out. The line is fitted without weights, because rows of one
    sequence hang together and the error of a mean over them is larger than their number says. For sums on the host.

    Args:
        sums: of :func:`octave_sums`.

    Returns:
        Four numbers; NaN with fewer than ``LEAST_OCTAVES`` octaves.

    Example:
        >>> n = torch.arange(16, 1024).repeat(8).double()
        >>> found = kappa_surrogate(octave_sums(n.log(), n))
        >>> round(found.slope.item(), 6), found.octaves.item()
        (1.0, 6)
    """
    used = sums.rows >= LEAST_ROWS
    count = sums.rows.clamp(min=1)
    x, y = sums.log_n / count, sums.total / count
    deviation = (sums.squares / count - y * y).clamp(min=0).sqrt()
    octaves = used.sum()
    k = octaves.clamp(min=1).to(x.dtype)

    def mean(each: Tensor) -> Tensor:
        return torch.where(used, each, 0.0).sum() / k

    dx, dy = x - mean(x), y - mean(y)
    spread = mean(dx * dx)
    slope = mean(dx * dy) / spread
    left = mean((dy - slope * dx).square()) * k / (k - 2)
    t = torch.tensor(_T95, dtype=x.dtype, device=x.device)[(octaves - 3).clamp(0, len(_T95) - 1)]
    error = t * (left / (k * spread)).sqrt()
    position = torch.arange(OCTAVES, device=x.device)
    first = torch.where(used, position, OCTAVES - 1).amin()
    last = torch.where(used, position, 0).amax()
    ratio = deviation.gather(0, last.view(1)) / deviation.gather(0, first.view(1))
    known = octaves >= LEAST_OCTAVES
    slope, error, ratio = (torch.where(known, each, math.nan) for each in (slope, error, ratio[0]))
    return Kappa(slope, error, ratio, octaves)
