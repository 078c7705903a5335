"""Language models small enough to know everything about."""

import torch
import torch.nn.functional as F
from torch import nn

VOCABULARY, LENGTH = 23, 12


class Block(nn.Module):
    def __init__(self, width=16, heads=2):
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.weights = None  # [B, H, T, T] of the last pass, by the obvious way

    def forward(self, x):
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(self.norm(x)).chunk(3, -1))
        z = (q @ k.mT) / q.shape[-1] ** 0.5
        past = torch.ones(z.shape[-2:], dtype=torch.bool).tril()
        self.weights = torch.where(past, z, -torch.inf).softmax(-1).detach()
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(y.transpose(1, 2).flatten(2))


class Decoder(nn.Module):
    """Logits [B, T, V]; a dropout shows whether the mode is kept."""

    def __init__(self, width=16, layers=2, heads=2, vocabulary=VOCABULARY):
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(LENGTH, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(width, vocabulary)

    def forward(self, ids):
        x = self.embed(ids) + self.position[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.drop(x))


def sentences(count=8, length=LENGTH, vocabulary=VOCABULARY, seed=0):
    return torch.randint(vocabulary, (count, length), generator=torch.Generator().manual_seed(seed))
