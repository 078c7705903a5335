"""Everything that is installed in and around a model so that it can be heard, and its removal."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from thermo_monitor.guard import Guard, tell
from thermo_monitor.probes.hooks import Hook
from thermo_monitor.probes.hub import Hub, module_names, recomputing
from thermo_monitor.probes.routes import transformers
from thermo_monitor.probes.routes.caller import called_compiled
from thermo_monitor.probes.routes.functions import ListeningMode


class Ear:
    """Installs the routes of one model, opens them for the forward passes of measured steps, removes them at close.

    Args:
        model: the monitored model.
        guard: told of failures.
    """

    def __init__(self, model: nn.Module, guard: Guard) -> None:
        self._model = model
        self._guard = guard
        self._refusals = _Refusals()
        self.hub = Hub(module_names(model), guard.failed, self._refusals.note)
        self._mode = ListeningMode(self.hub)
        self._keys: list[str] = []
        self._wrapped = False  # the model is called through a compiled wrapper
        self._finalizer: weakref.finalize[Any, Any] | None = None

    @property
    def refused(self) -> dict[str, str]:
        """What is absent, and why."""
        return self._refusals.why

    def second_hub(self) -> Hub:
        """A hub for passes beside the training, which the probes of the training do not hear."""
        return Hub(self.hub.names, self._guard.failed, self._refusals.note)

    def install(self) -> None:
        """Once, before the first step."""
        self._keys = transformers.install(self._model)
        hook = Hook(self._entered)
        handles = [m.register_forward_pre_hook(hook) for m in _entrances(self._model)]
        # A monitor that is dropped without close() must not leave anything behind. Nothing here may refer to it.
        self._finalizer = weakref.finalize(self, _remove, self.hub, self._mode, self._keys, handles)

    def _entered(self, module: nn.Module, args: Any) -> None:
        """A forward pass begins. Where the model itself is called, the models inside it belong to its pass."""
        if not self.hub.listening or recomputing():
            return
        if module is self._model:
            if not self.hub.entrances:
                self._wrapped = called_compiled()
            self.hub.entrances += 1
        elif self.hub.entrances:
            return
        self.hub.new_pass()

    def open(self) -> None:
        """A forward pass of a measured step comes."""
        self.hub.new_pass()
        self.hub.open()
        self._mode.enter()

    def shut(self) -> None:
        """The forward passes are over; harmless when shut."""
        self.hub.shut()
        self._mode.leave()

    def finish(self) -> None:
        """The backward passes are over as well."""
        self.shut()
        self.hub.expecting = False

    def close(self) -> None:
        """Remove everything; harmless when called twice."""
        self.finish()
        if self._finalizer is not None:
            self._finalizer()

    def explain(self) -> str:
        """Why attention may be missing, as far as the model tells."""
        reasons = sorted(set(self.refused.values()))
        reasons += [f"{key} is not read" for key in transformers.unread(self._model)]
        if self._wrapped or _compiled(self._model):
            reasons.append("blocks inside compiled code, and checkpointed calls of functions in it, are not heard")
        elif not self.hub.entrances:
            reasons.append("the model was not seen to be called; if it is compiled: blocks inside are not heard")
        return f"({'; '.join(reasons)})" if reasons else ""

    def describe(self, ways: Mapping[str, Mapping[str, str]] | None = None) -> list[str]:
        """How the model is heard.

        Args:
            ways: how each probe read each layer last.
        """
        routes = [f"transformers attention under its own key {key!r}" for key in self._keys]
        routes += ["scaled_dot_product_attention, nn.MultiheadAttention and cross_entropy, on measured steps"]
        routes += ["record_attention, record_output, record_representation"]
        if self._wrapped or _compiled(self._model):
            routes += ["an operator in a second compiled graph, for scaled_dot_product_attention and the above"]
        lines = [f"heard through: {route}" for route in routes]
        lines += [] if self.hub.heard else ["no attention was heard yet"]
        for name, route in self.hub.heard.items():
            read = [f"{probe}: {way[name]}" for probe, way in (ways or {}).items() if name in way]
            lines.append(f"  attention of {name or 'the model'}: {'; '.join([route, *read])}")
        for probe, way in (ways or {}).items():
            lines += [f"  {probe} of {name}: {how}" for name, how in way.items() if name not in self.hub.heard]
        lines += [f"absent: {what}: {why}" for what, why in self.refused.items()]
        return lines + [f"absent: attention under transformers {key!r}" for key in transformers.unread(self._model)]


class _Refusals:
    """What could not be read, told once for each reason."""

    def __init__(self) -> None:
        self.why: dict[str, str] = {}

    def note(self, what: str, name: str, why: str) -> None:
        key = f"{what} of {name or 'the model'}"
        if key not in self.why:
            self.why[key] = why
            if sum(w == why for w in self.why.values()) == 1:  # one line, not one for each layer
                tell(f"the {key} is absent: {why}")


def _remove(hub: Hub, mode: ListeningMode, keys: list[str], handles: list[RemovableHandle]) -> None:
    hub.shut()
    mode.leave()
    transformers.uninstall(keys)
    for handle in handles:
        handle.remove()


def _entrances(model: nn.Module) -> list[nn.Module]:
    """The model, and the outermost transformers models inside it: a container is perhaps never called itself."""
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
    return any(m._compiled_call_impl is not None or type(m).__name__ == "OptimizedModule" for m in model.modules())
