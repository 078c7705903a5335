"""Statistics of attention rows in one pass over the keys, without the matrix and without the values.

For every row the state (m, M0, M1, M2) = (running maximum, sum w, sum w d, sum w d^2), d = z - m and w = exp(d), is
carried from block to block; when the maximum rises from m to m', with e = m - m' and r = exp(e),

    M2 <- r (M2 + 2 e M1 + e^2 M0),  M1 <- r (M1 + e M0),  M0 <- r M0,

and then ln Z = m + ln M0, <z> = m + M1/M0, S = ln M0 - M1/M0 and C = M2/M0 - (M1/M0)^2. Online softmax: Milakov &
Gimelshein 2018, arXiv:1805.02867; the moments are ours. Mean and variance of the logits without weights are merged from
those of the blocks (Chan, Golub & LeVeque 1983).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from thermo_monitor.physics.attention import EvenRows, Rows
from thermo_monitor.physics.canonical import RowStatistics

_OUTPUTS = 8  # numbers for each row, the weight of the first key aside


@triton.jit  # type: ignore[untyped-decorator]
def _stream(  # type: ignore[no-untyped-def]
    q, k, rows, padding, out, first,
    scale, heads, group, queries, keys, chosen, width,
    q_b, q_h, q_t, q_d, k_b, k_h, k_t, k_d, p_b, p_t,
    CAUSAL: tl.constexpr, PADDED: tl.constexpr, FIRST: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One block of rows of one head of one example."""
    at = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    pair = tl.program_id(1).to(tl.int64)
    example, head = pair // heads, pair % heads
    real = at < chosen
    row = tl.load(rows + at, mask=real, other=0)
    d = tl.arange(0, WIDTH)
    query = tl.load(
        q + example * q_b + head * q_h + row[:, None] * q_t + d[None, :] * q_d,
        mask=real[:, None] & (d[None, :] < width), other=0.0,
    )  # fmt: skip
    if WIDE:
        query = query.to(tl.float32)
    k += example * k_b + (head // group) * k_h

    zero = tl.zeros([ROWS], dtype=tl.float32)
    top, m0, m1, m2 = zero - float("inf"), zero, zero, zero
    count, mean, spread, begin = zero, zero, zero, zero - float("inf")
    end = keys
    if CAUSAL:
        end = tl.minimum(keys, tl.max(row, 0).to(tl.int32) + 1)
    for start in range(0, end, KEYS):
        at_key = start + tl.arange(0, KEYS)
        inside = at_key < keys
        key = tl.load(
            k + at_key[None, :].to(tl.int64) * k_t + d[:, None] * k_d,
            mask=inside[None, :] & (d[:, None] < width), other=0.0,
        )  # fmt: skip
        if WIDE:
            key = key.to(tl.float32)
        z = tl.dot(query, key, input_precision="ieee").to(tl.float32) * scale
        state = inside[None, :] & real[:, None]
        if CAUSAL:
            state = state & (at_key[None, :] <= row[:, None])
        if PADDED:
            token = tl.load(padding + example * p_b + at_key * p_t, mask=inside, other=0)
            state = state & (token != 0)[None, :]
        if FIRST:
            begin = tl.maximum(begin, tl.max(tl.where(state & (at_key == 0)[None, :], z, -float("inf")), 1))

        new = tl.maximum(top, tl.max(tl.where(state, z, -float("inf")), 1))
        shift = tl.where(new == -float("inf"), 0.0, new)  # no state yet
        e = tl.where(top == -float("inf"), 0.0, top - shift)
        r = tl.exp(e)
        m2 = r * (m2 + 2.0 * e * m1 + e * e * m0)
        m1 = r * (m1 + e * m0)
        m0 = r * m0
        y = tl.where(state, z - shift[:, None], 0.0)
        w = tl.where(state, tl.exp(y), 0.0)
        wy = w * y
        m0 += tl.sum(w, 1)
        m1 += tl.sum(wy, 1)
        m2 += tl.sum(wy * y, 1)
        top = new

        n = tl.sum(state.to(tl.float32), 1)
        some = tl.maximum(n, 1.0)
        mean_b = tl.sum(tl.where(state, z, 0.0), 1) / some
        off = tl.where(state, z - mean_b[:, None], 0.0)
        both = tl.maximum(count + n, 1.0)
        gap = mean_b - mean
        spread += tl.sum(off * off, 1) + gap * gap * count * n / both
        mean += gap * n / both
        count += n

    one = tl.maximum(m0, 1.0e-37)  # a row without a state divides by something; it is NaN in the end
    total = tl.log(one)
    first_moment = m1 / one
    at_out = pair * chosen + at
    plane = tl.num_programs(1) * chosen
    tl.store(out + at_out, count, mask=real)
    tl.store(out + plane + at_out, total, mask=real)
    tl.store(out + 2 * plane + at_out, first_moment, mask=real)
    tl.store(out + 3 * plane + at_out, total - first_moment, mask=real)
    tl.store(out + 4 * plane + at_out, tl.maximum(m2 / one - first_moment * first_moment, 0.0), mask=real)
    tl.store(out + 5 * plane + at_out, mean, mask=real)
    tl.store(out + 6 * plane + at_out, spread / tl.maximum(count, 1.0), mask=real)
    tl.store(out + 7 * plane + at_out, top, mask=real)
    if FIRST:
        tl.store(first + at_out, tl.exp(begin - tl.where(top == -float("inf"), 0.0, top)) / one, mask=real)


def attention_rows(
    q: Tensor,
    k: Tensor,
    *,
    scale: float,
    mask: Tensor | None = None,
    causal: bool = False,
    rows: Rows = None,
) -> RowStatistics:
    """Statistics of selected rows; as ``physics.attention.attention_rows``, for what the kernel reads.

    Args:
        q: [B, H, Q, D] in float32, bfloat16 or float16, D from 16 to 256, any strides.
        k: [B, Hkv, K, D] of the same type; H is a multiple of Hkv.
        scale: factor on the products.
        mask: which keys are no padding: bool, [K], [B, K] or [B, 1, 1, K]. Others are for the exact rows.
        causal: whether query i sees keys 0 ... i only.
        rows: which queries; None: all.

    Returns:
        Statistics [B, H, R] in float32: eight numbers for each row, and no other memory.

    Raises:
        ValueError: what was given is not for this kernel.
    """
    return _run(q, k, scale, mask, causal, rows, None)


def attention_rows_and_first_weight(
    q: Tensor, k: Tensor, *, scale: float, mask: Tensor | None = None, causal: bool = False, rows: Rows = None
) -> tuple[RowStatistics, Tensor]:
    """The same, and the weight [B, H, R] that each row gives to the first key, where many models drain attention."""
    index = _index(q, rows)
    first = q.new_empty(*q.shape[:2], len(index), dtype=torch.float32)
    stats = _run(q, k, scale, mask, causal, index, first)
    return stats, torch.where(stats.n >= 1, first, math.nan)


def why_not(q: Tensor, k: Tensor, mask: Any) -> str:
    """What of these the kernel does not read, or the empty string."""
    if q.dtype != k.dtype or q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"queries of type {q.dtype} and keys of type {k.dtype}"
    if q.dim() != 4 or k.dim() != 4 or not 1 <= q.shape[-1] <= 256 or q.shape[-1] != k.shape[-1]:
        return f"queries of shape {tuple(q.shape)} and keys of shape {tuple(k.shape)}"
    if q.shape[0] != k.shape[0] or q.shape[1] % k.shape[1]:
        return f"{q.shape[1]} query heads of {q.shape[0]} examples and {k.shape[1]} key heads of {k.shape[0]}"
    if mask is not None and _padding(mask, q.shape[0], k.shape[2]) is None:
        return "a mask that is more than key padding"
    return ""


def _index(q: Tensor, rows: Rows) -> Tensor:
    rows = EvenRows(q.shape[2], q.shape[2]) if rows is None else rows
    return rows.index(q.device) if isinstance(rows, EvenRows) else rows


def _padding(mask: Any, batch: int, keys: int) -> Tensor | None:
    """A mask of keys as [B, K], or None if it is more than that."""
    if (
        not isinstance(mask, Tensor)
        or mask.dtype != torch.bool
        or mask.dim() not in (1, 2, 4)
        or mask.shape[-1] != keys
    ):
        return None
    if mask.dim() == 4:
        if mask.shape[1:3] != (1, 1):
            return None
        mask = mask[:, 0, 0]
    if mask.dim() == 2 and mask.shape[0] not in (1, batch):
        return None
    padding: Tensor = mask.expand(batch, keys)
    return padding


def _run(
    q: Tensor, k: Tensor, scale: float, mask: Tensor | None, causal: bool, rows: Rows, first: Tensor | None
) -> RowStatistics:
    why = why_not(q, k, mask)
    if why:
        raise ValueError(f"the attention kernel does not read {why}")
    batch, heads, queries, width = q.shape
    key_heads, keys = k.shape[1], k.shape[2]
    index = _index(q, rows)
    chosen = len(index)
    padding = None if mask is None else _padding(mask, batch, keys)
    out = q.new_empty(_OUTPUTS, batch, heads, chosen, dtype=torch.float32)
    if out.numel():
        block_rows = 16 if chosen <= 16 else 64
        padded_width = max(16, triton.next_power_of_2(width))
        block_keys = 64 if padded_width <= 128 else 32
        at = padding if padding is not None else q
        steps = padding.stride() if padding is not None else (0, 0)
        _stream[(triton.cdiv(chosen, block_rows), batch * heads)](
            q, k, index, at.view(torch.uint8) if padding is not None else at, out, first if first is not None else out,
            scale, heads, heads // key_heads, queries, keys, chosen, width,
            *q.stride(), *k.stride(), *steps,
            CAUSAL=causal, PADDED=padding is not None, FIRST=first is not None,
            WIDE=triton.knobs.runtime.interpret,  # the interpreter multiplies the bits of bfloat16
            ROWS=block_rows, KEYS=block_keys, WIDTH=padded_width, num_warps=4,
        )  # fmt: skip
    n, log_total, mean, entropy, heat, plain, variance, top = out
    none, few = n < 1, n < 2
    for x in (entropy, heat, variance):
        x.masked_fill_(few, math.nan)
    for x in (log_total, mean, plain, top):
        x.masked_fill_(none, math.nan)
    return RowStatistics(n, log_total.add_(top), mean.add_(top), entropy, heat, plain, variance, top, keys)
