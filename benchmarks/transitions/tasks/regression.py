"""Linear regression in context: points (x, y) of a line that is new in each sequence, and a last x to be answered.

Weights begin so small that nothing can be read from the context at first: a long plateau, then attention and values
find each other. The order parameter compares the error with that of always guessing zero (0) and of being right (1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermo_monitor.demo.modular import Block
from transitions.networks import Regressor
from transitions.problem import Batch, Problem


def draw(size: int, points: int, source: torch.Generator) -> Batch:
    """Tokens [B, points, 3]: x, y, and 1 where y is asked for and not given; targets [B].

    Slopes are of size .5 to 1.5 and either sign, so that no sequence weighs much more than another.
    """
    x = torch.randn(size, points, 1, generator=source)
    sign = 2.0 * torch.randint(0, 2, (size, 1, 1), generator=source) - 1.0
    y = x * sign * (0.5 + torch.rand(size, 1, 1, generator=source))
    asked = torch.zeros(size, points, 1)
    asked[:, -1] = 1.0
    return torch.cat([x, y * (1.0 - asked), asked], dim=-1), y[:, -1, 0]


def problem(seed: int, *, points: int = 8, batch: int = 128, width: int = 32, scale: float = 0.1) -> Problem:
    """Fresh lines at every step; ``scale`` multiplies the first weight matrices."""
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = draw(256, points, torch.Generator().manual_seed(seed + 1000))
    model = Regressor(Block, 3, points, width)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)

    def loss(guesses: Tensor, answers: Tensor) -> Tensor:
        return F.mse_loss(guesses[:, -1], answers)

    def orders(model: nn.Module) -> dict[str, float]:
        return {"held_out": 1.0 - loss(model(inputs), targets).item() / targets.square().mean().item()}

    return Problem(model, lambda step: draw(batch, points, generator), loss, orders, preset="default")
