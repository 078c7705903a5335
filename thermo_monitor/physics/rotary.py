"""Rotary positions as rotations in planes: which rotations cost nothing, and what the others cost.

Rotary embeddings (Su et al. 2021, arXiv:2104.09864) turn each plane of queries and keys by an angle proportional to the
position. Turning a query and all its keys by one common angle changes no logit: an exact flat direction, which is an
identity. Turning the query alone in one plane changes the free energy ``F = -ln Z``; its curvature at the angle 0 is
the mass of that plane, a reconstruction of the massless modes of Kim 2026, arXiv:2602.08216, whose definition is not
public to us.

Shapes: B examples, H query heads, Hkv key heads (H a multiple of it), R queries, K keys, D head dimension, J planes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from thermo_monitor.physics.precision import accumulator, precise

Layout = Literal["half", "interleaved"]
LAYOUTS: tuple[str, ...] = ("half", "interleaved")


def planes(x: Tensor, layout: Layout = "half", rotary: int | None = None) -> Tensor:
    """The two coordinates of each rotary plane.

    Args:
        x: [..., D].
        layout: ``half``: plane j is (j, j + rotary/2), as in Llama and GPT-NeoX; ``interleaved``: (2j, 2j + 1), as in
            the paper and in GPT-J.
        rotary: how many leading dimensions are rotated; all without.

    Returns:
        [..., J, 2], J = rotary / 2.

    Raises:
        ValueError: the layout is unknown, or the number of dimensions is odd or larger than D.

    Example:
        >>> x = torch.arange(4)
        >>> planes(x).tolist(), planes(x, "interleaved").tolist()
        ([[0, 2], [1, 3]], [[0, 1], [2, 3]])
    """
    width = x.shape[-1] if rotary is None else rotary
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: give 'half' or 'interleaved'")
    if not 0 < width <= x.shape[-1] or width % 2:
        raise ValueError(f"{width} rotated dimensions of {x.shape[-1]}: give an even number up to all of them")
    x = x[..., :width]
    if layout == "interleaved":
        return x.reshape(*x.shape[:-1], width // 2, 2)
    return x.reshape(*x.shape[:-1], 2, width // 2).transpose(-1, -2)


def rotate(x: Tensor, angle: Tensor, layout: Layout = "half", rotary: int | None = None) -> Tensor:
    """Turn each plane of x by its angle.

    Args:
        x: [..., D].
        angle: [..., J], broadcastable to the planes of x.
        layout: see :func:`planes`.
        rotary: see :func:`planes`.

    Returns:
        [..., D] in the type of x.

    Example:
        >>> rotate(torch.tensor([3.0, 4.0]), torch.tensor([torch.pi / 2])).round().tolist()
        [-4.0, 3.0]
    """
    pairs = planes(x, layout, rotary)
    angle = angle.to(accumulator(angle.device))
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = pairs.unbind(-1)
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], -1)
    flat = turned.flatten(-2) if layout == "interleaved" else turned.transpose(-1, -2).flatten(-2)
    return torch.cat([flat, x[..., flat.shape[-1] :].expand(*flat.shape[:-1], -1)], -1)


def rope_flat_residual(
    q: Tensor, k: Tensor, angle: Tensor, *, scale: float, layout: Layout = "half", rotary: int | None = None
) -> Tensor:
    """Largest change of the logits of a row when its query and all keys turn by common angles, relative to its largest.

    Zero up to rounding (1e-6 in single precision): the product of two vectors does not change when both turn, whatever
    the layout. A number above that says how far the arithmetic is from this identity.

    Args:
        q: [B, H, R, D] queries, after rotation.
        k: [B, Hkv, K, D] keys, after rotation.
        angle: [J] one angle for each plane.
        scale: factor on the products.
        layout: see :func:`planes`.
        rotary: see :func:`planes`.

    Returns:
        [B, H, R].

    Example:
        >>> q, k = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 5, 8)
        >>> bool((rope_flat_residual(q, k, torch.randn(4), scale=1.0) < 1e-6).all())
        True
    """
    with precise(q.device):
        k = _repeated(k, q)
        z = scale * (q @ k.mT)
        turned = scale * (rotate(q, angle, layout, rotary) @ rotate(k, angle, layout, rotary).mT)
    return (turned - z).abs().amax(-1) / z.abs().amax(-1)


def rope_mass(
    p: Tensor, q: Tensor, k: Tensor, *, scale: float, layout: Layout = "half", rotary: int | None = None
) -> Tensor:
    """Curvature of the free energy when the query turns in one plane, ``m_j = <z_j> - Var_p(dz_j/dphi_j)``, in nats.

    ``z_j`` is the part of the logit from plane j and ``dz_j/dphi_j`` the same with the query turned by 90 degrees.
    Positive: turning the query costs free energy, the plane is held in place; about 0: the plane does not matter;
    negative: turning it either way would gain.

    Args:
        p: [B, H, R, K] weights of the rows, 0 where a key is no state.
        q: [B, H, R, D] queries, after rotation.
        k: [B, Hkv, K, D] keys, after rotation.
        scale: factor on the products.
        layout: see :func:`planes`.
        rotary: see :func:`planes`.

    Returns:
        [B, H, R, J] float64.

    Example:
        One plane, keys along the query and against it, amplitude 1: tanh(1).

        >>> q, k = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0], [-1.0, 0.0]]]])
        >>> round(rope_mass(torch.softmax(q.double() @ k.double().mT, -1), q, k, scale=1.0).item(), 9)
        0.761594156
    """
    p, pairs, turned, keys = _prepared(p, q, k, layout, rotary)
    # Around the mean key of each plane, so that the second moments lose no digits to a common offset.
    middle = keys.mean(-3, keepdim=True)
    x, y = (keys - middle).unbind(-1)
    moments = p @ torch.cat([x, y, x * x, x * y, y * y], -1)
    mx, my, xx, xy, yy = moments.chunk(5, -1)
    a, b = turned.unbind(-1)
    spread = a * a * (xx - mx * mx) + 2 * a * b * (xy - mx * my) + b * b * (yy - my * my)
    mean = torch.stack([mx, my], -1) + middle
    return scale * (pairs * mean).sum(-1) - scale * scale * spread


def rope_shift_response(
    p: Tensor,
    q: Tensor,
    k: Tensor,
    theta: Tensor,
    *,
    scale: float,
    layout: Layout = "half",
    rotary: int | None = None,
) -> Tensor:
    """Change of the free energy for a shift of the query's position by one, ``-sum_j theta_j <dz_j/dphi_j>``.

    Args:
        p: [B, H, R, K] weights of the rows, 0 where a key is no state.
        q: [B, H, R, D] queries, after rotation.
        k: [B, Hkv, K, D] keys, after rotation.
        theta: [J] angle by which each plane turns from one position to the next.
        scale: factor on the products.
        layout: see :func:`planes`.
        rotary: see :func:`planes`.

    Returns:
        [B, H, R] float64, nats per position; positive: a later query would be bound less.

    Example:
        >>> q, k = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[1.0, 0.0], [-1.0, 0.0]]]])
        >>> rope_shift_response(torch.full((1, 1, 1, 2), 0.5), q, k, torch.ones(1), scale=1.0).item()
        0.0
    """
    p, _, turned, keys = _prepared(p, q, k, layout, rotary)
    x, y = p @ keys[..., 0], p @ keys[..., 1]
    a, b = turned.unbind(-1)
    response: Tensor = (-scale * theta.to(p.dtype) * (a * x + b * y)).sum(-1)
    return response + 0.0  # no minus zero


def _prepared(
    p: Tensor, q: Tensor, k: Tensor, layout: Layout, rotary: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights, planes of the queries, the same turned by 90 degrees, and planes of the keys [B, H, K, J, 2]."""
    high = accumulator(p.device)
    pairs = planes(q.to(high), layout, rotary)
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1)
    return p.to(high), pairs, turned, planes(_repeated(k, q).to(high), layout, rotary)


def _repeated(k: Tensor, q: Tensor) -> Tensor:
    """Keys for every query head."""
    return k if k.shape[1] == q.shape[1] else k.repeat_interleave(q.shape[1] // k.shape[1], 1)
