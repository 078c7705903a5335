"""Hearing models that write their own softmax: one line in the user's code.

Each function costs two look-ups while no monitor listens, so the line may stay where it is. Compiled code leaves out
outputs and representations: the compiler is asked first, so that it keeps one graph, whoever listens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.compiler import is_compiling

from thermo_monitor.probes import hub as hubs
from thermo_monitor.probes.calls import AttentionCall, OutputCall, RepresentationCall
from thermo_monitor.probes.hub import Hub
from thermo_monitor.probes.routes import compiled, masks
from thermo_monitor.probes.routes.caller import called_by_stranger


def record_attention(
    name: str,
    query: Tensor,
    key: Tensor,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    score_mod: Callable[..., Tensor] | None = None,
    block_mask: object | None = None,
) -> None:
    """Report an attention that is computed by hand.

    Args:
        name: how the layer shall be called, unique in the model.
        query: [B, H, Q, D].
        key: [B, H_kv, K, D]; H is a multiple of H_kv.
        scale: factor on the scores, 1 / sqrt(D) when left out.
        mask: bool (True = may attend) or additive, broadcastable to [B, H, Q, K].
        bias: added to the scores.
        causal: whether query i sees keys 0 to i only.
        softcap: c, if the scores are c tanh(score / c) before anything is added or masked.
        sinks: [H] logits of one more state of every row, which has no key.
        score_mod: what ``flex_attention`` was given under this name, in place of a bias or cap.
        block_mask: what ``flex_attention`` was given under this name, in place of a mask.

    Example:
        >>> import torch
        >>> q = torch.randn(2, 4, 8, 16)
        >>> record_attention("layer.0", q, q, causal=True)  # nothing listens here: returns at once
    """
    if is_compiling():
        if hubs.LISTENING and score_mod is None and block_mask is None:
            compiled.hear(
                compiled.TOLD, compiled.traced_place(), compiled.BY_HAND + name, query.detach(), key.detach(), mask,
                bias, sinks, None, None, scale, softcap, None, causal,
            )  # fmt: skip
        return
    if not hubs.ACTIVE:
        return

    def report(hub: Hub) -> None:
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        score = None if score_mod is None else masks.score_of_flex(score_mod)
        if softcap is not None:
            score = masks.softcap(softcap)
        rule = masks.block_mask_rule(block_mask)
        if (block_mask is not None and rule is None) or (softcap is not None and score_mod is not None):
            return hub.refuse(name, "give a BlockMask as block_mask, and a softcap or a score_mod, not both")
        if rule is not None and mask is not None:
            return hub.refuse(name, "give a mask or a block_mask, not both")
        found = mask if rule is None else masks.of_flex(rule, query.shape[1])
        hub.attention(AttentionCall(name, query, key, factor, found, bias, causal, score, sinks, "record_attention"))

    _tell("attention", report)


def _from_graph(hub: Hub, name: str, query: Tensor, key: Tensor, mask: Tensor | None, given: dict[str, Any]) -> None:
    factor = query.shape[-1] ** -0.5 if given["scaling"] is None else given["scaling"]
    score = None if given["softcap"] is None else masks.softcap(given["softcap"])
    causal = given["is_causal"] is True
    bias, sinks, route = given["position_bias"], given["s_aux"], "record_attention in compiled code"
    hub.attention(AttentionCall(name, query, key, factor, mask, bias, causal, score, sinks, route))


compiled.REPORTS[compiled.BY_HAND] = _from_graph


def record_output(logits: Tensor, labels: Tensor, *, ignore_index: int = -100) -> None:
    """Report logits [..., V] and integer labels [...] of a loss that is not computed by ``F.cross_entropy``."""
    if is_compiling() or not hubs.ACTIVE:
        return

    def report(hub: Hub) -> None:
        hub.output(OutputCall(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index))

    _tell("output", report)


def record_representation(name: str, hidden: Tensor, *, padding: Tensor | None = None) -> None:
    """Report token representations [B, T, d], with padding [B, T] (nonzero = a real token) where there is some."""
    if is_compiling() or not hubs.ACTIVE:
        return
    _tell("representation", lambda hub: hub.representation(RepresentationCall(name, hidden, padding, told=True)))


def _tell(part: str, report: Callable[[Hub], None]) -> None:
    """Report to the hubs that listen, less those of another model than the one that calls."""
    for hub in hubs.ACTIVE:
        if not called_by_stranger(hub.names):
            hub.hear(part, functools.partial(report, hub))
