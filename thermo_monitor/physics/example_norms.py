"""Squared gradient norms of single examples, from what a backward pass of a whole batch computes anyway.

A layer that multiplies its inputs by a weight has, for one example, the gradient ``sum_t g_t a_t^T``: a_t its inputs,
g_t the gradients at its outputs, t over the T positions. Its squared norm follows from a and g, and no gradient of a
single example is kept. Padded positions have g = 0 and count for nothing.

Goodfellow 2015, arXiv:1510.01799; sequences: Li et al. 2021, arXiv:2110.05679; the cheaper form per layer: Bu et al.
2022, arXiv:2205.10683.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from thermo_monitor.physics.precision import precise_matmul, working

# Elements of a product that are made before they are squared and added up: what stays in a cache, or fills a device.
_BLOCK = {"cpu": 2**18}
_LARGE_BLOCK = 2**27
# Rows of a Gram matrix that are made at a time. Both are symmetric, so strips need only reach from the diagonal on.
_STRIP = {"cpu": 64}


def gram_is_cheaper(positions: int, width_in: int, width_out: int, strip: int | None = None) -> bool:
    """Whether the Gram form costs fewer multiplications than the direct one: ``T (T + s) (i + o) / 2 < T i o``.

    Args:
        positions: T.
        width_in: i.
        width_out: o.
        strip: s, rows of a Gram matrix that are made at a time, each from the diagonal on; None: all of it at once.

    Example:
        >>> gram_is_cheaper(256, 768, 3072), gram_is_cheaper(1024, 768, 3072), gram_is_cheaper(1024, 768, 3072, 64)
        (True, False, True)
    """
    made = positions + min(positions, strip or positions)
    return made * (width_in + width_out) < 2 * width_in * width_out


def product_norms(a: Tensor, g: Tensor) -> Tensor:
    """Squared norm of ``sum_t g_t a_t^T`` for each example: the weight of a linear layer or a convolution.

    The Gram form ``sum_{t,s} (a_t . a_s)(g_t . g_s)`` or the direct one, whichever is cheaper; for one position
    ``|a|^2 |g|^2``. The sum over positions of ``|a_t|^2 |g_t|^2`` is something else.

    Args:
        a: [B, T, i] inputs.
        g: [B, T, o] gradients at the outputs.

    Returns:
        [B] float32, or float64 for float64 inputs.

    Example:
        >>> a, g = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
        >>> product_norms(a, g).item()
        11.0
    """
    batch, positions, width = a.shape
    if batch == 0 or positions == 0:
        return working(a).new_zeros(batch)
    if positions == 1:
        return working(a).square().sum((1, 2)) * working(g).square().sum((1, 2))
    strip = min(positions, _STRIP.get(a.device.type, positions))
    gram = gram_is_cheaper(positions, width, g.shape[-1], strip)
    made = strip * positions if gram else width * g.shape[-1]
    size = max(1, _BLOCK.get(a.device.type, _LARGE_BLOCK) // made)
    found = []
    for at in range(0, batch, size):
        x, y = working(a[at : at + size]), working(g[at : at + size])
        found.append(_gram_norms(x, y, strip) if gram else _direct_norms(x, y))
    return torch.cat(found)


def _gram_norms(a: Tensor, g: Tensor, strip: int) -> Tensor:
    total = a.new_zeros(len(a))
    for at in range(0, a.shape[1], strip):
        left = precise_matmul(a[:, at : at + strip], a[:, at:].mT)
        left[:, :, :strip] *= 0.5  # the block on the diagonal is there once, all others stand for two
        right = precise_matmul(g[:, at : at + strip], g[:, at:].mT)
        total += left.mul_(right).sum((1, 2))
    return 2 * total


def _direct_norms(a: Tensor, g: Tensor) -> Tensor:
    if len(a) == 1:
        return _square(precise_matmul(g[0].mT, a[0])).view(1)
    return precise_matmul(g.mT, a).square_().sum((1, 2))


def _square(x: Tensor) -> Tensor:
    flat = x.view(-1)
    return torch.dot(flat, flat)


def lookup_norms(ids: Tensor, e: Tensor) -> Tensor:
    """Squared gradient norm of an embedding for each example: ``sum_{t,s} [id_t = id_s] e_t . e_s``.

    The gradients of a token's occurrences add up before they are squared. They are brought together by sorting, so that
    neither the vocabulary nor the number of different tokens decides a shape.

    Args:
        ids: [B, T] integers.
        e: [B, T, d] gradients at the outputs of the embedding.

    Returns:
        [B] float32, or float64 for float64 inputs.

    Example:
        >>> e = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
        >>> lookup_norms(torch.tensor([[3, 3]]), e).item(), lookup_norms(torch.tensor([[3, 4]]), e).item()
        (10.0, 6.0)
    """
    e = working(e)
    if ids.shape[1] == 0:
        return e.new_zeros(ids.shape[0])
    ids, order = ids.sort(dim=1)
    e = e.gather(1, order.unsqueeze(-1).expand_as(e))
    # Which different token it is, counted within the example.
    token = (ids.diff(dim=1) != 0).cumsum(1)
    token = torch.cat([torch.zeros_like(ids[:, :1]), token], 1)
    sums = torch.zeros_like(e).scatter_add(1, token.unsqueeze(-1).expand_as(e), e)
    return sums.square().sum((1, 2))


def sum_norms(g: Tensor) -> Tensor:
    """Squared norm of ``sum_t g_t`` for each example: a bias, or the gain of a normalisation with ``g * xhat`` for g.

    Args:
        g: [B, T, d].

    Returns:
        [B] float32, or float64 for float64 inputs.

    Example:
        >>> sum_norms(torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])).item()
        10.0
    """
    return working(g).sum(1).square().sum(1)


def tied_cross_terms(ids: Tensor, e: Tensor, a: Tensor, g: Tensor) -> Tensor:
    """What a weight that is both an embedding and a linear layer has beside the norms of its two parts.

    ``2 sum_{t,s} g_s[id_t] (e_t . a_s)``: twice the product of the two gradients. Leaving it out was wrong by a fifth.

    Args:
        ids: [B, T] tokens looked up.
        e: [B, T, d] gradients at the outputs of the embedding.
        a: [B, S, d] inputs of the linear layer.
        g: [B, S, V] gradients at its outputs.

    Returns:
        [B] float32, or float64 for float64 inputs.

    Example:
        One token, one position: the gradients are e in row 0 and a g^T, whose row 0 is a g_0.

        >>> ids, e, a = torch.zeros(1, 1, dtype=torch.int64), torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), 5.0)
        >>> tied_cross_terms(ids, e, a, torch.tensor([[[7.0, 9.0]]])).item()
        210.0
    """
    e, a, g = working(e), working(a), working(g)
    looked_up = g.gather(2, ids.unsqueeze(1).expand(-1, g.shape[1], -1))  # [B, S, T]
    return 2 * (looked_up * precise_matmul(a, e.mT)).sum((1, 2))


def normalised_layer(x: Tensor, dims: int, eps: float, centred: bool = True) -> Tensor:
    """The normalised input of a LayerNorm, or of an RMSNorm (not centred): what its gain multiplies.

    Args:
        x: [..., d] input.
        dims: number of trailing dimensions that are normalised.
        eps: added to the variance.
        centred: whether the mean is taken off.

    Example:
        >>> normalised_layer(torch.tensor([1.0, 3.0]), 1, 0.0).tolist()
        [-1.0, 1.0]
    """
    x = working(x)
    if centred:  # torch's own, which reads the input once and not four times
        return F.layer_norm(x, x.shape[x.ndim - dims :], eps=eps)
    over = tuple(range(-dims, 0))
    return x * torch.rsqrt(x.square().mean(over, keepdim=True) + eps)


def gain_gradients(x: Tensor, g: Tensor, eps: float, centred: bool = True) -> Tensor:
    """Gradient of the gain of a normalisation for each example, ``sum_t g_t * xhat_t``.

    Some examples at a time: what is multiplied stays in a cache, and no tensor of the size of the inputs is made.

    Args:
        x: [B, T, d] inputs.
        g: [B, T, d] gradients at the outputs.
        eps: see ``normalised_layer``.
        centred: see ``normalised_layer``.

    Returns:
        [B, 1, d], float32 or float64 for float64 inputs.

    Example:
        >>> x, g = torch.tensor([[[1.0, 3.0], [3.0, 1.0]]]), torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> gain_gradients(x, g, 0.0).tolist()
        [[[2.0, -2.0]]]
    """
    batch, positions, width = x.shape
    if batch == 0 or positions == 0:
        return working(x).new_zeros(batch, 1, width)
    size = max(1, _BLOCK.get(x.device.type, _LARGE_BLOCK) // (positions * width))
    parts = ((x[at : at + size], g[at : at + size]) for at in range(0, batch, size))
    return torch.cat([(normalised_layer(a, 1, eps, centred) * working(b)).sum(1, keepdim=True) for a, b in parts])
