"""Induction heads: random sequences that repeat themselves, and a transformer of two layers of attention alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transitions.networks import AttentionOnly
from transitions.problem import Batch, Problem

IGNORED = -100


def problem(seed: int, *, vocabulary: int = 24, half: int = 12, batch: int = 32) -> Problem:
    """Only what repeats can be foretold; the order parameter is the share of it that is."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: int, source: torch.Generator) -> Batch:
        first = torch.randint(0, vocabulary, (size, half), generator=source)
        tokens = torch.cat([first, first], dim=1)
        targets = tokens[:, 1:].clone()
        return tokens[:, :-1], targets

    held_out = draw(64, torch.Generator().manual_seed(seed + 1000))

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def orders(model: nn.Module) -> dict[str, float]:
        logits, targets = model(held_out[0])[:, half:], held_out[1][:, half:]
        accuracy = (logits.argmax(-1) == targets).double().mean().item()
        return {"held_out": (accuracy - 1 / vocabulary) / (1 - 1 / vocabulary)}

    model = AttentionOnly(vocabulary, 2 * half)
    return Problem(model, lambda step: draw(batch, generator), loss, orders, preset="default")
