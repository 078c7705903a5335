"""Hearing attention inside compiled code: one operator in the graph that is used while somebody listens.

The compiler asks ``hubs.LISTENING`` and makes two graphs, each compiled once: the program's own, and one with this
operator after each attention. It is opaque to the compiler, takes queries and keys as they are, computes nothing that
the model uses, and writes to a number of its own so that it is not optimised away. While the graph is traced the layer
is found among the modules that are being traced. The compiler uses one graph for all models of a class, so what the
graph holds is the way from the module whose code it is to the layer; which module that is, the stack says when it runs.
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
from thermo_monitor.probes.routes.caller import calling_module, modules_of_frames

_SCHEMA = (
    "(Tensor(a!) told, str place, str kind, Tensor query, Tensor key, Tensor? mask, Tensor? bias, Tensor? sinks,"
    " Tensor? position_ids, Tensor? ends, float? scale, float? softcap, int? window, bool? causal) -> ()"
)
# What the operator writes to. On the host: a graph with it is then never replayed by a device alone, unheard.
TOLD = torch.zeros((), device="cpu")

FLEX = "flex_attention by itself"  # called by the program itself
BY_HAND = "by hand: "  # before the name that the program gave
Report = Callable[..., None]
REPORTS: dict[str, Report] = {}  # how the routes report; each under the kinds that it gives to the operator


def _tell(
    told: Tensor, place: str, kind: str, query: Tensor, key: Tensor, mask: Tensor | None, bias: Tensor | None,
    sinks: Tensor | None, position_ids: Tensor | None, ends: Tensor | None, scale: float | None,
    softcap: float | None, window: int | None, causal: bool | None,
) -> None:  # fmt: skip
    """What the operator does when the graph runs."""
    told.add_(1)
    given = {
        "position_bias": bias, "s_aux": sinks, "position_ids": position_ids, "cu_seq_lens_q": ends, "scaling": scale,
        "softcap": softcap, "sliding_window": window, "is_causal": causal,
    }  # fmt: skip
    module = _module_at(place)
    for hub in hubs.ACTIVE:
        name = hub.names.get(module)
        if kind == FLEX and not place:  # compiled alone: its caller is on the stack
            name = calling_module(hub.names, graphs=True)
        if kind.startswith(BY_HAND):
            if name is not None or not place:
                told_name = kind.removeprefix(BY_HAND)
                hub.hear("attention", functools.partial(REPORTS[BY_HAND], hub, told_name, query, key, mask, given))
            continue
        if name is not None and not _told_already(hub, module, kind):
            hub.hear("attention", functools.partial(REPORTS[kind], hub, name, query, key, mask, given))


def _told_already(hub: Hub, module: int, kind: str) -> bool:
    """Whether this is the function underneath a transformers attention that has just been reported."""
    if kind in ("function", FLEX) and hub.inside == module:
        hub.inside = None
        return True
    hub.inside = module if kind not in ("function", FLEX) else None
    return False


hear = torch.library.custom_op("thermo_monitor::hear", _tell, mutates_args=("told",), schema=_SCHEMA)


@hear.register_fake
def _(*args: Any) -> None:
    return None


def _traced_place() -> str:
    """The innermost module with parameters that is being traced right now, as seen from the outermost one.

    The class of the outermost module and the qualified name inside it; empty if no module is being traced.
    """
    target: nn.Module | None = None
    root: nn.Module | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        tracer = frame.f_locals.get("self") if frame.f_code.co_argcount else None
        variables = getattr(tracer, "symbolic_locals", None)
        if isinstance(variables, dict):
            module = getattr(variables.get("self"), "value", None)
            if isinstance(module, nn.Module):
                if target is None and any(True for _ in module.parameters()):
                    target = module
                if target is not None and any(m is target for m in module.modules()):
                    root = module
        frame = frame.f_back
    if root is None:
        return ""
    path = next(name for name, module in root.named_modules() if module is target)
    return f"{_class_of(root)} {path}"


def _class_of(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _module_at(place: str) -> int:
    """``id`` of the module at a place of the graph that runs; 0 where the stack does not say whose graph it is."""
    kind, _, path = place.partition(" ")
    if not kind:
        return 0
    for modules in modules_of_frames():
        fitting = [m for m in modules if _class_of(m) == kind]
        if len(fitting) > 1:
            return 0
        if fitting:
            try:
                return id(fitting[0].get_submodule(path))
            except AttributeError:
                continue
    return 0


traced_place: Callable[[], str] = torch._dynamo.assume_constant_result(_traced_place)  # type: ignore[no-untyped-call]


def _flex_makes_a_graph() -> bool:
    """Whether what is being traced is flex_attention's own step, which it takes where the program does not compile."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        tracer = frame.f_locals.get("self") if frame.f_code.co_argcount else None
        code = getattr(tracer, "f_code", None)
        if getattr(code, "co_name", "") == "_flex_attention_hop_wrapper":
            return True
        frame = frame.f_back
    return False


flex_makes_a_graph: Callable[[], bool] = torch._dynamo.assume_constant_result(_flex_makes_a_graph)  # type: ignore[no-untyped-call]
