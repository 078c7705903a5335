"""Hearing transformers models: the attention function is wrapped under the key it has, never under a new one.

A new name would lose the mask: masks are made for the names that the library knows, and a model that is called under
another silently attends to padding and to the future. Only keys that the monitored model uses are wrapped; one wrapper
serves all monitors of the process and is gone when the last one closes. transformers is never imported here.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from thermo_monitor.probes import hub as hubs
from thermo_monitor.probes.calls import AttentionCall
from thermo_monitor.probes.hub import Hub
from thermo_monitor.probes.routes import compiled, masks

_READ = ("sdpa", "flex_attention", "flash_attention_2", "flash_attention_3")
_users: dict[str, int] = {}
_wrapped: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}  # what was found, and what stands in its place


def implementations(model: nn.Module) -> set[str]:
    """Attention implementations that the configurations inside a model name; empty without transformers."""
    if "transformers.modeling_utils" not in sys.modules:
        return set()
    found = set()
    for module in model.modules():
        name = getattr(getattr(module, "config", None), "_attn_implementation", None)
        if isinstance(name, str):
            found.add(name)
    return found


def install(model: nn.Module) -> list[str]:
    """Wrap what the model uses; the answer goes to :func:`uninstall`."""
    keys = [key for key in sorted(implementations(model)) if _readable(key)]
    for key in keys:
        if _users.get(key, 0) == 0:
            _wrap(key)
        _users[key] = _users.get(key, 0) + 1
    return keys


def uninstall(keys: list[str]) -> None:
    """Give the wrapped keys back; the last user restores the original."""
    for key in keys:
        _users[key] -= 1
        if _users[key] == 0:
            _unwrap(key)


def unread(model: nn.Module) -> list[str]:
    """Implementations of the model that this route does not read."""
    return [key for key in sorted(implementations(model)) if not _readable(key)]


def _readable(key: str) -> bool:
    if key == "eager":
        return hasattr(_interface(), "get_interface")
    return key in _READ and key in _interface()._global_mapping


def _interface() -> Any:
    return sys.modules["transformers.modeling_utils"].AttentionInterface


def _wrap(key: str) -> None:
    if key == "eager":
        # Eager functions are no entries of the mapping: each model file hands its own to get_interface as the default.
        original = _interface().get_interface

        @functools.wraps(original)
        def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
            found: Callable[..., Any] = original(self, attn_implementation, default)
            if attn_implementation != "eager":
                return found
            if torch.compiler.is_compiling():
                return functools.partial(_traced, found, "eager") if hubs.LISTENING else found
            return functools.partial(_heard, found, "eager") if hubs.ACTIVE else found

        _wrapped[key] = original, get_interface
        _interface().get_interface = get_interface
        return
    mapped: Callable[..., Any] = _interface()._global_mapping[key]

    @functools.wraps(mapped)
    def attention(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return _traced(mapped, key, *args, **kwargs) if hubs.LISTENING else mapped(*args, **kwargs)
        return _heard(mapped, key, *args, **kwargs) if hubs.ACTIVE else mapped(*args, **kwargs)

    _wrapped[key] = mapped, attention
    _interface().register(key, attention)


def _unwrap(key: str) -> None:
    """Put back what was found, unless the program has put something of its own there since: that is kept."""
    interface = _interface()
    original, ours = _wrapped.pop(key)
    if key == "eager":
        if interface.get_interface is ours:
            interface.get_interface = original
    elif interface._global_mapping.get(key) is ours:
        interface.register(key, original)


def _heard(original: Callable[..., Any], kind: str, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Report to the hubs whose model the module belongs to, then call the user's function with the user's arguments."""
    with contextlib.ExitStack() as deaf:
        for hub in hubs.ACTIVE:
            name = hub.names.get(id(module))
            if name is not None:
                hub.hear("attention", functools.partial(_report, hub, name, module, kind, args, kwargs))
                # The function may call scaled_dot_product_attention, which is the same attention.
                deaf.enter_context(hub.deaf())
        return original(module, *args, **kwargs)


def _traced(original: Callable[..., Any], kind: str, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Put the operator that reports this call into the graph that is being made."""
    # Not dict | dict: the compiler of torch 2.6 breaks the graph at it.
    given = {**dict(zip(("query", "key", "value", "attention_mask"), args, strict=False)), **kwargs}
    mask, sinks = given.get("attention_mask"), given.get("s_aux")
    said = given.get("is_causal")
    readable = mask is None or isinstance(mask, Tensor)
    compiled.hear(
        compiled.TOLD,
        compiled.traced_place(),
        kind if readable and given.get("cache") is None else "unread",
        given["query"].detach(),
        given["key"].detach(),
        mask if readable else None,
        given.get("position_bias"),
        getattr(module, "sinks", None) if sinks is None else sinks,
        given.get("position_ids"),
        given.get("cu_seq_lens_q"),
        given.get("scaling"),
        given.get("softcap"),
        given.get("sliding_window"),
        getattr(module, "is_causal", True) if said is None else said,
    )
    return original(module, *args, **kwargs)


def _from_graph(
    kind: str, hub: Hub, name: str, query: Tensor, key: Tensor, mask: Tensor | None, given: dict[str, Any]
) -> None:
    if kind == "unread":
        return hub.refuse(name, "inside compiled code, paged attention and masks that are no tensors are not read")
    _report(hub, name, None, kind, (query, key, None, mask), given)


for _kind in (*_READ, "eager", "unread"):
    compiled.REPORTS[_kind] = functools.partial(_from_graph, _kind)


def _report(
    hub: Hub, name: str, module: nn.Module | None, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    given = dict(zip(("query", "key", "value", "attention_mask"), args, strict=False)) | kwargs
    query, key, mask = given["query"], given["key"], given.get("attention_mask")
    if given.get("cache") is not None or given.get("block_table") is not None:
        return hub.refuse(name, "paged attention is not read")
    sinks = next((x for x in (given.get("s_aux"), getattr(module, "sinks", None)) if x is not None), None)
    if sinks is not None and (not isinstance(sinks, Tensor) or sinks.shape != (query.shape[1],)):
        return hub.refuse(name, "sinks that are not one number for each head are not read")
    scale = given.get("scaling")
    call = AttentionCall(name, query, key, query.shape[-1] ** -0.5 if scale is None else float(scale), sinks=sinks)
    call.bias = given.get("position_bias")
    call.route = f"transformers {kind!r}" + (" in compiled code" if module is None else "")
    if given.get("softcap") is not None:
        call.score = masks.softcap(given["softcap"])
    said = given.get("is_causal")
    causal = bool(getattr(module, "is_causal", True) if said is None else said)
    if kind.startswith("flash"):
        why = _flash(call, given, mask, causal)
    elif kind == "flex_attention" and (rule := masks.block_mask_rule(mask)) is not None:
        why, call.mask = "", masks.of_flex(rule, query.shape[1])
    else:
        why = ""
        if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 4):
            why = "a mask that is no tensor of four dimensions is not read"
        elif mask is not None and kind != "sdpa" and not mask.is_floating_point():
            why = "a mask of truth values that is added to the logits is not read"
        else:
            call.mask = mask if mask is None else mask[..., : key.shape[2]]
            # As in the library: no mask means causal when the module says so, except for a single query.
            call.causal = kind == "sdpa" and mask is None and query.shape[2] > 1 and causal
    if why:
        return hub.refuse(name, why)
    hub.attention(call)


def _flash(call: AttentionCall, given: dict[str, Any], mask: Any, causal: bool) -> str:
    """The mask that FlashAttention makes for itself from padding, a window and the ends of packed sequences."""
    queries, keys = call.query.shape[2], call.key.shape[2]
    window = given.get("sliding_window")
    position_ids, ends = given.get("position_ids"), given.get("cu_seq_lens_q")
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 2):
        return "padding that is no tensor of two dimensions is not read"
    if causal and queries not in (1, keys):
        return "causal attention of fewer queries than keys is not read"  # releases align it differently
    packed: Tensor | None = None
    if mask is None and call.query.shape[0] == 1 and queries == keys:
        if ends is not None:
            packed = masks.sequence_of_ends(ends, queries)
        elif position_ids is not None and position_ids.shape[-1] == queries:
            packed = masks.sequence_of_positions(position_ids.reshape(-1))
    elif mask is None and ends is not None:
        return "packed sequences whose queries and keys differ in number are not read"
    if mask is None and packed is None and (window is None or window >= keys):
        call.causal = causal and queries > 1
        return ""
    call.mask = masks.of_flash(
        None if mask is None else mask[:, -keys:].bool(),
        packed,
        None if window is None or window >= keys else window,
        causal and queries > 1,
    )
    return ""
