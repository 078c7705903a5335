"""Masks and changed scores that exist only as a rule, evaluated for the rows that are read.

Each maker returns a function of examples [b], rows [R] and the number of keys, or of the scaled products
[b, H, R, K], examples and rows; see ``AttentionCall``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

Mask = Callable[[Tensor, Tensor, int], Tensor]
Score = Callable[[Tensor, Tensor, Tensor], Tensor]


def softcap(cap: float) -> Score:
    """Logits that cannot leave (-cap, cap): ``cap tanh(z / cap)``."""

    def score(z: Tensor, examples: Tensor, rows: Tensor) -> Tensor:
        return cap * torch.tanh(z / cap)

    return score


def block_mask_rule(mask: Any) -> Callable[..., Tensor] | None:
    """The rule of a mask of flex_attention; None for anything else."""
    rule: Callable[..., Tensor] | None = getattr(mask, "mask_mod", None) if type(mask).__name__ == "BlockMask" else None
    return rule


def of_flex(mask_mod: Callable[..., Tensor], heads: int) -> Mask:
    """The rule of a ``BlockMask``: a function of example, head, query and key numbers, all of them 0-d tensors."""

    def mask(examples: Tensor, rows: Tensor, keys: int) -> Tensor:
        head, key = (torch.arange(n, device=rows.device) for n in (heads, keys))
        return _over_all(mask_mod, ())(examples, head, rows, key)

    return mask


def score_of_flex(score_mod: Callable[..., Tensor]) -> Score:
    """The rule by which flex_attention changes a score: a function of the score and of the four numbers."""

    def score(z: Tensor, examples: Tensor, rows: Tensor) -> Tensor:
        head, key = (torch.arange(n, device=rows.device) for n in (z.shape[1], z.shape[3]))
        return _over_all(score_mod, (0,))(z, examples, head, rows, key)

    return score


def _over_all(rule: Callable[..., Tensor], first: tuple[int, ...]) -> Callable[..., Tensor]:
    """A rule for single numbers as a function of whole ranges of them: keys innermost, examples outermost."""
    for which in (3, 2, 1, 0):
        dims: list[int | None] = [None] * 4
        dims[which] = 0
        rule = torch.vmap(rule, in_dims=(*first, *dims))

    def over_all(*given: Tensor) -> Tensor:
        # Rules look things up by these numbers (slopes of heads, say), which torch 2.6 cannot do under vmap by itself.
        with TransformGetItemToIndex():
            return rule(*given)

    return over_all


def of_flash(padding: Tensor | None, packed: Tensor | None, window: int | None, causal: bool) -> Mask:
    """What FlashAttention masks by itself.

    Args:
        padding: [B, K], True where the token is real.
        packed: [T] number of the sequence that each token belongs to.
        window: a query sees the keys that are less than so many tokens away.
        causal: whether query i sees keys 0 to i only.
    """

    def mask(examples: Tensor, rows: Tensor, keys: int) -> Tensor:
        key = torch.arange(keys, device=rows.device)
        distance = rows.unsqueeze(-1) - key
        allowed = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
        if window is not None:
            allowed = allowed & (distance.abs() < window)
        if packed is not None:
            allowed = allowed & (packed[rows].unsqueeze(-1) == packed)
        allowed = allowed[None, None]
        return allowed if padding is None else allowed & padding[examples][:, None, None, :]

    return mask


def sequence_of_ends(ends: Tensor, length: int) -> Tensor:
    """[T] number of the sequence of each token, from the ends 0, n_1, n_1 + n_2, ... of packed sequences.

    Example:
        >>> sequence_of_ends(torch.tensor([0, 2, 5]), 5).tolist()
        [0, 0, 1, 1, 1]
    """
    return torch.searchsorted(ends[1:].contiguous(), torch.arange(length, device=ends.device), right=True)


def sequence_of_positions(position: Tensor) -> Tensor:
    """[T] number of the sequence of each token, from positions that start again with every packed sequence.

    Where the positions rise by one throughout there is one sequence, and all numbers are equal.

    Example:
        >>> sequence_of_positions(torch.tensor([0, 1, 0, 1, 2])).tolist()
        [1, 1, 2, 2, 2]
    """
    return (position == position.min()).cumsum(0)
