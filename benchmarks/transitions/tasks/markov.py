"""A language with a memory of one token, learned smoothly from small batches: nothing happens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermo_monitor.demo.modular import Block
from transitions.problem import Batch, Problem


class Language(nn.Module):
    """One block between an embedding and its way back."""

    def __init__(self, vocabulary: int, length: int, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.blocks = nn.ModuleList([Block(width, 4, 2 * width)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T] to [B, T, V]."""
        x = self.embedding(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def problem(
    seed: int, *, vocabulary: int = 32, length: int = 24, batch: int = 16, larger: tuple[int, int] | None = None
) -> Problem:
    """A random chain; ``larger`` is a step from which on another batch size holds."""
    generator = torch.Generator().manual_seed(seed)
    chain = torch.softmax(1.5 * torch.randn(vocabulary, vocabulary, generator=generator), dim=1)
    entropy = -(chain * chain.log()).sum(1).mean().item()

    def draw(size: int, source: torch.Generator) -> Batch:
        tokens = torch.randint(0, vocabulary, (size, 1), generator=source)
        for _ in range(length):
            tokens = torch.cat([tokens, torch.multinomial(chain[tokens[:, -1]], 1, generator=source)], dim=1)
        return tokens[:, :-1], tokens[:, 1:]

    held_out = draw(64, torch.Generator().manual_seed(seed + 1000))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def orders(model: nn.Module) -> dict[str, float]:
        worst = torch.log(torch.tensor(float(vocabulary))).item()
        return {"held_out": (worst - loss(model(held_out[0]), held_out[1]).item()) / (worst - entropy)}

    def batches(step: int) -> Batch:
        return draw(larger[1] if larger and step >= larger[0] else batch, generator)

    return Problem(Language(vocabulary, length), batches, loss, orders, preset="default")
