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

_READ = ("sdpa",)
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
            if torch.compiler.is_compiling() or attn_implementation != "eager" or not hubs.ACTIVE:
                return found
            return functools.partial(_heard, found, False)

        _wrapped[key] = original, get_interface
        _interface().get_interface = get_interface
        return
    mapped: Callable[..., Any] = _interface()._global_mapping[key]

    @functools.wraps(mapped)
    def attention(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or not hubs.ACTIVE:
            return mapped(*args, **kwargs)
        return _heard(mapped, True, *args, **kwargs)

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


def _heard(original: Callable[..., Any], sdpa: bool, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Report to the hubs whose model the module belongs to, then call the user's function with the user's arguments."""
    with contextlib.ExitStack() as deaf:
        for hub in hubs.ACTIVE:
            name = hub.names.get(id(module))
            if name is not None:
                hub.hear("attention", functools.partial(_report, hub, name, module, sdpa, args, kwargs))
                # The function may call scaled_dot_product_attention, which is the same attention.
                deaf.enter_context(hub.deaf())
        return original(module, *args, **kwargs)


def _report(hub: Hub, name: str, module: nn.Module, sdpa: bool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = dict(zip(("query", "key", "value", "attention_mask"), args, strict=False)) | kwargs
    query, key, mask = given["query"], given["key"], given.get("attention_mask")
    for feature in ("softcap", "s_aux", "sinks"):
        if given.get(feature) is not None:
            return hub.refuse(name, f"attention with {feature} is not read")
    if getattr(module, "sinks", None) is not None:  # some eager functions take them from the module
        return hub.refuse(name, "attention with sinks is not read")
    if given.get("cache") is not None:
        return hub.refuse(name, "paged attention is not read")
    if mask is not None and (not isinstance(mask, Tensor) or mask.dim() != 4):
        return hub.refuse(name, "a mask that is no tensor of four dimensions is not read")
    if mask is not None and not sdpa and not mask.is_floating_point():
        return hub.refuse(name, "a mask of truth values that is added to the logits is not read")
    causal = False
    if sdpa and mask is None:
        # As in the library: no mask means causal when the module says so, except for a single query.
        said = given.get("is_causal")
        causal = query.shape[2] > 1 and bool(getattr(module, "is_causal", True) if said is None else said)
    scale = given.get("scaling")
    keys = key.shape[2]
    hub.attention(
        AttentionCall(
            name,
            query,
            key,
            query.shape[-1] ** -0.5 if scale is None else float(scale),
            mask if mask is None else mask[..., :keys],
            given.get("position_bias"),
            causal,
        )
    )
