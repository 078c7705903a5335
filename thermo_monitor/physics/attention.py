"""Attention as many small canonical ensembles: logits, which rows count, and sums per head.

Shapes: B examples, H query heads, Hkv key heads (H a multiple of it), Q queries, K keys, D head dimension, R selected
queries. The logits are the exact argument of the softmax; the rows of a head are averaged, never its weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thermo_monitor.physics.canonical import ROW_QUANTITIES, RowStatistics, row_statistics
from thermo_monitor.physics.moments import Moments
from thermo_monitor.physics.precision import accumulator, precise_matmul, working


def attention_logits(
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The argument of the attention softmax, ``z = scale q k^T + bias``, and the keys that each query may attend to.

    Args:
        q: [B, H, Q, D] queries, after everything the model does to them (normalisation, rotation).
        k: [B, Hkv, K, D] keys. Query heads ``h G ... h G + G - 1`` share key head h, G = H / Hkv, as in
            ``scaled_dot_product_attention(enable_gqa=True)``; the keys are not repeated in memory.
        scale: what the model multiplies the products with, usually ``D ** -0.5``.
        mask: broadcastable to [B, H, Q, K]. Bool: True means may attend. Float: added to the logits; values at or
            below half the lowest number of the mask's type, -inf included, mean masked.
        bias: float, broadcastable to [B, H, Q, K], added to the logits.
        causal: query i attends to keys 0 ... i, aligned at the top left as in ``is_causal=True``.
        rows: [R] indices of the queries to compute. None: all, R = Q.

    Returns:
        logits [B, H, R, K] in float32, or float64 if q is; and bool, broadcastable to it, True where the key is a
        state, or None if every key of every row is. Logits of masked keys have no meaning.

    Raises:
        ValueError: if the heads cannot share keys, or the mask holds integers.

    Example:
        >>> q, k = torch.ones(1, 2, 3, 4), torch.ones(1, 1, 3, 4)
        >>> z, allowed = attention_logits(q, k, scale=0.5, causal=True, rows=torch.tensor([1]))
        >>> z.shape, z[0, 1, 0].tolist(), allowed.tolist()
        (torch.Size([1, 2, 1, 3]), [2.0, 2.0, 2.0], [[True, True, False]])
    """
    batch, heads, queries, width = q.shape
    key_heads, keys = k.shape[1], k.shape[2]
    if heads % key_heads:
        raise ValueError(f"{heads} query heads cannot share {key_heads} key heads: give a multiple of it")
    if rows is not None:
        q = q.index_select(2, rows)
        mask, bias = _take_rows(mask, rows, queries), _take_rows(bias, rows, queries)
    grouped = (working(q) * scale).reshape(batch, key_heads, heads // key_heads * q.shape[2], width)
    z = precise_matmul(grouped, k.to(grouped.dtype).transpose(-1, -2)).view(batch, heads, q.shape[2], keys)
    if bias is not None:
        z = z + bias
    allowed = None
    if mask is not None:
        if mask.dtype == torch.bool:
            allowed = mask
        elif mask.is_floating_point():
            masked = mask <= torch.finfo(mask.dtype).min / 2
            z, allowed = z + torch.where(masked, 0.0, mask), ~masked
        else:
            raise ValueError(f"mask of type {mask.dtype}: give bool (True may attend) or float (added to the logits)")
    if causal:
        index = torch.arange(queries, device=q.device) if rows is None else rows
        lower = torch.arange(keys, device=q.device) <= index.unsqueeze(-1)
        allowed = lower if allowed is None else allowed & lower
    return z, allowed


def _take_rows(x: Tensor | None, rows: Tensor, queries: int) -> Tensor | None:
    """The selected queries of a tensor [..., Q, K], or the tensor itself where it does not depend on the query."""
    return x if x is None or x.dim() < 2 or x.shape[-2] != queries else x.index_select(-2, rows)


def valid_rows(allowed: Tensor | None, rows: Tensor | None, queries: int, keys: int) -> Tensor | None:
    """Which queries are no padding: those that may attend to their own key.

    In self-attention a padded token is masked as a key, and its query is computed all the same; averaging over such
    rows would dilute every mean. A mask that excludes the diagonal for every row at hand says nothing about padding,
    and then all rows are valid.

    Args:
        allowed: bool, broadcastable to [B, H, R, K], as returned by ``attention_logits``.
        rows: [R] the selected queries, or None for all.
        queries: Q, before the selection.
        keys: K. If it differs from Q this is no self-attention over one sequence and the rule does not apply.

    Returns:
        bool, broadcastable to [B, H, R], or None where all rows are valid.

    Example:
        >>> allowed = torch.tensor([[True, True, False]])  # the third token is padding
        >>> valid_rows(allowed, None, 3, 3).tolist()
        [True, True, False]
    """
    if allowed is None or queries != keys:
        return None
    count = queries if rows is None else rows.shape[0]
    allowed = allowed.expand(*allowed.shape[:-2], count, keys)
    if rows is None:
        own = allowed.diagonal(dim1=-2, dim2=-1)
    else:
        own = allowed.gather(-1, rows.unsqueeze(-1).expand(*allowed.shape[:-2], count, 1)).squeeze(-1)
    return own | ~own.any()


def evenly_spaced_rows(length: int, count: int, device: torch.device | str | None = None) -> Tensor:
    """The middles of ``count`` equal parts of 0 ... length - 1, so that early and late queries weigh the same.

    Args:
        length: number of queries.
        count: number of rows wanted; all rows if there are not more.
        device: where the indices are made.

    Returns:
        [R] int64, sorted, without repetition, R = min(length, count).

    Example:
        >>> evenly_spaced_rows(10, 4).tolist(), evenly_spaced_rows(3, 8).tolist()
        ([1, 3, 6, 8], [0, 1, 2])
    """
    if count >= length:
        return torch.arange(length, device=device)
    index = torch.arange(count, device=device)
    return (2 * index + 1) * length // (2 * count)


def random_rows(length: int, count: int, generator: torch.Generator) -> Tensor:
    """A simple random sample of rows without replacement: the mean over it is unbiased.

    Args:
        length: number of queries.
        count: number of rows wanted; all rows if there are not more.
        generator: the source of randomness; the global one is never touched.

    Returns:
        [R] int64 on the generator's device, sorted, R = min(length, count).

    Example:
        >>> rows = random_rows(10, 4, torch.Generator().manual_seed(0))
        >>> len(set(rows.tolist())), bool((rows.diff() > 0).all())
        (4, True)
    """
    if count >= length:
        return torch.arange(length, device=generator.device)
    return torch.randperm(length, generator=generator, device=generator.device)[:count].sort().values


@dataclass(frozen=True, slots=True)
class HeadSums:
    """Sums over the valid rows of every head, from which means over any set of micro-batches and ranks follow.

    Attributes:
        names: N quantities, keys of the registry without ``attn/``.
        count: [H] number of valid rows with at least two keys.
        total: [N, H] sums over those rows.
        total_squares: [N, H] sums of squares, or None if they were not asked for.
    """

    names: tuple[str, ...]
    count: Tensor
    total: Tensor
    total_squares: Tensor | None = None

    def merge(self, other: HeadSums) -> HeadSums:
        """Sums over the rows of both."""
        if self.names != other.names:
            raise ValueError(f"sums of {self.names} and of {other.names} cannot be added")
        squares = None
        if self.total_squares is not None and other.total_squares is not None:
            squares = self.total_squares + other.total_squares
        return HeadSums(self.names, self.count + other.count, self.total + other.total, squares)

    def mean(self, name: str) -> Tensor:
        """[H] mean over rows of a quantity; NaN without rows."""
        return self.total[self.names.index(name)] / self.count

    def standard_error(self, name: str, rows: int | None = None) -> Tensor:
        """[H] standard error of the mean over a simple random sample of rows; NaN with fewer than two.

        Args:
            name: a quantity.
            rows: how many rows there are in all, if the sample was taken from finitely many.
        """
        if self.total_squares is None:
            raise ValueError("no sums of squares: ask head_sums for squares=True")
        mean = self.mean(name)
        spread = (self.total_squares[self.names.index(name)] / self.count - mean * mean).clamp(min=0)
        variance = spread / (self.count - 1)
        if rows is not None:
            variance = variance * (1 - self.count / rows)
        return torch.where(self.count >= 2, variance.sqrt(), math.nan)

    def reduced_temperature(self) -> Tensor:
        """[H] reduced temperature of each head, see ``reduced_temperature``; needs ``logit_std``."""
        return reduced_temperature(self.mean("logit_std"))


def head_sums(
    stats: RowStatistics,
    valid: Tensor | None = None,
    names: Sequence[str] = tuple(ROW_QUANTITIES),
    *,
    squares: bool = False,
) -> HeadSums:
    """Sums over examples and rows, per head. Only the quantities asked for are formed.

    Ratios are formed per row and then added. Rows with fewer than two keys carry no information and are dropped for
    all quantities; a row that is not finite is not, so that it shows.

    Args:
        stats: statistics of rows [B, H, R].
        valid: bool, broadcastable to [B, H, R]; False: a query that does not count, such as padding.
        names: keys of ``ROW_QUANTITIES``.
        squares: also add up squares, for standard errors.

    Returns:
        Sums in float64 (float32 on devices without it).

    Example:
        >>> z = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)  # C = 0.196611933 and 0
        >>> sums = head_sums(row_statistics(z), names=("specific_heat", "entropy_fraction"))
        >>> sums.count.tolist(), round(sums.mean("specific_heat").item(), 9)
        ([2.0], 0.098305967)
    """
    keep = stats.n >= 2
    if valid is not None:
        keep = keep & valid
    wide = accumulator(stats.n.device)
    count = keep.sum((0, 2)).to(wide)
    names = tuple(names)
    unknown = [name for name in names if name not in ROW_QUANTITIES]
    if unknown:
        raise ValueError(f"no quantities of a row: {unknown}; there are {sorted(ROW_QUANTITIES)}")
    total = count.new_zeros(len(names), count.shape[0])
    total_squares = torch.zeros_like(total) if squares else None
    if names:
        values = torch.stack([torch.where(keep, ROW_QUANTITIES[name](stats), 0.0) for name in names]).to(wide)
        # Examples first: rows can be few, and a sum along a short last dimension is slow.
        total = values.sum(1).sum(-1)
        total_squares = (values * values).sum(1).sum(-1) if squares else None
    return HeadSums(names, count, total, total_squares)


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
