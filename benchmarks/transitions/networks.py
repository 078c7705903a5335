"""The architectures: the demo's transformer, one of attention alone, and two without attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """One layer of causal attention on a residual stream, positions added to queries and keys only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key = nn.Linear(width, 2 * width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """[B, T, C] and [T, C] to [B, T, C]."""
        batch, length, width = x.shape
        y = self.norm(x)
        q, k = self.query_key(y + position).view(batch, length, 2, self.heads, -1).unbind(2)
        v = self.value(y).view(batch, length, self.heads, -1)
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        added: Tensor = self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + added


class AttentionOnly(nn.Module):
    """Layers of attention alone, with positions in queries and keys only.

    That is what makes heads that look one token back, the first half of an induction circuit, easy to form.
    """

    def __init__(self, vocabulary: int, length: int, width: int = 64, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length, width) * width**-0.5)
        self.layers = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.unembedding = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] to [B, T, V]."""
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.position[: tokens.shape[1]])
        logits: Tensor = self.unembedding(self.norm(x))
        return logits


class Perceptron(nn.Module):
    """Tokens embedded, laid side by side, one hidden layer, which is its only block, and a readout."""

    def __init__(self, vocabulary: int, length: int, classes: int, width: int = 48, hidden: int = 256) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(length * width, hidden), nn.ReLU())])
        self.readout = nn.Linear(hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] to [B, classes]."""
        hidden = self.blocks[0](self.embedding(tokens).flatten(1).unsqueeze(1))  # one token that holds all
        logits: Tensor = self.readout(hidden.squeeze(1))
        return logits


class Reader(nn.Module):
    """A gated recurrent unit whose output is its states alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.unit = nn.GRU(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, C] to [B, T, C]."""
        states: Tensor = self.unit(x)[0]
        return states


class Recurrent(nn.Module):
    """A gated recurrent unit that reads the tokens and answers at the last."""

    def __init__(self, vocabulary: int, classes: int, width: int = 96) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([Reader(width)])
        self.readout = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] to [B, classes]."""
        logits: Tensor = self.readout(self.blocks[0](self.embedding(tokens))[:, -1])
        return logits


class Regressor(nn.Module):
    """A causal transformer on vectors: reads points, and gives a number at each."""

    def __init__(self, block: type[nn.Module], inputs: int, length: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.read = nn.Linear(inputs, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.1)
        self.blocks = nn.ModuleList(block(width, 4, 4 * width) for _ in range(layers))
        self.write = nn.Linear(width, 1)

    def forward(self, points: Tensor) -> Tensor:
        """[B, T, inputs] to [B, T]."""
        x = self.read(points) + self.position[: points.shape[1]]
        for block in self.blocks:
            x = block(x)
        guess: Tensor = self.write(x).squeeze(-1)
        return guess
