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

    def forward(self, x: Tensor, last: bool = False) -> tuple[Tensor, Tensor]:
        """[N, T, d] to [N, T, d] and the scaled logits [N, H, T, T], those of the future included.

        Of the ``last`` block only the last position is used: then both have T = 1 there, for less than half of the
        work.
        """
        n, length, width = x.shape
        y = self.first(x)
        if last:
            parts = self.qkv.weight.split([width, 2 * width])
            x = x[:, -1:]
            q = (y[:, -1:] @ parts[0].T).reshape(n, 1, self.heads, -1).transpose(1, 2)
            k, v = (y @ parts[1].T).reshape(n, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = self.qkv(y).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if self.rotary:
            q, k = _rotated(q, length), _rotated(k, length)
        z = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)[-z.shape[-2] :]
        attended = z.masked_fill(future, -math.inf).softmax(-1) @ v
        x = x + self.out(attended.transpose(1, 2).reshape(n, -1, width))
        return x + self.down(F.relu(self.up(self.second(x)))), z


def _rotated(x: Tensor, length: int) -> Tensor:
    half = x.shape[-1] // 2
    angle = torch.arange(length, device=x.device)[length - x.shape[-2] :, None] * 10000.0 ** (
        -torch.arange(half, device=x.device) / half
    )
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
        x = self.embedding(tokens) + self.position
        for block in self.blocks[:-1]:
            x, _ = block(x)
        x, _ = self.blocks[-1](x, last=True)
        logits: Tensor = self.unembedding(x[:, -1])
        return logits

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same with what is measured: logits, representations at the last position [N, d], rows [L, N, H, 3, 3]."""
        x = self.embedding(tokens) + self.position
        rows = []
        for block in self.blocks:
            x, z = block(x)
            rows.append(z)
        return self.unembedding(x[:, -1]), x[:, -1], torch.stack(rows)


class Reading(nn.Module):
    """A model whose forward pass is ``read``, for functional calls."""

    def __init__(self, model: Study) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`Study.read`."""
        return self.model.read(tokens)
