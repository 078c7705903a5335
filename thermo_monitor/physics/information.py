"""How far two distributions over the same states are apart, and what a path of them costs.

Softmax rows are points of a simplex whose natural length is that of Fisher and Rao: the square roots of the weights lie
on a sphere of radius 2 (after a factor), and the distance is an arc on it. A row that moves with training, or with
depth taken as time, has a speed, a kinetic term, a length and a cost.

Lengths, divergence and the distance are standard mathematics. That attention moves on this manifold, with depth as
time and a Lagrangian of kinetic term minus free energy, is the picture of Kim 2026, arXiv:2602.08216, whose definitions
are not public to us: mass, sign and gauge of the Lagrangian here are choices of ours, a reconstruction.

Shapes: ``[...]`` rows, K states. Distances are taken in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thermo_monitor.physics.canonical import free_energy_gap
from thermo_monitor.physics.precision import accumulator


def weights(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Boltzmann weights of rows of logits, ``p = softmax(z)``, in float64.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state. Others have the weight 0, whatever is stored there.

    Returns:
        [..., K]; NaN for a row without states.

    Example:
        >>> weights(torch.tensor([0.0, 0.0, 7.0]), torch.tensor([True, True, False])).tolist()
        [0.5, 0.5, 0.0]
    """
    return log_weights(z, mask).exp()


def log_weights(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logarithms of the weights, in float64; -inf where the key is no state.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [..., K]; NaN for a row without states.

    Example:
        >>> log_weights(torch.zeros(2)).exp().tolist()
        [0.5, 0.5]
    """
    z = z.to(accumulator(z.device))
    return torch.log_softmax(z if mask is None else torch.where(mask, z, -math.inf), -1)


def fisher_rao_distance(p: Tensor, q: Tensor, mask: Tensor | None = None) -> Tensor:
    """Length of the shortest path between two distributions, ``d = 4 asin(|sqrt p - sqrt q| / 2)``, in radians.

    The same as ``2 arccos sum_i sqrt(p_i q_i)``, which loses all digits where the two are close. Close by,
    ``d^2 = 2 KL(p | q)``; total variation is at most ``sin(d/2)``. Standard (Rao 1945).

    Args:
        p: [..., K] weights that add up to 1.
        q: the same for the other distribution, with weight on the same states at most.
        mask: bool, broadcastable to p; which keys are states. Only needed to tell rows with fewer than two.

    Returns:
        [...] float64 in [0, pi]: 0 for equal distributions, pi for disjoint ones; NaN where the row has fewer than two
        states or a weight is not a number.

    Example:
        >>> half, other = torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.25])
        >>> round(math.pi / fisher_rao_distance(half, other).item(), 6)
        6.0
    """
    high = accumulator(p.device)
    p, q = p.to(high), q.to(high)
    if mask is not None:
        p, q = torch.where(mask, p, 0.0), torch.where(mask, q, 0.0)
    chord = torch.linalg.vector_norm(p.sqrt() - q.sqrt(), dim=-1)
    # Rounded weights of disjoint distributions may lie a hair beyond the quarter of the circle.
    d = (4 * torch.asin((chord / 2).clamp(max=1))).clamp(max=math.pi)
    if mask is not None:
        return torch.where(mask.sum(-1) >= 2, d, math.nan)
    return d if p.shape[-1] >= 2 else torch.full_like(d, math.nan)


def kinetic(distance: Tensor, steps: float = 1.0) -> Tensor:
    """Kinetic term of a move, ``d^2 / (2 k^2)``, in nats per step squared.

    Half the square of the speed ``d/k``; close by it is the divergence between the two distributions over k^2.

    Args:
        distance: [...] Fisher-Rao distance of the move.
        steps: k, how much time it took: optimizer steps, or 1 from one layer to the next.

    Returns:
        [...].

    Example:
        >>> kinetic(torch.tensor(0.5), steps=5).item()
        0.004999999888241291
    """
    return distance.square() / (2 * steps * steps)


def kinetic_depth(p: Tensor, q: Tensor, mask: Tensor | None = None) -> Tensor:
    """Kinetic term from one layer to the next, depth as time: ``d(mean_h p, mean_h q)^2 / 2``.

    Heads of different layers do not correspond to each other, so their mean is what moves. A reconstruction: Kim 2026,
    arXiv:2602.08216, names depth as time.

    Args:
        p: [B, H, Q, K] weights of a layer.
        q: [B, H', Q, K] weights of the next one.
        mask: bool, broadcastable to [B, Q, K]; which keys are states.

    Returns:
        [B, Q]; 0 where the two maps are the same.

    Example:
        >>> p = torch.full((1, 2, 1, 4), 0.25)
        >>> kinetic_depth(p, p).tolist()
        [[0.0]]
    """
    high = accumulator(p.device)
    return kinetic(fisher_rao_distance(p.to(high).mean(1), q.to(high).mean(1), mask))


def lagrangian(
    before: Tensor, after: Tensor, mask: Tensor | None = None, *, steps: float = 1.0, mass: float = 1.0
) -> Tensor:
    """A candidate for the Lagrangian of a moving row: kinetic term minus free energy, ``m d^2/(2 k^2) + gap``.

    The free energy enters as ``-F`` made free of its gauge, ``gap = ln Z - mean z - ln n`` of the row after the move.
    At rest it is stationary at the softmax: ``<z> + S`` has its maximum, ln Z, there. Mass, sign and gauge are choices
    of ours; the definition of Kim 2026, arXiv:2602.08216, is not public to us.

    Args:
        before: [..., K] logits.
        after: [..., K] logits of the same row after the move.
        mask: bool, broadcastable to both; which keys are states.
        steps: how much time the move took.
        mass: factor on the kinetic term.

    Returns:
        [...] in nats, >= 0; NaN with fewer than two states.

    Example:
        >>> z = torch.tensor([1.0, 0.0], dtype=torch.float64)
        >>> round(lagrangian(z, z).item(), 9)  # at rest: the free-energy gap
        0.120114507
    """
    d = fisher_rao_distance(weights(before, mask), weights(after, mask), mask)
    return mass * kinetic(d, steps) + free_energy_gap(after.to(d.dtype), mask)


def thermodynamic_length(distances: Tensor) -> Tensor:
    """Length of a path, ``Lc = sum_t d_t``, in radians (Crooks 2007, arXiv:0706.0559).

    At least the distance of its ends. It grows with the resolution: noise in each point adds a part that grows as the
    number of points, so lengths compare only at equal stride, and one is best given for two strides.

    Args:
        distances: [N, ...] of consecutive points.

    Returns:
        [...].

    Example:
        >>> thermodynamic_length(torch.tensor([0.5, 0.25])).item()
        0.75
    """
    return distances.sum(0)


def thermodynamic_divergence(distances: Tensor) -> Tensor:
    """Cost of a path in N moves, ``J = N sum_t d_t^2 >= Lc^2`` (Crooks 2007, arXiv:0706.0559).

    Proportional to what would be dissipated if every move were a sudden change followed by equilibration.

    Args:
        distances: [N, ...] of consecutive points.

    Returns:
        [...] in radians squared.

    Example:
        >>> thermodynamic_divergence(torch.tensor([0.5, 0.25])).item()
        0.625
    """
    return len(distances) * distances.square().sum(0)


def path_efficiency(length: Tensor, divergence: Tensor) -> Tensor:
    """How evenly a path is walked, ``Lc^2 / J``: 1 at constant speed, 1/N where one of N moves is the whole path.

    Args:
        length: [...] of the path.
        divergence: [...] of the same path.

    Returns:
        [...] in (0, 1]; NaN for a path that never moved.

    Example:
        >>> d = torch.tensor([0.5, 0.25])
        >>> round(path_efficiency(thermodynamic_length(d), thermodynamic_divergence(d)).item(), 6)
        0.9
    """
    return torch.where(divergence > 0, length.square() / divergence, math.nan)
