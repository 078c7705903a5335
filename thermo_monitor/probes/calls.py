"""What was overheard: one call of an attention, a cross entropy or a block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thermo_monitor.physics.attention import MaskOf, Rows, Score, attention_logits, attention_rows, valid_rows
from thermo_monitor.physics.canonical import RowStatistics


@dataclass(slots=True)
class AttentionCall:
    """One call of an attention function, as the softmax saw it.

    Attributes:
        name: qualified name of the module that called, or the name that the user gave.
        query: [B, H, Q, D].
        key: [B, H_kv, K, D], before the heads are repeated.
        scale: factor on the scores.
        mask: bool (True = may attend) or additive, broadcastable to [B, H, Q, K], or None; or a function of examples
            [b], rows [R] and the number of keys that gives it for these.
        bias: added to the scores, or None.
        causal: whether query i sees keys 0 to i only, beside the mask.
        score: function of the scaled products [b, H, R, K], examples [b] and rows [R] that gives what the model makes
            of them, or None.
        sinks: [H] logits of one more state, or None.
        route: how the call was heard, in words.
    """

    name: str
    query: Tensor
    key: Tensor
    scale: float
    mask: Tensor | Callable[[Tensor, Tensor, int], Tensor] | None = None
    bias: Tensor | None = None
    causal: bool = False
    score: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    sinks: Tensor | None = None
    route: str = ""

    def logits(self, rows: Tensor | None = None, part: slice = slice(None)) -> tuple[Tensor, Tensor | None]:
        """The argument of the softmax for some queries of some examples, and which keys are states.

        Args:
            rows: [R] indices of the queries; None: all.
            part: the examples.

        Returns:
            logits [b, H, R, K] and bool, broadcastable to it, True where the key is a state, or None if all are.
        """
        return attention_logits(**self.arguments(part), rows=rows)

    def statistics(self, rows: Rows = None, part: slice = slice(None)) -> tuple[RowStatistics, Tensor | None]:
        """Statistics [b, H, R] of some queries of some examples, and which of them are no padding (None: all)."""
        arguments = self.arguments(part)
        return attention_rows(**arguments, rows=rows), self._valid(arguments, rows)

    def valid(self, rows: Rows = None, part: slice = slice(None)) -> Tensor | None:
        """Which queries of some examples are no padding, broadcastable to [b, H, R]; None: all."""
        return self._valid(self.arguments(part), rows)

    def _valid(self, arguments: dict[str, Any], rows: Rows) -> Tensor | None:
        index = rows if rows is None or isinstance(rows, Tensor) else rows.index(self.query.device)
        queries, keys = self.query.shape[2], self.key.shape[2]
        return valid_rows(index, queries, keys, mask=arguments["mask"], bias=arguments["bias"])

    def arguments(self, part: slice) -> dict[str, Any]:
        """What ``attention_rows`` takes, for some examples."""
        query, key = self.query.detach(), self.key.detach()
        batch = max(query.shape[0], key.shape[0])  # learned queries may be the same for all examples
        query, key = (x[part] if len(x) == batch else x.expand(batch, -1, -1, -1)[part] for x in (query, key))
        mask: Any = _examples(self.mask, part, batch) if isinstance(self.mask, Tensor) else self.mask
        score: Any = self.score
        if callable(mask) or score is not None:
            examples = torch.arange(batch, device=query.device)[part]
            mask = _for_examples(mask, examples) if callable(mask) else mask
            score = None if score is None else _score_for_examples(score, examples)
        return {
            "q": query,
            "k": key,
            "scale": self.scale,
            "mask": mask,
            "bias": None if self.bias is None else _examples(self.bias, part, batch),
            "causal": self.causal,
            "score": score,
            "sinks": None if self.sinks is None else self.sinks.detach(),
        }


def _for_examples(mask: Callable[[Tensor, Tensor, int], Tensor], examples: Tensor) -> MaskOf:
    return lambda rows, keys: mask(examples, rows, keys)


def _score_for_examples(score: Callable[[Tensor, Tensor, Tensor], Tensor], examples: Tensor) -> Score:
    return lambda z, rows: score(z, examples, rows)


@dataclass(slots=True)
class OutputCall:
    """Logits [N, V] and integer labels [N] of one cross entropy, and how much of it is label smoothing."""

    logits: Tensor
    labels: Tensor
    ignore_index: int
    label_smoothing: float = 0.0


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
        with (
            torch._C.DisableTorchFunctionSubclass()
        ):  # a class of its own may refuse the question, as masks of torch 2.6
            nested = x.is_nested
        if nested:
            return "nested tensors are not read"
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            return "calls inside torch.func transforms are not read"
        if type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__:
            return f"tensors of type {type(x).__name__} are not read"
    return ""


def _examples(x: Tensor, part: slice, batch: int) -> Tensor:
    """The examples of a mask or bias that has a batch dimension of its own."""
    x = x.detach()
    return x[part] if x.dim() == 4 and x.shape[0] == batch and batch > 1 else x
