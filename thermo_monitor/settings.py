"""What an optimizer is set to, as numbers that are on the host already."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

_NAMES = {"lr": "learning rate", "weight_decay": "weight decay", "momentum": "momentum"}
_WRAPPERS = {"AcceleratedOptimizer", "_FabricOptimizer", "LightningOptimizer"}
_GROUPS = 8  # parameter groups that are looked at: more of them follow the same schedule


def settings(optimizer: Optimizer | None) -> dict[str, float]:
    """Learning rate, weight decay and momentum, of each parameter group where they differ.

    A learning rate that lives on a device is left out: reading it would wait for the device.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.zeros(1))
        >>> settings(torch.optim.SGD([w], lr=0.1, momentum=0.9))
        {'learning rate': 0.1, 'weight decay': 0.0, 'momentum': 0.9}
    """
    if optimizer is None:
        return {}
    found: dict[str, float] = {}
    groups = optimizer.param_groups[:_GROUPS]
    for key, name in _NAMES.items():
        values = [_number(group.get(key)) for group in groups]
        first = values[0] if values else None
        if first is not None and all(value == first for value in values):
            found[name] = first
            continue
        for index, value in enumerate(values):
            if value is not None:
                found[f"{name} of group {index}"] = value
    return found


def unwrapped(optimizer: Optimizer | None) -> Optimizer | None:
    """The optimizer that steps, inside the one that accelerate, Fabric or Lightning makes of it.

    Example:
        >>> import torch
        >>> sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        >>> unwrapped(sgd) is sgd
        True
    """
    # By name: an attribute ``optimizer`` may be anything in a class that is not known.
    names = {c.__name__ for c in type(optimizer).__mro__}
    inner = getattr(optimizer, "optimizer", None) if names & _WRAPPERS else None
    return inner if isinstance(inner, Optimizer) else optimizer


def _number(value: object) -> float | None:
    if isinstance(value, Tensor):
        return float(value) if value.device.type == "cpu" and value.numel() == 1 else None
    return float(value) if isinstance(value, int | float) else None
