"""Parameters that are spread over processes: what this rank holds of a tensor, and how many others hold the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn


def placements(tensor: Tensor) -> tuple[Any, ...]:
    """How a tensor is laid over the dimensions of a mesh of devices; nothing for an ordinary one."""
    found = getattr(tensor, "placements", ())
    return found if isinstance(found, tuple) else ()


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor without its graph, or the tensor itself where it is not spread. No communication."""
    tensor = tensor.detach()
    if not placements(tensor):
        return tensor
    here: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return here


def share(tensor: Tensor, ranks: int) -> float:
    """What this rank's part counts in a sum over all ranks: one over the number of ranks that hold the same part.

    Without it a sum over replicas (plain data parallelism, the replicated dimension of a hybrid mesh) counts each of
    them.

    Raises:
        ValueError: the tensor holds sums that are still to be added up over ranks, whose squares say nothing.

    Example:
        >>> import torch
        >>> share(torch.zeros(3), ranks=4)
        0.25
    """
    if ranks == 1:
        return 1.0
    parts = 1
    for placement, size in zip(placements(tensor), tensor.device_mesh.shape if placements(tensor) else (), strict=True):  # type: ignore[attr-defined]
        if placement.is_partial():
            raise ValueError("a tensor that is not added up over its ranks yet cannot be read")
        parts *= 1 if placement.is_replicate() else size
    return parts / ranks


def sharding(model: nn.Module, optimizer: Any = None) -> str:
    """How the parameters of a model are spread over processes.

    Returns:
        ``""``: every rank has all of them; ``fully_shard``: each has a part, as DTensors of its own; otherwise the name
        of a way whose parameters and gradients cannot be read: ``FullyShardedDataParallel``, ``DeepSpeed``, or
        ``tensor parallelism``, under which even heads and tokens of different ranks are not of one kind.
    """
    names = {c.__name__ for module in model.modules() for c in type(module).__mro__}
    parameters = list(model.parameters())
    wrappers = (model, optimizer, getattr(optimizer, "optimizer", None))
    deep = any(c.__module__.partition(".")[0] == "deepspeed" for x in wrappers for c in type(x).__mro__)
    if deep or any(hasattr(p, "ds_id") for p in parameters):
        return "DeepSpeed"
    if "FullyShardedDataParallel" in names:
        return "FullyShardedDataParallel"
    spread = [p for p in parameters if placements(p)]
    if not spread:
        return ""
    if "FSDPModule" not in names or any(_cut(p) > 1 for p in spread):
        return "tensor parallelism"
    return "fully_shard"


def _cut(tensor: Tensor) -> int:
    """Along how many dimensions of its mesh a tensor is cut into parts."""
    return sum(not placement.is_replicate() for placement in placements(tensor))


def by_share(tensors: Iterable[Tensor], ranks: int) -> dict[float, list[Tensor]]:
    """The local parts of tensors, put together by what they count."""
    found: dict[float, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(share(tensor, ranks), []).append(local(tensor))
    return found
