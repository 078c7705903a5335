"""Drawing tokens with random numbers of one's own, which do not depend on what else is in the batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thermo_monitor.physics.precision import working


def sampling_logits(
    y: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Logits as they are sampled from; what is cut off becomes -inf, and the rest is what is scored, too.

    In the order of transformers: divided by the temperature, the ``top_k`` largest kept (and what equals the last of
    them), then the smallest set of them that holds a mass of ``top_p``.

    Args:
        y: [..., V] logits of the model.
        temperature: positive.
        top_k: how many tokens are kept; None: all.
        top_p: mass that is kept; None: all.

    Returns:
        [..., V] in float32, or float64 if y is.

    Raises:
        ValueError: if an option is out of its range.

    Example:
        >>> sampling_logits(torch.tensor([4.0, 2.0, 0.0]), temperature=2.0, top_k=2).tolist()
        [2.0, 1.0, -inf]
    """
    if not temperature > 0 or math.isinf(temperature):
        raise ValueError(f"temperature={temperature}: give a positive number; greedy decoding has no entropy")
    z = working(y) / temperature
    if top_k is not None:
        if top_k < 1:
            raise ValueError(f"top_k={top_k}: keep at least one token")
        least = z.topk(min(top_k, z.shape[-1]), -1).values[..., -1:]
        z = z.masked_fill(z < least, -math.inf)
    if top_p is not None:
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p={top_p}: give a share above 0 and at most 1")
        ordered, place = z.sort(-1, descending=True)
        p = ordered.softmax(-1)
        spare = p.cumsum(-1) - p >= top_p  # without it the mass is reached
        z = z.masked_fill(torch.zeros_like(spare).scatter(-1, place, spare), -math.inf)
    return z


def draw(p: Tensor, uniform: Tensor) -> Tensor:
    """One token of each row, by inverting the cumulated distribution.

    Args:
        p: [B, V] probabilities, up to a factor.
        uniform: [B] in [0, 1).

    Returns:
        [B] int64; never a token of probability zero.

    Example:
        >>> draw(torch.tensor([[0.5, 0.0, 0.5]]).expand(3, 3), torch.tensor([0.0, 0.49, 0.51])).tolist()
        [0, 0, 2]
    """
    total = p.to(torch.float64 if p.device.type != "mps" else p.dtype).cumsum(-1)
    at = (uniform.to(total.dtype) * total[:, -1]).unsqueeze(-1)
    token = torch.searchsorted(total, at, right=True).squeeze(-1)
    last = (total < total[:, -1:]).sum(-1)  # rounding may reach the end, and tokens there may have no weight
    return torch.minimum(token, last)


def gumbel(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise: ``argmax(z + noise)`` is a draw from ``softmax(z)``, and the same noise serves any z.

    Example:
        >>> gumbel((2, 3), torch.Generator().manual_seed(0), torch.device("cpu")).shape
        torch.Size([2, 3])
    """
    u = torch.rand(shape, generator=generator, dtype=torch.float64).clamp(min=1e-300)
    return (-(-u.log()).log()).to(device=device, dtype=torch.float32)
