"""A fixed batch that goes through the model beside its training, for readings that compare the same inputs over time.

An eager forward pass without gradient, after the optimizer's step of every measured step. What is overheard in it goes
to a hub of its own, so that probes of the training never hear it. Modes, buffers, random streams and autocast are as
they were afterwards. Every process of a distributed run takes part, since its parts of the model may be needed: the
steps are those of the schedule, the same for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thermo_monitor.probes.ear import Ear
from thermo_monitor.probes.fixed import call, to_device, undisturbed
from thermo_monitor.probes.hub import Hub
from thermo_monitor.probes.routes.functions import ListeningMode


def check_probe_batch(batch: Any) -> None:
    """Raise a ``ValueError`` for what no model is called with."""
    if isinstance(batch, Tensor) or callable(batch):
        return
    if isinstance(batch, Mapping | tuple | list) and len(batch):
        return
    raise ValueError(
        f"probe_batch={batch!r}: give what the model is called with: a tensor, a tuple of arguments, a mapping of "
        "named ones, or a function of the model"
    )


class ProbeBatch:
    """The batch, the model that it goes through, and the hub where it is heard.

    Args:
        model: the monitored model.
        batch: a tensor, a tuple of arguments, a mapping of named ones, or a function that calls the model it is given.
        ear: of the training, whose routes into transformers serve this pass as well.

    Attributes:
        hub: where probes subscribe.
    """

    def __init__(self, model: nn.Module, batch: Any, ear: Ear) -> None:
        check_probe_batch(batch)
        parallel = nn.parallel.DistributedDataParallel, nn.DataParallel
        inner: Any = model.module if isinstance(model, parallel) else model  # the wrapper would reduce or scatter
        self._model: nn.Module = inner
        self._forward: Callable[[nn.Module], Any] | None = batch if _is_function(batch) else None
        self._device = _device(self._model)
        self._batch = None if self._forward is not None else to_device(batch, self._device)
        self.hub: Hub = ear.second_hub()
        self._mode = ListeningMode(self.hub)

    @property
    def used(self) -> bool:
        """Whether a probe listens."""
        return self.hub.on_attention != [] or self.hub.on_output != []

    def describe(self) -> list[str]:
        """Which attentions were heard in the last pass."""
        layers = [f"  {name or 'the model'}: {route}" for name, route in self.hub.heard.items()]
        return [f"fixed batch, beside the training: {'' if layers else 'nothing heard yet'}".rstrip(), *layers]

    def run(self) -> None:
        """One pass. Modules that the program compiled run uncompiled, and are not compiled again for it."""
        device = _device(self._model)
        if device != self._device:  # the model was moved after the monitor was made
            self._device, self._batch = device, to_device(self._batch, device)
        with contextlib.ExitStack() as around:
            around.enter_context(undisturbed(self._model))
            around.enter_context(torch.no_grad())
            for kind in {device.type, "cpu"}:
                around.enter_context(torch.autocast(kind, enabled=False))
            around.enter_context(torch.compiler.set_stance("force_eager"))
            self.hub.new_pass()
            self.hub.open()
            self._mode.enter()
            try:
                if self._forward is not None:
                    self._forward(self._model)
                else:
                    call(self._model, self._batch)
            finally:
                self._mode.leave()
                self.hub.shut()


def _is_function(batch: Any) -> bool:
    return callable(batch) and not isinstance(batch, Tensor | Mapping)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
