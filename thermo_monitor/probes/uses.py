"""What a module does with a parameter, as far as per-example gradient norms can be had from its inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermo_monitor.physics import example_norms as norms


class Use(NamedTuple):
    """One use of a parameter in a forward and backward pass.

    Attributes:
        kind: ``product`` (linear layers, convolutions), ``transposed`` (the same with the weight the other way round),
            ``lookup`` (embeddings) or ``sum`` (biases and gains).
        left: [B, T, i] inputs, or [B, T] tokens; for a sum nothing.
        right: [B, T, o] gradients at the outputs; for a sum what is summed over T, or its sum.
    """

    kind: str
    left: Tensor | None
    right: Tensor


def supported(module: nn.Module) -> str:
    """What a module is, or the empty string for one that is not read.

    A subclass counts only with the forward pass of its base: what else it computes would be missed.
    """
    for kind, name in _KINDS.items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            if isinstance(module, nn.Embedding) and (module.max_norm is not None or module.scale_grad_by_freq):
                return ""
            return name
    own = [name for name, _ in module.named_parameters()]
    named = type(module).__name__
    if named == "Conv1D" and sorted(own) == ["bias", "weight"]:
        return "conv1d of transformers"
    if named.endswith(("RMSNorm", "T5LayerNorm")) and own == ["weight"] and _eps(module) is not None:
        return "rms"
    return ""


_KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Embedding: "embedding",
    nn.LayerNorm: "layer",
    nn.RMSNorm: "rms",
    nn.Conv2d: "convolution",
}


def _eps(module: nn.Module) -> Any:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def uses_of(
    module: nn.Module, kind: str, x: Tensor, g: Tensor, batch: int, part: slice, sequence_first: bool
) -> dict[str, Use] | None:
    """The uses of a module's own parameters, by name, for some examples of the batch.

    Args:
        module: the module.
        kind: what ``supported`` said.
        x: its input.
        g: gradient at its output.
        batch: number of examples.
        part: which of them.
        sequence_first: whether some modules take the batch as the second dimension.

    Returns:
        The uses, or None where inputs and outputs do not tell which example they belong to.
    """
    if kind == "convolution":
        assert isinstance(module, nn.Conv2d)
        if x.dim() != 4 or x.shape[0] != batch:
            return None
        return _convolution(module, x[part], g[part])
    if kind == "embedding":
        ids = by_example(x.unsqueeze(-1), batch, sequence_first)
        e = by_example(g, batch, sequence_first)
        if ids is None or e is None:
            return None
        ids, e = ids[part].squeeze(-1), e[part]
        padding = getattr(module, "padding_idx", None)
        if padding is not None:  # its row is kept as it is
            e = e.masked_fill((ids == padding).unsqueeze(-1), 0.0)
        return {"weight": Use("lookup", ids, e)}
    shape = getattr(module, "normalized_shape", (0,))
    dims = len(shape) if isinstance(shape, tuple) else 1
    if dims > 1:
        x, g = x.flatten(-dims), g.flatten(-dims)
    a, g_by = by_example(x, batch, sequence_first), by_example(g, batch, sequence_first)
    if a is None or g_by is None:
        return None
    a, g = a[part], g_by[part]
    if kind in ("linear", "conv1d of transformers"):
        weight = Use("product" if kind == "linear" else "transposed", a, g)
        return {"weight": weight, "bias": Use("sum", None, g)}
    eps = _eps(module)
    if eps is None:
        eps = torch.finfo(x.dtype).eps  # what torch takes then
    gain = norms.gain_gradients(a, g, eps, centred=kind == "layer")
    return {"weight": Use("sum", None, gain), "bias": Use("sum", None, g)}


def by_example(x: Tensor, batch: int, sequence_first: bool) -> Tensor | None:
    """[B, T, d] from [B, ..., d], [T, B, d] or rows [B * T, d], the examples one after the other; None otherwise."""
    if x.dim() == 3 and x.shape[1] == batch:
        if x.shape[0] != batch:
            return x.transpose(0, 1)
        if sequence_first and batch > 1:
            return None  # either could be meant
    if x.dim() >= 2 and x.shape[0] == batch:
        return x.reshape(batch, -1, x.shape[-1]) if x.numel() else x.new_zeros(batch, 0, x.shape[-1])
    if x.dim() == 2 and batch and x.shape[0] % batch == 0:
        return x.reshape(batch, -1, x.shape[-1])
    return x.reshape(1, -1, x.shape[-1]) if batch == 1 and x.numel() else None


def _convolution(module: nn.Conv2d, x: Tensor, g: Tensor) -> dict[str, Use]:
    if module.padding_mode != "zeros":
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding: Any = 0
    elif isinstance(module.padding, str):
        x = F.pad(x, module._reversed_padding_repeated_twice)
        padding = 0
    else:
        padding = module.padding
    patches = F.unfold(x, module.kernel_size, module.dilation, padding, module.stride)  # [B, C k k, T]
    batch, groups = len(x), module.groups
    g = g.flatten(2)  # [B, O, T]
    # Each group is a product of its own: the groups of an example stand where examples do.
    a = patches.reshape(batch * groups, -1, patches.shape[-1]).mT
    by_group = g.reshape(batch * groups, -1, g.shape[-1]).mT
    return {"weight": Use("product", a, by_group), "bias": Use("sum", None, g.mT)}


def norms_of(uses: Sequence[Use], examples: int) -> Tensor | None:
    """[B] squared gradient norms of a parameter from all of its uses; None for a mixture that is not read.

    Args:
        uses: of one parameter, in one pass.
        examples: B.
    """
    kinds = {use.kind for use in uses}
    if kinds == {"lookup", "product"}:
        return _tied(uses)
    if len(kinds) != 1:
        return None
    kind = kinds.pop()
    if kind == "sum":
        right = uses[0].right if len(uses) == 1 else torch.cat([use.right for use in uses], 1)
        return norms.sum_norms(right)
    left, right = _joined(uses)
    found = norms.lookup_norms(left, right) if kind == "lookup" else norms.product_norms(left, right)
    return found.view(examples, -1).sum(1) if len(found) != examples else found


def _joined(uses: Sequence[Use]) -> tuple[Tensor, Tensor]:
    """Several uses of a weight are one, of all their positions."""
    if len(uses) == 1:
        assert uses[0].left is not None
        return uses[0].left, uses[0].right
    return torch.cat([use.left for use in uses if use.left is not None], 1), torch.cat([use.right for use in uses], 1)


def _tied(uses: Sequence[Use]) -> Tensor:
    ids, e = _joined([use for use in uses if use.kind == "lookup"])
    a, g = _joined([use for use in uses if use.kind == "product"])
    return norms.lookup_norms(ids, e) + norms.product_norms(a, g) + norms.tied_cross_terms(ids, e, a, g)
