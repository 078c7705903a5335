"""Hearing what a loss function returned, whose gradient is the scale of all gradients of a backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from thermo_monitor.probes.hub import Hub
from thermo_monitor.probes.routes.caller import called_by_stranger

# Where ``reduction`` stands among the arguments that are not named.
REDUCTION: Mapping[Callable[..., Any], int] = {
    F.cross_entropy: 6,
    F.nll_loss: 6,
    F.mse_loss: 4,
    F.binary_cross_entropy_with_logits: 5,
}


def reduction_of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """``mean``, ``sum`` or ``none``, as the loss function was called.

    Example:
        >>> reduction_of(F.mse_loss, (0, 0), {"reduction": "sum"})
        'sum'
    """
    at = REDUCTION[func]
    said = kwargs.get("reduction", args[at] if len(args) > at else "mean")
    return str(said)


def rows_of(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | int:
    """Number of rows that a loss is the mean or the sum over: labels that are not ignored, else the batch."""
    target: Tensor = args[1] if len(args) > 1 else kwargs["target"]
    if func not in (F.cross_entropy, F.nll_loss) or target.is_floating_point():
        return target.shape[0] if target.dim() else 1
    ignored = kwargs.get("ignore_index", args[4] if len(args) > 4 else -100)
    rows: Tensor = (target != ignored).sum()
    return rows


def report(hub: Hub, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
    """Tell a hub what a loss function returned, unless it belongs to another model."""
    if isinstance(result, Tensor) and not called_by_stranger(hub.names):
        hub.loss_value(result, reduction_of(func, args, kwargs), rows_of(func, args, kwargs))
