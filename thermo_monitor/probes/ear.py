"""Everything that is installed in and around a model so that it can be heard, and its removal."""

from __future__ import annotations

import sys
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thermo_monitor.guard import Guard, tell
from thermo_monitor.probes.hooks import Hook
from thermo_monitor.probes.hub import Hub, module_names
from thermo_monitor.probes.routes import transformers
from thermo_monitor.probes.routes.functions import ListeningMode


class Ear:
    """Installs the routes of one model once, opens them for the forward passes of measured steps, removes them at close.

    Args:
        model: the monitored model.
        guard: told of failures.
    """

    def __init__(self, model: nn.Module, guard: Guard) -> None:
        self._model = model
        self.hub = Hub(module_names(model), guard.failed, self._refuse)
        self._mode: ListeningMode | None = None
        self._handles: list[RemovableHandle] = []
        self._keys: list[str] = []
        self.refused: dict[str, str] = {}
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def install(self) -> None:
        """Once, before the first step."""
        self._keys = transformers.install(self._model)
        for module in _entrances(self._model):
            self._handles.append(module.register_forward_pre_hook(Hook(self._entered), with_kwargs=True))
        # A monitor that is dropped without close() must not leave the attention of the process wrapped.
        self._finalizer = weakref.finalize(self, transformers.uninstall, self._keys)

    def _entered(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or not self.hub.listening:
            return
        self.hub.new_pass()
        mask = kwargs.get("attention_mask")
        self.hub.padding = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None

    def open(self) -> None:
        """A forward pass of a measured step comes."""
        self.hub.new_pass()
        self.hub.open()
        if self._mode is None:
            self._mode = ListeningMode(self.hub)
            self._mode.enter()

    def shut(self) -> None:
        """The forward passes are over; harmless when shut."""
        self.hub.shut()
        if self._mode is not None:
            mode, self._mode = self._mode, None
            mode.leave()

    def close(self) -> None:
        """Remove everything; harmless when called twice."""
        self.shut()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._finalizer is not None:
            self._finalizer()

    def _refuse(self, name: str, why: str) -> None:
        if name not in self.refused:
            self.refused[name] = why
            if sum(w == why for w in self.refused.values()) == 1:  # one line, not one for each layer
                tell(f"the attention of {name or 'the model'} is absent: {why}")

    def explain(self) -> str:
        """Why attention may be missing, as far as the model tells."""
        reasons = sorted(set(self.refused.values()))
        reasons += [f"{key} is not read" for key in transformers.unread(self._model)]
        if _compiled(self._model):
            reasons.append("compiled code is not read")
        return f"({'; '.join(reasons)})" if reasons else ""

    def describe(self) -> list[str]:
        """How the model is heard."""
        routes = [f"transformers attention under its own key {key!r}" for key in self._keys]
        routes += ["scaled_dot_product_attention, nn.MultiheadAttention and cross_entropy, on measured steps"]
        routes += ["record_attention, record_output, record_representation"]
        return [f"heard through: {route}" for route in routes] + [
            f"absent: {name or 'the model'}: {why}" for name, why in self.refused.items()
        ]


def _entrances(model: nn.Module) -> list[nn.Module]:
    """The model, and the outermost transformers models inside it, which are called with the padding mask."""
    found = [model]
    # Not the package itself, which others import without using it: its attributes would load all of it.
    if "transformers.modeling_utils" not in sys.modules:
        return found
    pretrained = sys.modules["transformers.modeling_utils"].PreTrainedModel
    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, pretrained) and id(module) not in inside:
            inside.update(id(m) for m in module.modules())
            if module is not model:
                found.append(module)
    return found


def _compiled(model: nn.Module) -> bool:
    return any(
        m._compiled_call_impl is not None or type(m).__name__ == "OptimizedModule" for m in model.modules()
    )
