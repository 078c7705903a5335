"""Which float types the formulas work in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

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


_AS_IT_IS: AbstractContextManager[None] = nullcontext()


def precise(device: torch.device) -> AbstractContextManager[object]:
    """A context in which products are not rounded by an autocast region around it.

    Where there is none, which is asked first, nothing is entered: entering costs as much as a small product does.

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16), precise(torch.device("cpu")):
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.float32
    """
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else _AS_IT_IS


def precise_matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in the type of the inputs, even inside an autocast region, which would round them to half precision.

    Example:
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     precise_matmul(torch.ones(1, 1), torch.full((1, 1), 1.001)).dtype
        torch.float32
    """
    with precise(a.device):
        return a @ b


# Elements whose squares a processor adds up in single precision before the sums are put together. A longer sum loses
# the digits of what is added to it: of 2**24 equal elements the norm was wrong by a hundredth.
_RUN = 2**16


def run_norms(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[int]]:
    """L2 norms of the runs that tensors are cut in, each on its device, without a host read.

    Float16 and bfloat16 are added up in float32. Only on a processor are long tensors cut; devices add in a tree of
    their own, which loses nothing. The norm of some of these norms, taken in ``accumulator``, is that of their tensors.

    Args:
        tensors: dense.

    Returns:
        The norms, and how many belong to each tensor.

    Example:
        >>> x = torch.full((2**20,), 0.1)
        >>> norms, counts = run_norms([x, torch.ones(4)])
        >>> counts, norms[-1].item()
        ([16, 1], 2.0)
        >>> abs(torch.stack(norms[:16]).double().norm().item() / x.double().norm().item() - 1) < 1e-5
        True
    """
    runs: list[Tensor] = []
    counts = []
    for x in tensors:
        long = x.numel() > _RUN and x.device.type == "cpu" and x.dtype != torch.float64
        pieces = torch.split(x.reshape(-1), _RUN) if long else (x,)
        runs += pieces
        counts.append(len(pieces))
    dtypes = {x.dtype for x in tensors}
    widest = torch.float64 if torch.float64 in dtypes else torch.float32
    # A type is only asked for where it is another one: the conversion takes a quarter of the time of a small norm.
    return list(torch._foreach_norm(runs, 2.0, None if dtypes == {widest} else widest)), counts


def squared_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Squared l2 norm of each tensor, on its device, in ``accumulator``, without a host read.

    Example:
        >>> [round(s.item(), 5) for s in squared_norms([torch.ones(3), torch.full((2,), 2.0)])]
        [3.0, 8.0]
    """
    if not tensors:
        return []
    norms, counts = run_norms(tensors)
    parts = torch.split(torch.stack(norms), counts) if len({n.device for n in norms}) == 1 else None
    if parts is None:
        ends = [sum(counts[: k + 1]) for k in range(len(counts))]
        parts = tuple(torch.stack(norms[end - count : end]) for end, count in zip(ends, counts, strict=True))
    return [part.to(accumulator(part.device)).square().sum() for part in parts]
