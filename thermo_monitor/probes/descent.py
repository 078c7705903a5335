"""What an optimizer does with a gradient, as far as the temperatures ask."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.optim import SGD, Optimizer


class Descent(NamedTuple):
    """Settings of one group of parameters.

    Attributes:
        lr: learning rate; 0 where it lives on a device and is not known here.
        momentum: of heavy ball.
        weight_decay: added to the gradient.
        plain: SGD or heavy ball, without dampening and Nesterov.
    """

    lr: float
    momentum: float
    weight_decay: float
    plain: bool


def descent_of(optimizer: Optimizer | None) -> dict[int, Descent]:
    """Settings by ``id`` of the parameter."""
    found: dict[int, Descent] = {}
    for group in optimizer.param_groups if optimizer is not None else ():
        lr, plain = group.get("lr"), isinstance(optimizer, SGD)
        if isinstance(lr, Tensor) or lr is None:
            lr, plain = 0.0, False
        plain = plain and not (group.get("dampening") or group.get("nesterov") or group.get("maximize"))
        settings = Descent(lr, group.get("momentum", 0.0), group.get("weight_decay", 0.0), plain and lr > 0)
        for parameter in group["params"]:
            found[id(parameter)] = settings
    return found


def velocity_of(optimizer: Optimizer | None, parameter: Tensor) -> Tensor | None:
    """PyTorch's momentum buffer, which is -v / eta; None before the first step."""
    state = {} if optimizer is None else optimizer.state.get(parameter, {})
    buffer = state.get("momentum_buffer")
    return buffer if isinstance(buffer, Tensor) else None
