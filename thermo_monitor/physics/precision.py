"""Which float types the formulas work in."""

from __future__ import annotations

import torch
from torch import Tensor


def working(x: Tensor) -> Tensor:
    """The tensor in the type in which moments are taken: float64 stays, everything else becomes float32.

    A half-precision sum of squares loses the digits that a variance is made of, and float16 overflows at 65504.

    Example:
        >>> working(torch.zeros(2, dtype=torch.bfloat16)).dtype, working(torch.zeros(2, dtype=torch.float64)).dtype
        (torch.float32, torch.float64)
    """
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def accumulator(device: torch.device) -> torch.dtype:
    """The type in which rows are added up: float64, or float32 where the device has no float64 (mps).

    Example:
        >>> accumulator(torch.device("cpu"))
        torch.float64
    """
    return torch.float32 if device.type == "mps" else torch.float64


def precise_matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in the type of the inputs, even inside an autocast region, which would round them to half precision.

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     precise_matmul(torch.ones(1, 1), torch.full((1, 1), 1.001)).dtype
        torch.float32
    """
    with torch.autocast(a.device.type, enabled=False):
        return a @ b
