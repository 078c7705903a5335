"""The factor that a gradient scaler puts on loss and gradients, found without asking the device."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def loss_scale(scaler: Any) -> Tensor | None:
    """What a ``GradScaler`` multiplies the loss with, on its device; None where it multiplies with nothing.

    The public ``get_scale`` brings the number to the host, and training waits for it.
    """
    if scaler is None or not getattr(scaler, "_enabled", True):
        return None
    scale = getattr(scaler, "_scale", None)  # None until the first loss was scaled
    return scale if isinstance(scale, Tensor) else None


def pending_scale(scaler: Any, optimizer: Any) -> Tensor | None:
    """The factor that the gradients of an optimizer still carry: none after ``scaler.unscale_(optimizer)``.

    Example:
        >>> import torch
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> optimizer, scaler = torch.optim.SGD([w], lr=0.1), torch.amp.GradScaler("cpu", init_scale=8.0)
        >>> scaler.scale(w.sum()).backward()
        >>> pending_scale(scaler, optimizer).item()
        8.0
        >>> scaler.unscale_(optimizer)
        >>> pending_scale(scaler, optimizer) is None
        True
    """
    scale = loss_scale(scaler)
    if scale is None:
        return None
    states = getattr(scaler, "_per_optimizer_states", {})
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps the optimizer
    stage = states[id(inner)]["stage"] if id(inner) in states else None
    return None if getattr(stage, "name", "READY") != "READY" else scale
