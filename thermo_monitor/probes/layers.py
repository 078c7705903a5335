"""Which layer a parameter belongs to."""

from __future__ import annotations


def layer_of(parameter: str) -> str:
    """The layer of a parameter, by its qualified name.

    A layer is one element of the outermost numbered container (a block of a transformer); outside of such, the module
    that has the parameter.

    Example:
        >>> layer_of("transformer.h.3.attn.c_attn.weight"), layer_of("head.weight"), layer_of("position")
        ('transformer.h.3', 'head', 'position')
    """
    parts = parameter.split(".")
    for at, part in enumerate(parts[:-1]):
        if part.isdigit():
            return ".".join(parts[: at + 1])
    return ".".join(parts[:-1]) or parameter
