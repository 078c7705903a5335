"""Hearing attention inside compiled code: one operator in the graph that is used while somebody listens.

The compiler asks ``hubs.LISTENING`` and makes two graphs, each compiled once: the program's own, and one with this
operator after each attention. It is opaque to the compiler, takes queries and keys as they are, computes nothing that
the model uses, and writes to a number of its own so that it is not optimised away. While the graph is traced the layer
is found among the modules that are being traced; its ``id`` is a constant of the graph.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from thermo_monitor.probes import hub as hubs
from thermo_monitor.probes.hub import Hub

_SCHEMA = (
    "(Tensor(a!) told, int module, str kind, Tensor query, Tensor key, Tensor? mask, Tensor? bias, Tensor? sinks,"
    " Tensor? position_ids, Tensor? ends, float? scale, float? softcap, int? window, bool? causal) -> ()"
)
# What the operator writes to. On the host: a graph with it is then never replayed by a device alone, unheard.
TOLD = torch.zeros((), device="cpu")

BY_HAND = "by hand: "  # before the name that the program gave
Report = Callable[..., None]
REPORTS: dict[str, Report] = {}  # how the routes report; each under the kinds that it gives to the operator


def _tell(
    told: Tensor, module: int, kind: str, query: Tensor, key: Tensor, mask: Tensor | None, bias: Tensor | None,
    sinks: Tensor | None, position_ids: Tensor | None, ends: Tensor | None, scale: float | None,
    softcap: float | None, window: int | None, causal: bool | None,
) -> None:  # fmt: skip
    """What the operator does when the graph runs."""
    told.add_(1)
    given = {
        "position_bias": bias, "s_aux": sinks, "position_ids": position_ids, "cu_seq_lens_q": ends, "scaling": scale,
        "softcap": softcap, "sliding_window": window, "is_causal": causal,
    }  # fmt: skip
    for hub in hubs.ACTIVE:
        name = hub.names.get(module)
        if kind.startswith(BY_HAND):
            if name is not None or not module:
                told_name = kind.removeprefix(BY_HAND)
                hub.hear("attention", functools.partial(REPORTS[BY_HAND], hub, told_name, query, key, mask, given))
            continue
        if name is not None and not _told_already(hub, module, kind):
            hub.hear("attention", functools.partial(REPORTS[kind], hub, name, query, key, mask, given))


def _told_already(hub: Hub, module: int, kind: str) -> bool:
    """Whether this is the function underneath a transformers attention that has just been reported."""
    if kind == "function" and hub.inside == module:
        hub.inside = None
        return True
    hub.inside = module if kind != "function" else None
    return False


hear = torch.library.custom_op("thermo_monitor::hear", _tell, mutates_args=("told",), schema=_SCHEMA)


@hear.register_fake
def _(*args: Any) -> None:
    return None


def _traced_module() -> int:
    """``id`` of the innermost module with parameters that is being traced right now; 0 if there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        tracer = frame.f_locals.get("self") if frame.f_code.co_argcount else None
        variables = getattr(tracer, "symbolic_locals", None)
        if isinstance(variables, dict):
            module = getattr(variables.get("self"), "value", None)
            if isinstance(module, nn.Module) and any(True for _ in module.parameters()):
                return id(module)
        frame = frame.f_back
    return 0


traced_module: Callable[[], int] = torch._dynamo.assume_constant_result(_traced_module)  # type: ignore[no-untyped-call]
