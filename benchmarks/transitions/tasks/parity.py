"""Sparse parity: the product of three of many signs, fresh examples at every step; a plateau, then a jump."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from transitions.networks import Perceptron
from transitions.problem import Batch, Problem, share_correct


def problem(seed: int, *, bits: int = 24, relevant: int = 3, batch: int = 64) -> Problem:
    """Bits as tokens, two classes; which bits matter is the seed's secret."""
    generator = torch.Generator().manual_seed(seed)
    secret = torch.randperm(bits, generator=generator)[:relevant]

    def draw(size: int, source: torch.Generator) -> Batch:
        tokens = torch.randint(0, 2, (size, bits), generator=source)
        return tokens, tokens[:, secret].sum(1) % 2

    held_out = draw(1000, torch.Generator().manual_seed(seed + 1000))

    def orders(model: nn.Module) -> dict[str, float]:
        return {"held_out": share_correct(model(held_out[0]), held_out[1], 0.5)}

    return Problem(Perceptron(2, bits, 2, width=4), lambda step: draw(batch, generator), F.cross_entropy, orders)
