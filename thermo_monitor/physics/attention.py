"""Attention as many small canonical ensembles: the logits of an attention layer, and the statistics of its rows.

Shapes: B examples, H query heads, Hkv key heads (H a multiple of it), Q queries, K keys, D head dimension, R selected
queries. The logits are the exact argument of the softmax; the rows of a head are averaged, never its weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thermo_monitor.physics.canonical import CPU_BLOCK, RowStatistics, concatenate, row_statistics
from thermo_monitor.physics.precision import working

MASKED = -9000.0
"""An additive term at or below this masks its key.

Programs mask with -1e4 (what half precision holds), -1e9 or the lowest number of a type as often as with -inf, and
may add two such masks or a position bias. All of these give a weight of exactly zero, but as states such keys would
swamp the spread of the logits and count as keys that could have been attended to. The limit is absolute, not relative
to the row, so that the row of a padded query, whose keys are all masked, has no state instead of n equal ones. Its
price: under a linear bias (ALiBi) the steepest heads lose keys that are more than about 12 000 positions away.
"""

_TOGETHER = 16
"""Rows of a causal attention that are worked on together on the host, with the keys that the last of them sees."""

Score = Callable[[Tensor, Tensor], Tensor]
MaskOf = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class EvenRows:
    """The middles of ``count`` equal parts of 0 ... length - 1, so that early and late queries weigh the same.

    Known on the host, so that a causal attention need not form the logits that it masks.

    Attributes:
        length: number of queries.
        count: number of rows wanted; all rows if there are not more.

    Example:
        >>> EvenRows(10, 4).index().tolist(), EvenRows(3, 8).index().tolist(), EvenRows(10, 4).row(3)
        ([1, 3, 6, 8], [0, 1, 2], 8)
    """

    length: int
    count: int

    def __len__(self) -> int:
        return min(self.length, self.count)

    def row(self, i: int) -> int:
        """Query of the i-th row."""
        return i if self.count >= self.length else (2 * i + 1) * self.length // (2 * self.count)

    def index(self, device: torch.device | str | None = None) -> Tensor:
        """[R] int64, sorted, without repetition, R = min(length, count). Kept for the next call: not to be changed."""
        return _even_index(self.length, self.count, torch.device("cpu" if device is None else device))


@functools.lru_cache(maxsize=64)  # five small operations on each tick, for numbers that do not change
def _even_index(length: int, count: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        i = torch.arange(min(length, count), device=device)
        return i if count >= length else (2 * i + 1) * length // (2 * count)


Rows = Tensor | EvenRows | None


def attention_logits(
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    mask: Tensor | MaskOf | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    rows: Tensor | None = None,
    score: Score | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The argument of the attention softmax, ``z = scale q k^T + bias``, and the keys that each query may attend to.

    Args:
        q: [B, H, Q, D] queries, after everything the model does to them (normalisation, rotation).
        k: [B, Hkv, K, D] keys. Query heads ``h G ... h G + G - 1`` share key head h, G = H / Hkv, as in
            ``scaled_dot_product_attention(enable_gqa=True)``; the keys are not repeated in memory.
        scale: what the model multiplies the products with, usually ``D ** -0.5``.
        mask: broadcastable to [B, H, Q, K]. Bool: True means may attend. Float: added to the logits; values at or
            below ``MASKED``, -inf included, mean masked. Or a function of the rows and the number of keys.
        bias: float, broadcastable to [B, H, Q, K], added to the logits; masks as a mask does.
        causal: query i attends to keys 0 ... i, aligned at the top left as in ``is_causal=True``.
        rows: [R] indices of the queries to compute. None: all, R = Q.
        score: what the model makes of the scaled products [B, H, R, K] of these rows before anything is added or
            masked, such as ``c tanh(z / c)``.
        sinks: [H] logits of one more state of every row, which has no key.

    Returns:
        logits [B, H, R, K] in float32, or float64 if q is; and bool, broadcastable to it, True where the key is a
        state, or None if every key of every row is. Logits of masked keys have no meaning. Sinks come first, as one
        key more.

    Raises:
        ValueError: if the heads cannot share keys, or the mask holds integers.

    Example:
        >>> q, k = torch.ones(1, 2, 3, 4), torch.ones(1, 1, 3, 4)
        >>> z, allowed = attention_logits(q, k, scale=0.5, causal=True, rows=torch.tensor([1]))
        >>> z.shape, z[0, 1, 0].tolist(), allowed.tolist()
        (torch.Size([1, 2, 1, 3]), [2.0, 2.0, 2.0], [[True, True, False]])
    """
    return _logits(q, k, scale, mask, bias, causal, rows, score, sinks, None)


def _logits(
    q: Tensor,
    k: Tensor,
    scale: float,
    mask: Tensor | MaskOf | None,
    bias: Tensor | None,
    causal: bool,
    rows: Tensor | None,
    score: Score | None,
    sinks: Tensor | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """As ``attention_logits``, in memory that is given."""
    batch, heads, queries, width = q.shape
    key_heads, keys = k.shape[1], k.shape[2]
    if heads % key_heads:
        raise ValueError(f"{heads} query heads cannot share {key_heads} key heads: give a multiple of it")
    index = rows
    if rows is not None:
        q = q.index_select(2, rows)
    if index is None and (causal or score is not None or callable(mask)):
        index = torch.arange(queries, device=q.device)
    q = working(q).reshape(batch * key_heads, heads // key_heads * q.shape[2], width)
    place = None if out is None else out[: batch * heads * len(index) * keys].view(len(q), -1, keys)  # type: ignore[arg-type]
    # The factor belongs to the product, not to q, whose rounded values it would round again. An autocast region, and it
    # may be that of the program, would round both.
    with torch.autocast(q.device.type, enabled=False):
        z = torch.baddbmm(q.new_zeros(()), q, k.to(q.dtype).flatten(0, 1).mT, beta=0, alpha=scale, out=place)
    z = z.view(batch, heads, -1, keys)
    if score is not None and index is not None:
        z = score(z, index)
    allowed: Tensor | None = None
    for term in (mask, bias):
        if term is None:
            continue
        if not isinstance(term, Tensor):
            assert index is not None
            term = term(index, keys)
        elif rows is not None:
            term = _take_rows(term, rows, queries)
        if term.is_floating_point():
            state = ~(term <= MASKED)
            z = torch.add(z, term, out=None if out is None else z)
        elif term.dtype == torch.bool:
            state = term
        else:
            raise ValueError(f"mask of type {term.dtype}: give bool (True may attend) or float (added to the logits)")
        allowed = state if allowed is None else allowed & state
    if causal:
        assert index is not None
        lower = torch.arange(keys, device=q.device) <= index.unsqueeze(-1)
        allowed = lower if allowed is None else allowed & lower
    if sinks is not None:
        z = torch.cat([sinks.to(z.dtype).view(-1, 1, 1).expand(*z.shape[:-1], 1), z], -1)
        if allowed is not None:
            allowed = allowed.expand(*allowed.shape[:-1], keys)
            allowed = torch.cat([torch.ones_like(allowed[..., :1]), allowed], -1)
    return z, allowed


def _take_rows(x: Tensor, rows: Tensor, queries: int) -> Tensor:
    """The selected queries of a tensor [..., Q, K], or the tensor itself where it does not depend on the query."""
    return x if x.dim() < 2 or x.shape[-2] != queries else x.index_select(-2, rows)


def attention_rows(
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    mask: Tensor | MaskOf | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    rows: Rows = None,
    score: Score | None = None,
    sinks: Tensor | None = None,
) -> RowStatistics:
    """Statistics of selected rows from their exact logits; see ``attention_logits`` for the arguments.

    Memory is that of the logits of the rows, B H R K numbers, three times.

    Args:
        q: [B, H, Q, D].
        k: [B, Hkv, K, D].
        scale: factor on the products.
        mask: bool or float, broadcastable to [B, H, Q, K].
        bias: float, broadcastable to [B, H, Q, K].
        causal: whether query i sees keys 0 ... i only.
        rows: which queries; None: all.
        score: function of the scaled products.
        sinks: [H] logits of one more state.

    Returns:
        Statistics of shape [B, H, R].

    Example:
        >>> q = torch.zeros(1, 1, 4, 8)
        >>> attention_rows(q, q, scale=1.0, causal=True, rows=EvenRows(4, 2)).entropy.exp()
        tensor([[[2., 4.]]])
    """
    even = rows if isinstance(rows, EvenRows) else EvenRows(q.shape[2], q.shape[2]) if rows is None else None
    index = even.index(q.device) if even is not None else rows
    assert isinstance(index, Tensor)
    batch, keys = q.shape[0], k.shape[2]
    k = k.to(working(q).dtype).contiguous()
    chosen = list(_groups(even, len(index), keys, causal, q.device.type))
    recorded = q.requires_grad and torch.is_grad_enabled()
    remade = score is not None or sinks is not None or callable(mask)
    spare: Tensor | None = None
    share = max(batch, 1)
    if q.device.type == "cpu" and not recorded and not remade:
        # On the host new memory costs more than the arithmetic that fills it: three blocks serve all groups.
        each = q.shape[1] * max(len(index[some]) * seen for some, _, seen in chosen)
        share = max(1, min(share, CPU_BLOCK // max(each, 1)))
        spare = torch.empty(3, share * each, dtype=k.dtype)
    groups = []
    for some, leading, seen in chosen:
        parts = []
        if mask is not None or bias is not None:
            leading = 0
        elif leading and sinks is not None:
            leading += 1
        for at in range(0, max(batch, 1), share):
            part = slice(at, at + share)
            terms = [_part(x, part, batch, seen, keys) for x in (mask, bias)]
            out, scratch = (None, None) if spare is None else (spare[0], spare[1:])
            z, allowed = _logits(
                q[part], k[part, :, :seen], scale, terms[0], terms[1], causal, index[some], score, sinks, out
            )
            allowed = None if allowed is None else allowed[..., leading:]
            given = None if scratch is None else tuple(x[: z.numel()].view(z.shape) for x in scratch)
            parts.append(row_statistics(z, allowed, leading=leading, scratch=given))
        groups.append(concatenate(parts, 0))
    return concatenate(groups, -1)


def _groups(even: EvenRows | None, rows: int, keys: int, causal: bool, device: str) -> Iterator[tuple[slice, int, int]]:
    """Which rows are worked on together, how many keys all of them see, and how many the last of them."""
    # Half of the work is saved; on other devices the number of calls would weigh more than that.
    if even is None or not causal or device != "cpu" or rows <= _TOGETHER:
        yield slice(None), 0, keys
        return
    for start in range(0, rows, _TOGETHER):
        stop = min(start + _TOGETHER, rows)
        yield slice(start, stop), min(even.row(start) + 1, keys), min(even.row(stop - 1) + 1, keys)


def _part(x: Tensor | MaskOf | None, part: slice, batch: int, keys: int, all_keys: int) -> Any:
    """The examples of a mask that has some, and the first keys of one that depends on them."""
    if not isinstance(x, Tensor):
        return x
    if x.dim() == 4 and x.shape[0] == batch:
        x = x[part]
    return x[..., :keys] if x.dim() and x.shape[-1] == all_keys else x


def valid_rows(
    rows: Tensor | None,
    queries: int,
    keys: int,
    *,
    mask: Tensor | MaskOf | None = None,
    bias: Tensor | None = None,
) -> Tensor | None:
    """Which queries are no padding: those that may attend to their own key.

    In self-attention a padded token is masked as a key, and its query is computed all the same; averaging over such
    rows would dilute every mean. A mask that excludes the diagonal for every row at hand says nothing about padding,
    and then all rows are valid.

    Args:
        rows: [R] the selected queries, or None for all.
        queries: Q, before the selection.
        keys: K. If it differs from Q this is no self-attention over one sequence and the rule does not apply.
        mask: as in ``attention_logits``.
        bias: as in ``attention_logits``.

    Returns:
        bool, broadcastable to [B, H, R], or None where all rows are valid.

    Example:
        >>> mask = torch.tensor([[True, True, False]])  # the third token is padding
        >>> valid_rows(None, 3, 3, mask=mask).tolist()
        [True, True, False]
    """
    if (mask is None and bias is None) or queries != keys:
        return None
    own: Tensor | None = None
    for term in (mask, bias):
        if term is None:
            continue
        if isinstance(term, Tensor):
            term = term.expand(*term.shape[:-2], queries, keys)
            at = term.diagonal(dim1=-2, dim2=-1)
            at = at if rows is None else at.index_select(-1, rows)
        else:
            assert rows is not None
            whole = term(rows, keys)
            at = whole.gather(-1, rows.unsqueeze(-1).expand(*whole.shape[:-1], 1)).squeeze(-1)
        state = at if at.dtype == torch.bool else ~(at <= MASKED)
        own = state if own is None else own & state
    assert own is not None
    return own | ~own.any()


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
