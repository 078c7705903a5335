"""Hearing models that write their own softmax: one line in the user's code.

Each function costs two look-ups while no monitor listens, so the line may stay where it is. Compiled code leaves it
out: the compiler is asked first, so that it keeps one graph, whoever listens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import Tensor
from torch.compiler import is_compiling

from thermo_monitor.probes import hub as hubs
from thermo_monitor.probes.calls import AttentionCall, OutputCall, RepresentationCall
from thermo_monitor.probes.hub import Hub
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

    Example:
        >>> import torch
        >>> q = torch.randn(2, 4, 8, 16)
        >>> record_attention("layer.0", q, q, causal=True)  # nothing listens here: returns at once
    """
    if is_compiling() or not hubs.ACTIVE:
        return

    def report(hub: Hub) -> None:
        factor = query.shape[-1] ** -0.5 if scale is None else scale
        hub.attention(AttentionCall(name, query, key, factor, mask, bias, causal))

    _tell("attention", report)


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
