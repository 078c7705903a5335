"""What mixing two prompts does to the entropy: the sign of ``g = S((x + y)/2) - (S(x) + S(y))/2``.

x and y are the embeddings of two prompts of one length, mixed token by token. Conjecture 6.4 of Yang 2024
(arXiv:2407.21092) says "convex", which asks for g <= 0; its gloss, that mixing meanings gets more vague, asks for
g >= 0. The distribution of g is reported, and neither is claimed. (A reconstruction: the source does not fix S; here it
is the entropy of the next token, or with ``tokens`` M > 1 the chain-rule entropy of the next M tokens.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thermo_monitor.analysis.intervals import Interval, mean_interval, share_interval
from thermo_monitor.analysis.language import adapt
from thermo_monitor.physics.canonical import entropy

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ConvexityProbe:
    """The gap over pairs of prompts.

    Attributes:
        gaps: [N] g of each pair, nats; pairs share no prompt, so they are independent.
        mean: of g, with its interval.
        positive: share of pairs with g > 0 (midpoint concave), with its interval.
        negative: share of pairs with g < 0 (midpoint convex), with its interval.
        quantiles: of g at 5, 25, 50, 75 and 95 %.
    """

    gaps: Array
    mean: Interval
    positive: Interval
    negative: Interval
    quantiles: tuple[float, ...]


def convexity_gap(s_mixed: Tensor, s_x: Tensor, s_y: Tensor) -> Tensor:
    """``S((x + y)/2) - (S(x) + S(y))/2``.

    Example:
        >>> convexity_gap(torch.tensor(0.7), torch.tensor(0.0), torch.tensor(1.0)).item().__round__(6)
        0.2
    """
    return s_mixed - (s_x + s_y) / 2


def convexity_probe(
    model: nn.Module,
    ids: Tensor,
    *,
    tokens: int = 1,
    samples: int = 16,
    seed: int = 0,
    batch: int = 32,
    embedding: str = "",
) -> ConvexityProbe:
    """The gap over random pairs of prompts, each prompt in one pair.

    Args:
        model: a language model ids [B, T] -> logits, with an ``nn.Embedding`` for its tokens.
        ids: [N, T] prompts of one length, N >= 2; an odd one is left over.
        tokens: M, how many next tokens S counts. With 1 nothing is drawn.
        samples: continuations of a prompt for M > 1, under the same random numbers for x, y and the mixture.
        seed: of the pairs and of the continuations.
        batch: pairs of one pass.
        embedding: name of the module; empty: the one that transformers names, or the only ``nn.Embedding`` that ids
            of this kind go through.

    Raises:
        ValueError: too few prompts, or no embedding that could be mixed.
    """
    if ids.dim() != 2 or len(ids) < 2:
        raise ValueError(f"ids of shape {tuple(ids.shape)}: give [N, T], at least 2 prompts of one length")
    if tokens < 1 or samples < 1:
        raise ValueError(f"tokens={tokens}, samples={samples}: each has to be at least 1")
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed))
    half = len(ids) // 2
    x, y = ids[order[:half]], ids[order[half : 2 * half]]
    module = _embedding(model, embedding)
    gaps = []
    with adapt(model).reading():
        for start in range(0, half, batch):
            here = slice(start, start + batch)
            s = [_entropy(model, module, x[here], y[here], w, tokens, samples, seed + start) for w in (0.5, 0.0, 1.0)]
            gaps.append(convexity_gap(*s))
    g = torch.cat(gaps).numpy()
    g = g[np.isfinite(g)]
    quantiles = tuple(float(q) for q in np.quantile(g, [0.05, 0.25, 0.5, 0.75, 0.95])) if len(g) else (math.nan,) * 5
    # What rounding leaves of two equal prompts has no sign.
    signs = [share_interval(int((sign * g > 1e-6).sum()), len(g)) for sign in (1, -1)]
    return ConvexityProbe(g, mean_interval(g, seed=seed), signs[0], signs[1], quantiles)


def _embedding(model: nn.Module, name: str) -> nn.Module:
    if name:
        return model.get_submodule(name)
    if hasattr(model, "get_input_embeddings"):
        return model.get_input_embeddings()  # type: ignore[no-any-return,operator]
    found = [(m.num_embeddings, k, m) for k, m in enumerate(model.modules()) if isinstance(m, nn.Embedding)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no nn.Embedding whose vectors could be mixed")
    return max(found)[2]  # tokens are more than positions, or than kinds of segment


def _entropy(
    model: nn.Module, module: nn.Module, x: Tensor, y: Tensor, share: float, tokens: int, samples: int, seed: int
) -> Tensor:
    """[B] entropy of the next tokens after prompts whose embeddings are mixed, with the share of y."""
    rows = samples if tokens > 1 else 1
    x, y = x.repeat_interleave(rows, 0), y.repeat_interleave(rows, 0)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(x), dtype=torch.float64)
    device = next(model.parameters()).device
    for step in range(tokens):
        with _mixed(module, y.to(device), share):
            out = model(x.to(device))
        logits = getattr(out, "logits", out)
        z = (logits[:, -1] if logits.dim() == 3 else logits).double().cpu()
        total += entropy(z)
        if step + 1 < tokens:
            noise = -(-torch.rand(z.shape, generator=generator, dtype=torch.float64).clamp(min=1e-300).log()).log()
            drawn = (z + noise).argmax(-1, keepdim=True).to(x.device)
            x, y = torch.cat([x, drawn], 1), torch.cat([y, drawn], 1)  # a drawn token is the same in both
    return total.view(-1, rows).mean(1)


@contextmanager
def _mixed(module: nn.Module, other: Tensor, share: float) -> Iterator[None]:
    """Inside, the module embeds its ids mixed with others of the same shape."""
    plain = type(module).forward

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output if share == 0 else (1 - share) * output + share * plain(module, other)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
