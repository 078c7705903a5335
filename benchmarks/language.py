"""A small language model that several benchmarks measure on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thermo_monitor.demo.modular import Block


class Language(nn.Module):
    """Four layers, d = 256, T = 256: a small language model."""

    def __init__(self, vocabulary: int = 1000, width: int = 256, length: int = 256, layers: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, 8, 4 * width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
