"""One pass over rows of logits: the moments that every quantity of a row follows from.

A row is one softmax, see ``canonical``. Everything is taken of the logits less their largest, in blocks that the cache
holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thermo_monitor.physics.precision import working

SHORT = 16
"""Rows up to this length are reduced across rows, not along them: a row is then shorter than a vector register."""

CPU_BLOCK = 1 << 18
_DEVICE_BLOCK = 1 << 26
"""Numbers that are worked on at once: on the host what the cache holds, on a device what its memory can spare."""


class RowStatistics(NamedTuple):
    """What one pass over the logits leaves of each row; all quantities of a row follow from it.

    Attributes:
        n: [...] number of unmasked keys, in the dtype of the logits.
        log_partition: [...] ln Z = logsumexp(z), nats; n >= 1.
        mean_logit: [...] <z> = sum_i p_i z_i; n >= 1.
        entropy: [...] S = -sum_i p_i ln p_i, nats; n >= 2.
        specific_heat: [...] C = sum_i p_i (z_i - <z>)^2; n >= 2.
        plain_mean: [...] mean of z over the keys; n >= 1.
        plain_variance: [...] variance of z over the keys, ddof 0; n >= 2.
        max_logit: [...] largest z; n >= 1.
        keys: K, an upper limit of n that is known without reading the device.
    """

    n: Tensor
    log_partition: Tensor
    mean_logit: Tensor
    entropy: Tensor
    specific_heat: Tensor
    plain_mean: Tensor
    plain_variance: Tensor
    max_logit: Tensor
    keys: int


def row_statistics(
    z: Tensor,
    mask: Tensor | None = None,
    *,
    leading: int = 0,
    scratch: tuple[Tensor, ...] | None = None,
    plain: bool = True,
) -> RowStatistics:
    """All moments of the rows in one pass.

    Moments are taken of ``d = z - max z``, and the second ones are centred before they are squared, so that a large
    constant in the logits costs no digits beyond those that the logits themselves have lost to it.

    Args:
        z: [..., K] logits, any float dtype; float64 is kept, others are taken to float32.
        mask: bool, broadcastable to z; True: the key is a state. None: all are.
        leading: the first so many keys are states of every row, and the mask is that of the others only: masking is
            half of the work, and rows of a causal attention that stand close together share most of their keys.
        scratch: two tensors of the shape and type of z to work in. Then z is overwritten, and no memory of its size is
            asked for, which on the host costs more than the arithmetic.
        plain: whether ``plain_mean`` and ``plain_variance`` are wanted, a third of the work; otherwise they are NaN.

    Returns:
        Statistics of shape [...].

    Example:
        >>> row = row_statistics(torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64))
        >>> [round(x.item(), 9) for x in (row.log_partition, row.mean_logit, row.entropy, row.specific_heat)]
        [2.440189699, 1.492652735, 0.947536964, 0.616586275]
        >>> row.plain_mean.item(), row.plain_variance.item(), row.max_logit.item(), row.n.item()
        (0.5, 1.25, 2.0, 4.0)
    """
    if scratch is None and z.numel() > (CPU_BLOCK if z.device.type == "cpu" else _DEVICE_BLOCK):
        axis = next((i - z.dim() for i, size in enumerate(z.shape[:-1]) if size > 1), None)
        if axis is not None:
            return _blockwise(z, mask, axis, leading, plain)
    z = working(z)
    rows, keys, dim = z.shape[:-1], z.shape[-1], -1
    if keys == 0:
        nan = z.new_full(rows, math.nan)
        return RowStatistics(z.new_zeros(rows), nan, nan, nan, nan, nan, nan, nan, keys)
    others = keys - leading  # keys that the mask is about
    if mask is not None:
        mask = mask.expand(*mask.shape[:-1], others)
    if keys <= SHORT:
        z, dim, scratch = z.movedim(-1, 0).contiguous(), 0, None
        if mask is not None:
            mask = mask[(None,) * (z.dim() - mask.dim())].movedim(-1, 0)
    # Finite, so that a masked key times a zero is a zero; far enough below any logit to have no weight.
    fill = torch.finfo(z.dtype).min / 4
    if mask is None:
        present = None
        n = z.new_full((), keys).expand(rows)
    else:
        present = mask.to(z.dtype)
        n = present.sum(dim)
        n = (leading + n if leading else n).expand(rows)
        unsure = z.narrow(dim, leading, others)
        if scratch is not None:
            torch.where(mask, unsure, unsure.new_full((), fill), out=unsure)
        else:
            unsure = torch.where(mask, unsure, fill)
            z = torch.cat([z.narrow(dim, 0, leading), unsure], dim) if leading else unsure

    top = z.amax(dim)
    # Where results go that are needed no longer than to the end of this function. A derivative needs them longer.
    place, place_p, place_c = (z, *scratch) if scratch is not None else (None, None, None)
    reuse = scratch is not None or not (torch.is_grad_enabled() and z.requires_grad)
    d = torch.sub(z, top.unsqueeze(dim), out=place)
    # Boltzmann factors, of which the largest is 1: their sum is at least that, and all weights are factors over it.
    # A softmax finds the largest logit and divides by the sum once more, in six times the time on the host.
    factor = torch.exp(d, out=place_p)
    total = factor.sum(dim)
    log_total = total.log()
    if present is not None:
        d.narrow(dim, leading, others).mul_(present)
    if plain:
        middle = d.sum(dim) / n
        centred = torch.sub(d, middle.unsqueeze(dim), out=place_c)
        if present is not None:
            centred.narrow(dim, leading, others).mul_(present)
        variance = torch.mul(centred, centred, out=centred if reuse else None).sum(dim) / n
        place_c = centred if reuse else None
        middle = top + (middle + 0 * middle)  # an infinity is no mean
    else:
        middle = variance = top.new_full((), math.nan).expand(rows)
    product = torch.mul(factor, d, out=place_c)
    mean = product.sum(dim) / total
    centred = torch.sub(d, mean.unsqueeze(dim), out=product if reuse else None)
    first = torch.mul(factor, centred, out=factor if reuse else None)
    heat = torch.mul(first, centred, out=first if reuse else None).sum(dim) / total
    entropy = log_total - mean

    if present is None:
        if keys < 2:
            entropy, heat, variance = (torch.full_like(x, math.nan) for x in (entropy, heat, variance))
    else:
        # A row without keys has no state, and one whose allowed logits are all -inf none of finite energy.
        top = torch.where(top != fill, top, math.nan)
        undefined = torch.where(n >= 2, 0.0, math.nan).to(top.dtype)
        entropy, heat, variance = entropy + undefined, heat + undefined, variance + undefined
    return RowStatistics(n, top + log_total, top + mean, entropy, heat, middle, variance, top, keys)


def concatenate(parts: Sequence[RowStatistics], dim: int) -> RowStatistics:
    """Statistics of several sets of rows as one, along a dimension of the rows."""
    if len(parts) == 1:
        return parts[0]
    tensors = zip(*(part[:-1] for part in parts), strict=True)
    n, log_z, mean, entropy, heat, plain, variance, top = (torch.cat(pieces, dim) for pieces in tensors)
    return RowStatistics(n, log_z, mean, entropy, heat, plain, variance, top, max(part.keys for part in parts))


def _blockwise(z: Tensor, mask: Tensor | None, axis: int, leading: int, plain: bool) -> RowStatistics:
    """The statistics of blocks of rows, put together again.

    ``axis`` counts from the end, because the mask may have fewer dimensions.
    """
    block = CPU_BLOCK if z.device.type == "cpu" else _DEVICE_BLOCK
    blocks = min(z.shape[axis], -(-z.numel() // block))
    z_blocks = z.chunk(blocks, axis)
    mask_blocks: list[Tensor | None] = [mask] * len(z_blocks)
    if mask is not None and mask.dim() >= -axis and mask.shape[axis] > 1:
        mask_blocks = list(mask.chunk(blocks, axis))
    parts = [row_statistics(a, b, leading=leading, plain=plain) for a, b in zip(z_blocks, mask_blocks, strict=True)]
    return concatenate(parts, axis + 1)
