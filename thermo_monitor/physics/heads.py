"""From rows to heads: sums from which means and their errors follow, over any set of micro-batches and ranks.

Shapes: B examples, H query heads, R rows of each, N quantities. Ratios are formed per row and then added.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thermo_monitor.physics.canonical import ROW_QUANTITIES, RowStatistics, row_statistics
from thermo_monitor.physics.moments import Moments
from thermo_monitor.physics.precision import accumulator


@dataclass(frozen=True, slots=True)
class HeadSums:
    """Sums over the valid rows of every head.

    Attributes:
        names: N quantities, keys of the registry without ``attn/``.
        count: [H] number of valid rows with at least two keys.
        total: [N, H] sums over those rows.
        squared_error: [N, H + 1] squared standard error of the sums of each head, and of all heads together, which
            share their rows and so are not independent; None where the rows are not a random sample.
    """

    names: tuple[str, ...]
    count: Tensor
    total: Tensor
    squared_error: Tensor | None = None

    def merge(self, other: HeadSums) -> HeadSums:
        """Sums over the rows of both, which were drawn independently if they were drawn."""
        if self.names != other.names:
            raise ValueError(f"sums of {self.names} and of {other.names} cannot be added")
        error = None
        if self.squared_error is not None and other.squared_error is not None:
            error = self.squared_error + other.squared_error
        return HeadSums(self.names, self.count + other.count, self.total + other.total, error)

    def mean(self, name: str) -> Tensor:
        """[H] mean over rows of a quantity; NaN without rows."""
        return self.total[self.names.index(name)] / self.count

    def standard_error(self, name: str) -> Tensor:
        """[H] standard error of the mean over a simple random sample of rows; NaN with fewer than two."""
        return self._squared_error(name)[:-1].sqrt() / self.count

    def standard_error_of_all(self, name: str) -> Tensor:
        """0-d standard error of the mean over the rows of all heads."""
        return self._squared_error(name)[-1].sqrt() / self.count.sum()

    def _squared_error(self, name: str) -> Tensor:
        if self.squared_error is None:
            raise ValueError("the error is not known: ask for it with sampled_from=, the number of rows there are")
        return self.squared_error[self.names.index(name)]

    def reduced_temperature(self) -> Tensor:
        """[H] reduced temperature of each head, see ``reduced_temperature``; needs ``logit_std``."""
        return reduced_temperature(self.mean("logit_std"))


@dataclass(frozen=True, slots=True)
class RowSums:
    """Sums over examples of every row position of every head: positions are what is sampled, and all heads share them.

    Attributes:
        names: N quantities.
        count: [H, R] examples in which this row is valid and has at least two keys.
        total: [N, H, R] sums over those.
    """

    names: tuple[str, ...]
    count: Tensor
    total: Tensor

    def __add__(self, other: RowSums) -> RowSums:
        """Sums over further examples of the same rows."""
        return RowSums(self.names, self.count + other.count, self.total + other.total)

    def heads(self, sampled_from: int | None = None) -> HeadSums:
        """Sums over the rows as well.

        With y_r and c_r the sum and the count of position r, m of M positions and the mean y / c, the squared error of
        y is ``m / (m - 1) sum_r (y_r - (y / c) c_r)^2 (1 - m / M)`` (Cochran 1977, section 6, for a ratio).

        Args:
            sampled_from: M, if the positions are a simple random sample of so many.
        """
        count, total = self.count.sum(-1), self.total.sum(-1)
        if sampled_from is None:
            return HeadSums(self.names, count, total)
        m = self.count.shape[-1]
        residual = self.total - (total / count.clamp(min=1)).unsqueeze(-1) * self.count
        residual = torch.cat([residual, residual.sum(1, keepdim=True)], 1)
        if m >= sampled_from:
            error = torch.zeros_like(residual[..., 0])
        elif m < 2:
            error = torch.full_like(residual[..., 0], math.nan)
        else:
            error = residual.square().sum(-1) * (m / (m - 1) * (1 - m / sampled_from))
        return HeadSums(self.names, count, total, error)


def row_sums(
    stats: RowStatistics, valid: Tensor | None = None, names: Sequence[str] = tuple(ROW_QUANTITIES)
) -> RowSums:
    """Sums over examples, per row position and head. Only the quantities asked for are formed.

    Rows with fewer than two keys carry no information and are dropped for all quantities; a row that is not finite is
    not, so that it shows.

    Args:
        stats: statistics of rows [B, H, R].
        valid: bool, broadcastable to [B, H, R]; False: a query that does not count, such as padding.
        names: keys of ``ROW_QUANTITIES``.

    Returns:
        Sums in float64 (float32 on devices without it).
    """
    names = tuple(names)
    unknown = [name for name in names if name not in ROW_QUANTITIES]
    if unknown:
        raise ValueError(f"no quantities of a row: {unknown}; there are {sorted(ROW_QUANTITIES)}")
    keep = stats.n >= 2 if valid is None else (stats.n >= 2) & valid
    wide = accumulator(stats.n.device)
    count = keep.sum(0).to(wide)
    if not names:
        return RowSums(names, count, count.new_zeros(0, *count.shape))
    values = torch.stack([ROW_QUANTITIES[name](stats) for name in names])
    return RowSums(names, count, torch.where(keep, values, 0.0).sum(1, dtype=wide))


def head_sums(
    stats: RowStatistics,
    valid: Tensor | None = None,
    names: Sequence[str] = tuple(ROW_QUANTITIES),
    *,
    sampled_from: int | None = None,
) -> HeadSums:
    """Sums over examples and rows, per head; see ``row_sums`` and ``RowSums.heads``.

    Args:
        stats: statistics of rows [B, H, R].
        valid: bool, broadcastable to [B, H, R]; False: a query that does not count, such as padding.
        names: keys of ``ROW_QUANTITIES``.
        sampled_from: of how many row positions these are a simple random sample, for standard errors.

    Example:
        >>> z = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)  # C = 0.196611933 and 0
        >>> sums = head_sums(row_statistics(z), names=("specific_heat", "entropy_fraction"))
        >>> sums.count.tolist(), round(sums.mean("specific_heat").item(), 9)
        ([2.0], 0.098305967)
    """
    return row_sums(stats, valid, names).heads(sampled_from)


def reduced_temperature(mean_logit_std: Tensor) -> Tensor:
    """Reduced temperature of a head, ``T* = 1 / mean over rows of the logit spread``: average first, then invert.

    In units in which random energies of unit spread have temperature 1. Falls as the logits sharpen.

    Args:
        mean_logit_std: [...] mean over rows of ``logit_std``.

    Returns:
        [...]; NaN where the spread is zero.

    Example:
        >>> reduced_temperature(torch.tensor([2.0, 0.0])).tolist()
        [0.5, nan]
    """
    return torch.where(mean_logit_std > 0, 1 / mean_logit_std, math.nan)


def pooled_moments(stats: RowStatistics, valid: Tensor | None = None) -> Moments:
    """Moments of all unmasked logits of a head, merged from those of its rows without another pass over the logits.

    Args:
        stats: statistics of rows [B, H, R].
        valid: bool, broadcastable to [B, H, R].

    Returns:
        [H] moments in float64; ``pooled(0)`` merges the heads and ``merge`` layers or batches.

    Example:
        >>> z = torch.tensor([[[[1.0, 0.0], [11.0, 10.0]]]], dtype=torch.float64)
        >>> round(pooled_moments(row_statistics(z)).variance().item(), 9)
        33.666666667
    """
    wide = accumulator(stats.n.device)
    keep = stats.n >= 1 if valid is None else (stats.n >= 1) & valid
    count = torch.where(keep, stats.n, 0.0).to(wide)
    mean = torch.where(keep, stats.plain_mean, 0.0).to(wide)
    m2 = torch.where(keep & (stats.n >= 2), stats.plain_variance * stats.n, 0.0).to(wide)
    return Moments(count, mean, m2).pooled((0, 2))


def specific_heat_pooled(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Pooled logit variance, variant B: variance (ddof 1) of all unmasked logits of a head over examples and rows.

    No specific heat in the canonical sense: it changes when a row is shifted by a constant and has no upper bound
    (arXiv:2607.20552, eq. 2, where all heads and layers are pooled as well: merge ``pooled_moments`` for that).

    Args:
        z: [B, H, Q, K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [H]; NaN with fewer than two logits.

    Example:
        >>> z = torch.tensor([[[[1.0, 0.0], [11.0, 10.0]]]], dtype=torch.float64)
        >>> round(specific_heat_pooled(z).item(), 9)
        33.666666667
    """
    return pooled_moments(row_statistics(z, mask)).variance()
