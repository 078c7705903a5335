"""The task and the model: addition modulo p, and one transformer layer that learns it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Split:
    """Examples [N, 3] of tokens a, b, = and answers [N]; p is the token of the equals sign."""

    tokens: Tensor
    answers: Tensor


def modular_addition(p: int = 37, train_share: float = 0.7, seed: int = 0) -> tuple[Split, Split]:
    """Training and held-out examples of (a + b) mod p.

    The split is over unordered pairs: both orders of a pair stand on the same side. Split by ordered pairs, a held-out
    example would have its mirror image in training about as often as not, and "held out" would mean little.

    Args:
        p: modulus.
        train_share: share of the unordered pairs that is trained on.
        seed: of the split, drawn from a generator of its own.

    Example:
        >>> train, held_out = modular_addition(p=5)
        >>> len(train.answers) + len(held_out.answers)
        25
    """
    pairs = torch.combinations(torch.arange(p), 2, with_replacement=True)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    cut = int(train_share * len(pairs))
    return _both_orders(pairs[order[:cut]], p), _both_orders(pairs[order[cut:]], p)


def _both_orders(pairs: Tensor, p: int) -> Split:
    mirrored = pairs[pairs[:, 0] != pairs[:, 1]].flip(1)
    ab = torch.cat([pairs, mirrored])
    tokens = torch.cat([ab, torch.full((len(ab), 1), p)], dim=1)
    return Split(tokens, ab.sum(1) % p)


class Block(nn.Module):
    """Causal attention and an MLP on the residual stream, without normalisation."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] to [B, T, d]."""
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        update: Tensor = self.down(F.relu(self.up(x)))
        return x + update


class Transformer(nn.Module):
    """Embeds three tokens, runs the blocks, and reads the answer at the last position."""

    def __init__(self, p: int = 37, width: int = 64, heads: int = 4, hidden: int = 256, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(p + 1, width)
        self.position = nn.Parameter(torch.empty(3, width))
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.unembedding = nn.Linear(width, p, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=width**-0.5)
            else:
                nn.init.zeros_(parameter)
        nn.init.normal_(self.unembedding.weight, std=p**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, 3] to logits [B, p]."""
        x = self.embedding(tokens) + self.position
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.unembedding(x[:, -1])
        return logits
