"""The models of the study: one layer without normalisation, or two with it and rotary positions.

Attention is written out, since a row has three keys at most and its logits are what the study is about.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Causal attention and an MLP on the residual stream."""

    def __init__(self, width: int, heads: int, norm: bool, rotary: bool) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.first: nn.Module = nn.LayerNorm(width) if norm else nn.Identity()
        self.second: nn.Module = nn.LayerNorm(width) if norm else nn.Identity()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, T, d] to [N, T, d] and the scaled logits [N, H, T, T], those of the future included."""
        x, z = self.attended(x)
        return self.fed(x), z

    def attended(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first half of it."""
        n, length, width = x.shape
        q, k, v = self.qkv(self.first(x)).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.rotary:
            q, k = _rotated(q, length), _rotated(k, length)
        z = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        weighted = z.masked_fill(future, -math.inf).softmax(-1) @ v
        return x + self.out(weighted.transpose(1, 2).reshape(n, length, width)), z

    def fed(self, x: Tensor) -> Tensor:
        """The second half: [..., d] to [..., d]."""
        update: Tensor = self.down(F.relu(self.up(self.second(x))))
        return x + update

    def answered(self, x: Tensor, places: Tensor) -> Tensor:
        """The last position alone, of a block that is the first: a few times less work, for training.

        There an input depends on the token and its place only, and the last one is the same in all examples. So keys
        and values are those of a table, and a logit is looked up, not multiplied out for each example.

        Args:
            x: [M, d] the table; its last line is the input at the last position.
            places: [N, 2] lines of the table that come before.

        Returns:
            [N, d].
        """
        m, width = x.shape
        if self.rotary:
            raise ValueError("a table of inputs has no positions: give a block without rotation")
        y = self.first(x)
        query, both = self.qkv.weight.split([width, 2 * width])
        q = (query @ y[-1]).view(self.heads, -1)
        k, v = (y @ both.T).view(m, 2, self.heads, -1).unbind(1)
        z = (k * q).sum(-1) / math.sqrt(q.shape[-1])
        # [N, 3, H], and one product with the value of each key.
        w = torch.cat([z[places], z[-1].expand(len(places), 1, -1)], 1).softmax(1)[..., None]
        first, second = places.unbind(1)
        weighted = w[:, 0] * v[first] + w[:, 1] * v[second] + w[:, 2] * v[-1]
        return self.fed(x[-1] + self.out(weighted.reshape(-1, width)))


def _rotated(x: Tensor, length: int) -> Tensor:
    half = x.shape[-1] // 2
    angle = torch.arange(length, device=x.device)[:, None] * 10000.0 ** (-torch.arange(half, device=x.device) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Study(nn.Module):
    """Tokens a, b, = to logits of the answer at the last position."""

    def __init__(self, p: int, width: int, heads: int = 4, layers: int = 1) -> None:
        super().__init__()
        deep = layers > 1
        self.embedding = nn.Embedding(p + 1, width)
        self.position = nn.Parameter(torch.zeros(3, width))
        self.blocks = nn.ModuleList(Block(width, heads, norm=deep, rotary=deep) for _ in range(layers))
        self.unembedding = nn.Linear(width, p, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=width**-0.5)
        if deep:  # positions are in the rotation
            nn.init.zeros_(self.position)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, 3] to logits [N, p]."""
        if len(self.blocks) > 1:
            return self.read(tokens)[0]
        e = self.embedding.weight
        p = len(e) - 1
        table = torch.cat([e[:p] + self.position[0], e[:p] + self.position[1], e[p:] + self.position[2]])
        places = tokens[:, :2] + torch.tensor([0, p], device=tokens.device)
        logits: Tensor = self.unembedding(self.blocks[0].answered(table, places))
        return logits

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same with what is measured: logits, representations at the last position [N, d], rows [L, N, H, 3, 3]."""
        x = self.embedding(tokens) + self.position
        rows = []
        for block in self.blocks[:-1]:
            x, z = block(x)
            rows.append(z)
        x, z = self.blocks[-1].attended(x)
        x = self.blocks[-1].fed(x[:, -1])
        return self.unembedding(x), x, torch.stack([*rows, z])


class Reading(nn.Module):
    """A model whose forward pass is ``read``, for functional calls."""

    def __init__(self, model: Study) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`Study.read`."""
        return self.model.read(tokens)
