"""Other quantities that have been called the specific heat of attention. They are not the same, and can move apart.

The canonical one, ``Var_p(E) / T^2`` of a row, is :func:`~thermo_monitor.physics.specific_heat`; the unweighted
variance of all logits is :func:`~thermo_monitor.physics.specific_heat_pooled`. Here are two more, for studies that
compare them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thermo_monitor.physics.canonical import internal_energy


def specific_heat_batchmean(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Specific heat of the attention that is the mean over examples, ``Var_q(-ln q)`` with ``q = mean_b softmax(z_b)``.

    It mixes examples before a nonlinear function: heads that attend sharply, but to other keys in other examples, look
    undecided. The examples must have the same unmasked keys.

    Args:
        z: [B, ..., K] logits of B examples.
        mask: bool, broadcastable to z and the same for all examples; True: the key is a state.

    Returns:
        [...], between 0 and the bound of the specific heat for so many keys; NaN for fewer than two keys or no example.

    Status: stated by a public replication of grokking runs.

    Example:
        >>> sure, undecided = [40.0, 0.0], [0.0, 0.0]  # specific heat 0 in each
        >>> z = torch.tensor([sure, undecided], dtype=torch.float64)
        >>> round(specific_heat_batchmean(z).item(), 9)
        0.22630293
    """
    states = torch.ones_like(z, dtype=torch.bool) if mask is None else mask.expand_as(z)
    q = z.masked_fill(~states, -math.inf).softmax(-1).mean(0)
    surprisal = -torch.where(q > 0, q, 1.0).log()
    mean = (q * surprisal).sum(-1, keepdim=True)
    heat = (q * (surprisal - mean).square()).sum(-1)
    enough = states[:1].sum(-1).amax(0) >= 2 if len(z) else torch.zeros_like(heat, dtype=torch.bool)
    return torch.where(enough, heat, math.nan)


def energy_variance(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Variance of the row's internal energy over examples, ddof 1.

    It depends on the gauge: a constant added to the logits of one example changes it.

    Args:
        z: [B, ..., K] logits of B examples.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...]; NaN for fewer than two examples.

    Status: a reading of "energy variance"; reconstruction.

    Example:
        >>> round(energy_variance(torch.tensor([[1.0, 0.0], [3.0, 0.0]], dtype=torch.float64)).item(), 9)
        2.261349463
    """
    energy = internal_energy(z, mask)
    if len(energy) < 2:
        return torch.full_like(z[0, ..., 0] if len(z) else z.sum((0, -1)), math.nan)
    return energy.var(0)
