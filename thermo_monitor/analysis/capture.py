"""What passes through a model while it reads a batch: representations of every block, attention of the last token.

The monitor's own ears are used, so whatever a training can be watched for can be looked at here, under any attention
that the library hears; whole attention matrices are never made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from thermo_monitor.guard import Guard
from thermo_monitor.probes.blocks import blocks, last_block
from thermo_monitor.probes.calls import AttentionCall, RepresentationCall
from thermo_monitor.probes.ear import Ear
from thermo_monitor.probes.padding import batch_first

INPUT = "input"  # what enters the first block


@dataclass(slots=True)
class Heard:
    """One pass over ids [B, T].

    Attributes:
        hidden: ``input`` and the name of each block, in their order -> [B, T, d], on the host.
        attention: attention module -> [B, H, T] weights of the last token, in the order of the calls, on the host.
        output: what the model returned.
    """

    hidden: dict[str, Tensor] = field(default_factory=dict)
    attention: dict[str, Tensor] = field(default_factory=dict)
    output: Any = None


@contextmanager
def hearing(model: nn.Module) -> Iterator[Callable[[Tensor], Heard]]:
    """A function ids [B, T] -> :class:`Heard`, inside the ``with`` only; texts have one length and no padding.

    The model is read in evaluation mode and without gradients, and left in the mode that it was in.

    Raises:
        ValueError: the model has no list of blocks.

    Example:
        >>> from thermo_monitor.demo.modular import Transformer
        >>> with hearing(Transformer(p=5, width=8, heads=2, layers=2)) as hear:
        ...     heard = hear(torch.zeros(3, 3, dtype=torch.int64))
        >>> {name: tuple(x.shape) for name, x in heard.hidden.items()}
        {'input': (3, 3, 8), 'blocks.0': (3, 3, 8), 'blocks.1': (3, 3, 8)}
        >>> {name: tuple(x.shape) for name, x in heard.attention.items()}
        {'blocks.0': (3, 2, 3), 'blocks.1': (3, 2, 3)}
    """
    last = last_block(model)
    if last is None:
        raise ValueError(
            f"{type(model).__name__} has no list of blocks (nn.ModuleList) whose representations could be read"
        )
    names = blocks(model, last)
    ear = Ear(model, Guard(strict=True))
    heard = Heard()

    def enters(module: nn.Module, args: Any, kwargs: Any) -> None:
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()), None)
        if given is not None and INPUT not in heard.hidden:
            heard.hidden[INPUT] = _kept(given, module)

    def leaves(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            given = output if isinstance(output, Tensor) else next(iter(output))
            heard.hidden[name] = _kept(given, module)

        return hook

    def attends(call: AttentionCall) -> None:
        last_row = torch.tensor([call.query.shape[2] - 1], device=call.query.device)
        z, allowed = call.logits(last_row)
        if allowed is not None:
            z = torch.where(allowed, z, -torch.inf)
        weights = z.softmax(-1).squeeze(2)
        sinks = 0 if call.sinks is None else 1
        heard.attention[call.name] = weights[..., : weights.shape[-1] - sinks].float().cpu()

    def tells(call: RepresentationCall) -> None:
        if call.told:
            heard.hidden[call.name] = call.hidden.detach().float().cpu()

    def hear(ids: Tensor) -> Heard:
        heard.hidden, heard.attention = {}, {}
        first = next(model.parameters(), None)
        ear.open()
        try:
            output = model(ids if first is None else ids.to(first.device))
        finally:
            ear.shut()
        return Heard(heard.hidden, heard.attention, output)

    handles = [model.get_submodule(names[0]).register_forward_pre_hook(enters, with_kwargs=True)]
    handles += [model.get_submodule(name).register_forward_hook(leaves(name)) for name in names]
    ear.hub.on_attention.append(attends)
    ear.hub.on_representation.append(tells)
    training = [part for part in model.modules() if part.training]
    for part in training:
        part.training = False
    ear.install()
    try:
        with torch.no_grad():
            yield hear
    finally:
        ear.close()
        for handle in handles:
            handle.remove()
        for part in training:
            part.training = True


def _kept(hidden: Tensor, block: nn.Module) -> Tensor:
    """[B, T, d] on the host, in float32 or float64."""
    hidden = hidden.detach()
    if hidden.dim() == 3 and not batch_first(block):
        hidden = hidden.transpose(0, 1)
    return hidden.cpu() if hidden.dtype == torch.float64 else hidden.float().cpu()
