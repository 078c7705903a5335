"""Looking at a model from beside its training: a fixed batch goes through it, and nothing remembers that it did."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode inside; its modes, buffers and the random streams are as they were afterwards.

    Buffers are copied, and written back in place; one that was replaced by another tensor comes back itself. Hooks of
    the program's own on modules are called like in any other forward pass.
    """
    modes = [(module, module.training) for module in model.modules()]
    held = [(module, dict(module._buffers)) for module in model.modules() if module._buffers]
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global stream is the user's
    with torch.random.fork_rng(sorted(i for i in devices if i is not None)):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002
            for module, mode in modes:
                module.training = mode
            for module, before in held:
                if any(module._buffers.get(name) is not buffer for name, buffer in before.items()):
                    module._buffers.update(before)
            with torch.no_grad():
                for buffer, version, copy in buffers:
                    if buffer._version != version:  # in evaluation mode few are written
                        buffer.copy_(copy)


Forward = Callable[[nn.Module, Any], Tensor]


def plain_forward(model: nn.Module, inputs: Any) -> Tensor:
    """What a model gives for a tensor, a tuple of arguments or a mapping of named ones; of a record, its logits."""
    output = call(model, inputs)
    found = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(found, Tensor):
        raise TypeError(f"the model gave a {type(output).__name__}; say with forward= how logits come of it")
    return found


def call(model: nn.Module, inputs: Any) -> Any:
    """What a model gives, whatever that is, for a tensor, a tuple of arguments or a mapping of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def to_device(inputs: Any, device: torch.device) -> Any:
    """A tensor, or tensors in tuples, lists and mappings, on a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    if isinstance(inputs, Mapping):
        return {key: to_device(value, device) for key, value in inputs.items()}
    return type(inputs)(to_device(value, device) for value in inputs) if isinstance(inputs, tuple | list) else inputs
