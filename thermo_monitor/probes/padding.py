"""Which tokens of a batch are padding: heard from the masks that the modules around a block are called with."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thermo_monitor.physics.attention import MASKED
from thermo_monitor.probes.hooks import Hook

# Arguments that tell it, and whether true means a real token (transformers) or a padded one (torch.nn).
_ARGUMENTS = {"attention_mask": True, "src_key_padding_mask": False, "tgt_key_padding_mask": False}


class Padding:
    """Listens at the modules that contain a block, from the model down, to their padding masks.

    The innermost one decides: the decoder of an encoder-decoder model has a mask of its own, or none. A mask that is no
    longer of the form [B, T] (made ready for the attention, say) says nothing.

    Attributes:
        real: [B, T], true where the token is real, of the pass under way; None where all are.
        handles: the hooks.
    """

    def __init__(self, model: nn.Module, block: str) -> None:
        self.real: Tensor | None = None
        self.handles: list[RemovableHandle] = []
        self._where: dict[int, tuple[str, int]] = {}
        hook = Hook(self._entered)
        for module in _path(model, block):
            found = _argument(module)
            if found is not None:
                self._where[id(module)] = found
                self.handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    def _entered(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        found = self._where.get(id(module))
        if found is None:
            return
        name, at = found
        mask = kwargs.get(name, args[at] if at < len(args) else None)
        if mask is None:
            self.real = None
        elif isinstance(mask, Tensor) and mask.dim() == 2:
            if _ARGUMENTS[name]:
                self.real = mask
            else:
                self.real = ~(mask <= MASKED) if mask.is_floating_point() else ~mask.bool()


def batch_first(block: nn.Module) -> bool:
    """Whether the representations of a block are [B, T, d]; the layers of ``torch.nn`` say when they are [T, B, d]."""
    return getattr(getattr(block, "self_attn", block), "batch_first", True) is not False


def _path(model: nn.Module, block: str) -> Iterator[nn.Module]:
    """The modules that contain a block, outermost first, and the block itself."""
    yield model
    parts = block.split(".")
    for depth in range(1, len(parts) + 1):
        yield model.get_submodule(".".join(parts[:depth]))


def _argument(module: nn.Module) -> tuple[str, int] | None:
    """Name and position of the padding mask among the arguments of a module's forward."""
    try:
        names = list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        return None
    return next(((name, names.index(name)) for name in _ARGUMENTS if name in names), None)
