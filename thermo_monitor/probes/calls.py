"""What was overheard: one call of an attention, a cross entropy or a block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from thermo_monitor.physics.attention import attention_logits

MASKED = -9000.0
"""An additive term at or below this masks its key.

Programs mask with -1e4 (what half precision holds), -1e9 or the lowest number of a type as often as with -inf, and
may add two such masks or a position bias. All of these give a weight of exactly zero, but as states such keys would
swamp the spread of the logits and count as keys that could have been attended to. The limit is absolute, not relative
to the row, so that the row of a padded query, whose keys are all masked, has no state instead of n equal ones. Its
price: under a linear bias (ALiBi) the steepest heads lose keys that are more than about 12 000 positions away.
"""


@dataclass(slots=True)
class AttentionCall:
    """One call of an attention function, as the softmax saw it.

    Attributes:
        name: qualified name of the module that called, or the name that the user gave.
        query: [B, H, Q, D].
        key: [B, H_kv, K, D], before the heads are repeated.
        scale: factor on the scores.
        mask: bool (True = may attend) or additive, broadcastable to [B, H, Q, K], or None.
        bias: added to the scores, or None.
        causal: whether query i sees keys 0 to i only, beside the mask.
    """

    name: str
    query: Tensor
    key: Tensor
    scale: float
    mask: Tensor | None = None
    bias: Tensor | None = None
    causal: bool = False

    def logits(self, rows: Tensor | None = None, part: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """The argument of the softmax for some queries of some examples, and which keys are states.

        Args:
            rows: [R] indices of the queries; None: all.
            part: the examples.

        Returns:
            logits [b, H, R, K] and bool, broadcastable to it, True where the key is a state, or None if all are.
        """
        query, key = self.query.detach(), self.key.detach()
        batch = max(query.shape[0], key.shape[0])  # learned queries may be the same for all examples
        query, key = (x.expand(batch, -1, -1, -1)[part] for x in (query, key))
        mask, bias = _examples(self.mask, part, batch), _examples(self.bias, part, batch)
        z, allowed = attention_logits(query, key, scale=self.scale, mask=mask, bias=bias, causal=self.causal, rows=rows)
        for term in (mask, bias):
            if term is not None and term.is_floating_point():
                state = ~(_queries(term, rows, query.shape[2]) <= MASKED)
                allowed = state if allowed is None else allowed & state
        return z, allowed


@dataclass(slots=True)
class OutputCall:
    """Logits [N, V] and integer labels [N] of one cross entropy."""

    logits: Tensor
    labels: Tensor
    ignore_index: int


@dataclass(slots=True)
class RepresentationCall:
    """Token representations [B, T, d] (or [N, d]) of one block.

    Attributes:
        name: the block, or the name that the user gave.
        hidden: the representations.
        padding: [B, T], nonzero where the token is real, or None where all are.
        told: whether the user's own line reported it.
    """

    name: str
    hidden: Tensor
    padding: Tensor | None
    told: bool = False


def unreadable(*tensors: Tensor | None) -> str:
    """Why some of these are no ordinary tensors, or the empty string.

    Values inside a function transform (``torch.func``) must not outlive it, and tensors that stand for something else
    (sharded, nested, fake) cannot be packed with ordinary ones.
    """
    for x in tensors:
        if x is None:
            continue
        if x.is_nested:
            return "nested tensors are not read"
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            return "calls inside torch.func transforms are not read"
        if type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            return f"tensors of type {type(x).__name__} are not read"
    return ""


def _examples(x: Tensor | None, part: slice, batch: int) -> Tensor | None:
    """The examples of a mask or bias that has a batch dimension of its own."""
    return x[part] if x is not None and x.dim() == 4 and x.shape[0] == batch and batch > 1 else x


def _queries(x: Tensor, rows: Tensor | None, queries: int) -> Tensor:
    """The queries of a mask or bias that depends on them."""
    return x if rows is None or x.dim() < 2 or x.shape[-2] != queries else x.index_select(-2, rows)
