"""Which modules are the blocks of a model: the elements of a list of modules."""

from __future__ import annotations

from torch import nn


def last_block(model: nn.Module) -> str | None:
    """Qualified name of the last element of the largest ``nn.ModuleList``, which in a transformer is its last block.

    Example:
        >>> last_block(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 3, enable_nested_tensor=False))
        'layers.2'
    """
    best, most = None, 0
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            size = sum(p.numel() for p in module.parameters())
            if size >= most:  # of equal ones the later: a decoder follows its encoder
                best, most = f"{name}.{len(module) - 1}".lstrip("."), size
    return best


def blocks(model: nn.Module, last: str) -> list[str]:
    """Names of the blocks up to the given one: the elements of its ``nn.ModuleList``, or itself.

    Example:
        >>> blocks(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 3, enable_nested_tensor=False), "layers.2")
        ['layers.0', 'layers.1', 'layers.2']
    """
    parent, _, at = last.rpartition(".")
    if not at.isdigit() or not isinstance(model.get_submodule(parent), nn.ModuleList):
        return [last]
    return [f"{parent}.{k}".lstrip(".") for k in range(int(at) + 1)]
