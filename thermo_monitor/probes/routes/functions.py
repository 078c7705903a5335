"""Hearing plain PyTorch: ``scaled_dot_product_attention``, ``nn.MultiheadAttention`` and ``cross_entropy``.

A ``TorchFunctionMode`` sees every such call with its arguments, whatever name it was imported under. It calls the
function with the user's arguments, once, and returns its result untouched. It is entered for the forward passes of
measured steps only: while active it disables the inference fast path of ``nn.MultiheadAttention``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from thermo_monitor.probes import uncompiled
from thermo_monitor.probes.calls import AttentionCall, OutputCall, unreadable
from thermo_monitor.probes.hub import Hub
from thermo_monitor.probes.routes import compiled, losses, masks
from thermo_monitor.probes.routes.caller import called_by_stranger, calling_module
from thermo_monitor.probes.routes.modes import LowMode

_MULTIHEAD = inspect.signature(F.multi_head_attention_forward)


def _scaled_dot_product(
    hub: Hub,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    name: str | None = None,
    route: str = "scaled_dot_product_attention",
) -> None:
    name = calling_module(hub.names) if name is None else name
    if name is None:
        return
    why = unreadable(query, key, attn_mask)  # asked before its dimensions are
    if why:
        return hub.refuse(name, why)
    if attn_mask is not None and type(attn_mask) not in (Tensor, torch.nn.Parameter):
        return hub.refuse(name, f"a mask of type {type(attn_mask).__name__} is not read")
    if query.dim() > 4:
        return hub.refuse(name, f"queries with {query.dim()} dimensions are not read")
    if scale is None:
        scale = 1.0 / math.sqrt(query.shape[-1])
    # Without a head dimension each sequence is one head; without a batch dimension it is a batch of one.
    if query.dim() == 3 and attn_mask is not None and attn_mask.dim() == 3:
        attn_mask = attn_mask.unsqueeze(1)
    query, key = _four_dimensional(query), _four_dimensional(key)
    hub.attention(AttentionCall(name, query, key, float(scale), attn_mask, None, is_causal, route=route))


def _four_dimensional(x: Tensor) -> Tensor:
    if x.dim() == 3:
        return x.unsqueeze(1)
    return x[None, None] if x.dim() == 2 else x


def _multihead(hub: Hub, *args: Any, **kwargs: Any) -> None:
    name = calling_module(hub.names)
    if name is None:
        return
    given = _MULTIHEAD.bind(*args, **kwargs)
    given.apply_defaults()
    a = given.arguments
    for feature in ("bias_k", "bias_v", "static_k", "static_v"):
        if a[feature] is not None:
            return hub.refuse(name, f"nn.MultiheadAttention with {feature} is not read")
    if a["add_zero_attn"]:
        return hub.refuse(name, "nn.MultiheadAttention with add_zero_attn is not read")
    query, key, heads = a["query"], a["key"], a["num_heads"]
    why = unreadable(query, key, a["attn_mask"], a["key_padding_mask"])
    if why:
        return hub.refuse(name, why)
    if a["use_separate_proj_weight"]:
        w_q, w_k = a["q_proj_weight"], a["k_proj_weight"]
    else:
        w_q, w_k, _ = a["in_proj_weight"].chunk(3)
    b_q, b_k = (None, None) if a["in_proj_bias"] is None else a["in_proj_bias"].chunk(3)[:2]
    # The user's own autocast, if any, is in force here: the projections are the ones that the module computes.
    # Detached: an autocast that keeps the rounded weights of this call would hand them, without gradient, to the user.
    w_q, w_k = w_q.detach(), w_k.detach()
    q, k = _heads(F.linear(query, w_q, b_q), heads), _heads(F.linear(key, w_k, b_k), heads)
    mask, bias = _multihead_mask(a["attn_mask"], a["key_padding_mask"], heads)
    scale = 1.0 / math.sqrt(q.shape[-1])
    # With a mask given, is_causal is only a hint that the mask is a causal one.
    causal = bool(a["is_causal"]) and a["attn_mask"] is None
    hub.attention(AttentionCall(name, q, k, scale, mask, bias, causal, route="nn.MultiheadAttention"))


def _heads(x: Tensor, heads: int) -> Tensor:
    """[L, B, E] or [L, E] to [B, H, L, E / H]."""
    if x.dim() == 2:
        x = x.unsqueeze(1)
    length, batch, width = x.shape
    return x.view(length, batch, heads, width // heads).permute(1, 2, 0, 3)


def _multihead_mask(
    attn_mask: Tensor | None, padding: Tensor | None, heads: int
) -> tuple[Tensor | None, Tensor | None]:
    """Two masks (True = masked, or additive) as one bool mask (True = may attend) and one additive bias."""
    allowed: Tensor | None = None
    bias: Tensor | None = None
    if attn_mask is not None and attn_mask.dim() == 3:
        attn_mask = attn_mask.reshape(-1, heads, *attn_mask.shape[-2:])
    if padding is not None:
        padding = padding[None] if padding.dim() == 1 else padding
        padding = padding[:, None, None, :]
    for part in (attn_mask, padding):
        if part is None:
            continue
        if part.dtype == torch.bool:
            allowed = ~part if allowed is None else allowed & ~part
        else:
            bias = part if bias is None else bias + part
    return allowed, bias


def _flex(
    hub: Hub,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Callable[..., Tensor],
    block_mask: tuple[Any, ...],
    scale: float,
    options: Any,
    of_score: tuple[Any, ...] = (),
    of_mask: tuple[Any, ...] = (),
) -> None:
    """The operator that flex_attention calls where it is not compiled, with its rules as graphs of their own."""
    name = calling_module(hub.names, graphs=True)
    if name is None:
        return
    mask_mod = block_mask[-1]
    call = AttentionCall(name, query, key, float(scale), route="flex_attention")
    call.mask = masks.of_flex(lambda *at: mask_mod(*at, *of_mask), query.shape[1])
    call.score = masks.score_of_flex(lambda *at: score_mod(*at, *of_score))
    hub.attention(call)


def _cross_entropy(
    hub: Hub,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> None:
    # Usually called outside any module, and then nothing says whose loss it is; but a model that computes its own loss,
    # and is not the monitored one, is a teacher or the like.
    if called_by_stranger(hub.names):
        return
    if target.is_floating_point() or input.dim() < 1:
        return  # class probabilities: no label whose loss could be read
    if input.is_nested:
        return
    logits = input[None] if input.dim() == 1 else input.movedim(1, -1)
    hub.output(OutputCall(logits.reshape(-1, logits.shape[-1]), target.reshape(-1), ignore_index, label_smoothing))


# What flex_attention calls in the end; it is no overridable function itself.
_FLEX: Any = torch.ops.higher_order.flex_attention

_REPORTS: dict[Callable[..., Any], Callable[..., None]] = {
    _FLEX: _flex,
    F.scaled_dot_product_attention: _scaled_dot_product,
    F.multi_head_attention_forward: _multihead,
    F.cross_entropy: _cross_entropy,
}


def _traced(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> None:
    """Put the operator that reports this call into the graph that is being made."""
    query, key = query.detach(), key.detach()
    compiled.hear(
        compiled.TOLD, compiled.traced_place(), "function", query, key, attn_mask,
        None, None, None, None, scale, None, None, is_causal,
    )  # fmt: skip


def _traced_multihead(query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> None:
    """Its projections would have to be made twice in the program's graph: left out, and said."""
    compiled.hear(
        compiled.TOLD, compiled.traced_place(), "multihead", query.detach(), key.detach(),
        None, None, None, None, None, None, None, None, None,
    )  # fmt: skip


def _traced_flex(query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> None:
    """Its rules are part of the program's graph and cannot be asked again: left out, and said."""
    compiled.hear(
        compiled.TOLD, compiled.traced_place(), compiled.FLEX, query.detach(), key.detach(),
        None, None, None, None, None, None, None, None, None,
    )  # fmt: skip


def _refused(hub: Hub, name: str, *given: Any) -> None:
    hub.refuse(name, "nn.MultiheadAttention inside compiled code is not read")


def _refused_flex(hub: Hub, name: str, *given: Any) -> None:
    hub.refuse(name, "compiled flex_attention is not read; record_attention(..., score_mod=, block_mask=) beside it is")


def _from_graph(hub: Hub, name: str, query: Tensor, key: Tensor, mask: Tensor | None, given: dict[str, Any]) -> None:
    scale, causal = given["scaling"], given["is_causal"] is True
    route = "scaled_dot_product_attention in compiled code"
    _scaled_dot_product(hub, query, key, key, mask, is_causal=causal, scale=scale, name=name, route=route)


compiled.REPORTS["function"] = _from_graph
compiled.REPORTS["multihead"] = _refused
compiled.REPORTS[compiled.FLEX] = _refused_flex


def _traceable(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function in code that is being traced; two methods by the functions that do the same."""
    if func is Tensor.unflatten:  # calls that of its base class, which the compiler cannot follow under a mode
        return torch.unflatten(*args, **kwargs)
    if func is Tensor.split:  # torch before 2.9 writes a graph that asks the wrong module for it
        given = {"split_size_or_sections" if name == "split_size" else name: x for name, x in kwargs.items()}
        return torch.split(*args, **given)
    return func(*args, **kwargs)


class ListeningMode(LowMode):
    """Reports the calls that matter to a hub, and changes none."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub

    @uncompiled.never_alone
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Report, then call."""
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            if func is F.scaled_dot_product_attention:
                _traced(*args, **kwargs)
            elif func is F.multi_head_attention_forward:
                _traced_multihead(*args, **kwargs)
            elif func is _FLEX and not compiled.flex_makes_a_graph():
                _traced_flex(*args, **kwargs)
            return _traceable(func, args, kwargs)
        report, hub = _REPORTS.get(func), self._hub
        if report is not None:
            hub.hear("attention" if report is not _cross_entropy else "output", lambda: report(hub, *args, **kwargs))
        result = func(*args, **kwargs)  # what it calls inside is not heard: a mode is off in its own handler
        if hub.on_loss_value and func in losses.REDUCTION:
            hub.hear("loss value", lambda: losses.report(hub, func, args, kwargs, result))
        return result
