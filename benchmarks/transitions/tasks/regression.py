"""Linear regression in context: points of a line that is new in each sequence, and the next one to be guessed.

The order parameter compares the error at the last point with that of always guessing zero (0) and of least squares
on the points before (1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermo_monitor.demo.modular import Block
from transitions.networks import Regressor
from transitions.problem import Batch, Problem


def draw(size: int, points: int, dimension: int, source: torch.Generator) -> Batch:
    """Tokens [B, 2 points, dimension + 1]: x and, after it, y; targets [B, points]."""
    x = torch.randn(size, points, dimension, generator=source)
    weight = torch.randn(size, dimension, 1, generator=source)
    y = (x @ weight) / dimension**0.5
    tokens = torch.zeros(size, points, 2, dimension + 1)
    tokens[:, :, 0, :dimension] = x
    tokens[:, :, 1, dimension:] = y
    return tokens.flatten(1, 2), y.squeeze(-1)


def problem(seed: int, *, points: int = 8, dimension: int = 2, batch: int = 64) -> Problem:
    """Fresh lines at every step."""
    generator = torch.Generator().manual_seed(seed)
    held_out = draw(256, points, dimension, torch.Generator().manual_seed(seed + 1000))

    def loss(guesses: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(guesses[:, ::2], targets)

    def orders(model: nn.Module) -> dict[str, float]:
        guess, target = model(held_out[0])[:, ::2][:, -1], held_out[1][:, -1]
        return {"held_out": 1.0 - (guess - target).square().mean().item() / target.square().mean().item()}

    model = Regressor(Block, dimension + 1, 2 * points)
    return Problem(model, lambda step: draw(batch, points, dimension, generator), loss, orders, preset="default")
