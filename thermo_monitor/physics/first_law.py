"""The first law for one row of attention: its energy changes by heat and by work, exactly.

Energies are ``E = -z``. Work is done where the levels move under the weights, heat flows where weights move between the
levels; with the means of before and after as the fixed factor, the two add up to the change of energy to rounding. That
is standard for a discrete change (a product's difference, split evenly). To read work as inference (new inputs) and as
learning (new parameters) is the picture of Kim 2026, arXiv:2602.08216, whose definition is not public to us: this split
is a reconstruction.

Shapes: ``[...]`` rows, K states. Everything is taken in float64; rows with fewer than two states are NaN.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from thermo_monitor.physics.information import log_weights


class FirstLaw(NamedTuple):
    """Balance of the energy of a row between two states.

    Attributes:
        energy_change: [...] Delta U = heat + work, in units of the logits.
        heat: [...] ``sum_i mean(E_i) Delta p_i``: weights that moved between the levels.
        work: [...] ``sum_i mean(p_i) Delta E_i``: levels that moved under the weights. Moves with a constant in the
            logits, as the energy does; heat does not.
        entropy_change: [...] Delta S in nats; heat = Delta S up to the third order of the change (T = 1).
        dissipation: [...] ``sum_i p_i Delta E_i - Delta F = KL(p before | p after) >= 0``: what a sudden change costs
            beyond the free energy, the second law.
    """

    energy_change: Tensor
    heat: Tensor
    work: Tensor
    entropy_change: Tensor
    dissipation: Tensor


def first_law(before: Tensor, after: Tensor, mask: Tensor | None = None) -> FirstLaw:
    """Heat and work of the change from one row of logits to another over the same keys.

    Args:
        before: [..., K] logits.
        after: [..., K] logits.
        mask: bool, broadcastable to both; which keys are states.

    Returns:
        Five tensors [...], NaN for fewer than two states.

    Example:
        >>> z = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)
        >>> law = first_law(z, z + torch.tensor([-0.05, 0.05, 0.0, 0.0], dtype=torch.float64))
        >>> [round(x.item(), 9) for x in law]
        [0.040877515, 0.021436233, 0.019441282, 0.02143082, 0.000904878]
    """
    (e0, l0, p0), (e1, l1, p1) = _state(before, mask), _state(after, mask)
    u0, u1 = (p0 * e0).sum(-1), (p1 * e1).sum(-1)
    heat = ((e0 + e1) / 2 * (p1 - p0)).sum(-1)
    work = ((p0 + p1) / 2 * (e1 - e0)).sum(-1)
    entropy = (p0 * l0).sum(-1) - (p1 * l1).sum(-1)
    # p1 - p0 adds up to nothing; with it every term is positive, so that small divergences keep their digits.
    lost = (p1 - p0 - p0 * (l1 - l0)).sum(-1).clamp(min=0)
    return FirstLaw(*(_for_two(x, before, mask) for x in (u1 - u0, heat, work, entropy, lost)))


def heat(before: Tensor, after: Tensor, mask: Tensor | None = None) -> Tensor:
    """Energy that came with weights moving between levels, ``q = sum_i mean(E_i) Delta p_i``.

    Args:
        before: [..., K] logits.
        after: [..., K] logits.
        mask: bool, broadcastable to both; which keys are states.

    Returns:
        [...]; 0 where all logits moved by one constant.

    Example:
        >>> z = torch.tensor([1.0, 0.0], dtype=torch.float64)
        >>> heat(z, z + 3).item()
        0.0
    """
    return first_law(before, after, mask).heat


def work(before: Tensor, after: Tensor, mask: Tensor | None = None) -> Tensor:
    """Energy that came with levels moving under the weights, ``w = sum_i mean(p_i) Delta E_i``.

    Args:
        before: [..., K] logits.
        after: [..., K] logits.
        mask: bool, broadcastable to both; which keys are states.

    Returns:
        [...]; -c where all logits moved by c.

    Example:
        >>> z = torch.tensor([1.0, 0.0], dtype=torch.float64)
        >>> round(work(z, z + 3).item(), 12)
        -3.0
    """
    return first_law(before, after, mask).work


def dissipation(before: Tensor, after: Tensor, mask: Tensor | None = None) -> Tensor:
    """What a sudden change of the levels costs beyond the free energy, ``KL(p before | p after) >= 0``, in nats.

    Args:
        before: [..., K] logits.
        after: [..., K] logits.
        mask: bool, broadcastable to both; which keys are states.

    Returns:
        [...].

    Example:
        >>> z = torch.zeros(2, dtype=torch.float64)
        >>> round(dissipation(z, torch.tensor([math.log(3), 0.0], dtype=torch.float64)).item(), 9)
        0.143841036
    """
    return first_law(before, after, mask).dissipation


class WorkSplit(NamedTuple):
    """Work of a change of both input and parameters, by cause; the two add up to the whole.

    Attributes:
        inference: [...] the part from the new input.
        learning: [...] the part from the new parameters.
    """

    inference: Tensor
    learning: Tensor


def work_split(
    start: Tensor, new_input: Tensor, new_parameters: Tensor, end: Tensor, mask: Tensor | None = None
) -> WorkSplit:
    """Work by cause: ``sum_i mean(p_i) Delta E_i``, with Delta E_i split between new input and new parameters.

    The levels are known at all four corners, so each cause is averaged over the two orders in which both may come:
    ``Delta_input E = ((E_new_input - E_start) + (E_end - E_new_parameters)) / 2`` and likewise for the parameters. The
    weights are the mean of start and end, as in ``first_law``, so the parts add up to its work exactly.

    Args:
        start: [..., K] logits of the old input under the old parameters.
        new_input: [..., K] of the new input under the old parameters.
        new_parameters: [..., K] of the old input under the new parameters.
        end: [..., K] of the new input under the new parameters.
        mask: bool, broadcastable to all; which keys are states, the same for both inputs.

    Returns:
        Two tensors [...], NaN for fewer than two states.

    Example:
        >>> z = torch.tensor([1.0, 0.0], dtype=torch.float64)
        >>> [round(x.item(), 12) for x in work_split(z, z + 1, z + 10, z + 11)]
        [-1.0, -10.0]
    """
    (e00, _, p00), (e10, *_), (e01, *_), (e11, _, p11) = (
        _state(z, mask) for z in (start, new_input, new_parameters, end)
    )
    p = (p00 + p11) / 2
    inference = (p * ((e10 - e00) + (e11 - e01)) / 2).sum(-1)
    learning = (p * ((e01 - e00) + (e11 - e10)) / 2).sum(-1)
    return WorkSplit(_for_two(inference, start, mask), _for_two(learning, start, mask))


def _state(z: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Energies, logarithms of the weights and weights; all 0 where the key is no state."""
    logs = log_weights(z, mask)
    p, energy = logs.exp(), -z.to(logs.dtype)
    if mask is not None:
        energy, logs = torch.where(mask, energy, 0.0), torch.where(mask, logs, 0.0)
    return energy, logs, p


def _for_two(x: Tensor, z: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None:
        return torch.where(mask.expand(z.shape).sum(-1) >= 2, x, math.nan)
    return x if z.shape[-1] >= 2 else torch.full_like(x, math.nan)
