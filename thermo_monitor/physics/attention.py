"""Attention as many small canonical ensembles: the logits of an attention layer, and the statistics of its rows.

Shapes: B examples, H query heads, Hkv key heads (H a multiple of it), Q queries, K keys, D head dimension, R selected
queries. The logits are the exact argument of the softmax; the rows of a head are averaged, never its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from thermo_monitor.physics.precision import precise, working
from thermo_monitor.physics.rows import CPU_BLOCK, SHORT, RowStatistics, concatenate, row_statistics
from thermo_monitor.physics.selection import MASKED as MASKED
from thermo_monitor.physics.selection import EvenRows as EvenRows
from thermo_monitor.physics.selection import MaskOf as MaskOf
from thermo_monitor.physics.selection import Rows as Rows
from thermo_monitor.physics.selection import random_rows as random_rows
from thermo_monitor.physics.selection import valid_rows as valid_rows

_TOGETHER = 16
"""Rows of a causal attention that are worked on together on the host, with the keys that the last of them sees."""

Score = Callable[[Tensor, Tensor], Tensor]


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
    causal: bool | Tensor,
    rows: Tensor | None,
    score: Score | None,
    sinks: Tensor | None,
    out: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """As ``attention_logits``, in memory that is given; ``causal`` may be the mask [R, K] that it means."""
    batch, heads, queries, width = q.shape
    key_heads, keys = k.shape[1], k.shape[2]
    if heads % key_heads:
        raise ValueError(f"{heads} query heads cannot share {key_heads} key heads: give a multiple of it")
    index = rows
    if rows is not None:
        q = q.index_select(2, rows)
    if index is None and (causal is True or score is not None or callable(mask)):
        index = torch.arange(queries, device=q.device)
    q = working(q).reshape(batch * key_heads, heads // key_heads * q.shape[2], width)
    place = None if out is None else out[: q.numel() // width * keys].view(len(q), -1, keys)
    # The factor belongs to the product, not to q, whose rounded values it would round again. An autocast region, and it
    # may be that of the program, would round both.
    with precise(q.device):
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
    if causal is not False:
        lower = causal
        if not isinstance(lower, Tensor):
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
    if q.device.type == "cpu" and keys > SHORT and not recorded and not remade:
        # On the host new memory costs more than the arithmetic that fills it: three blocks serve all groups.
        each = q.shape[1] * max(len(index[some]) * seen for some, _, seen in chosen)
        share = max(1, min(share, CPU_BLOCK // max(each, 1)))
        spare = torch.empty(3, share * each, dtype=k.dtype)
    groups = []
    for some, leading, seen in chosen:
        below = even.causal(some, seen, q.device) if causal and even is not None else causal
        read = None if even is not None and some == slice(None) and len(index) == q.shape[2] else index[some]
        parts = []
        if mask is not None or bias is not None:
            leading = 0
        elif leading and sinks is not None:
            leading += 1
        for at in range(0, max(batch, 1), share):
            part = slice(at, at + share)
            terms = [_part(x, part, batch, seen, keys) for x in (mask, bias)]
            out, scratch = (None, None) if spare is None else (spare[0], spare[1:])
            z, allowed = _logits(q[part], k[part, :, :seen], scale, terms[0], terms[1], below, read, score, sinks, out)
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
