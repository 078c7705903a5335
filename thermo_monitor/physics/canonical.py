"""Softmax as a canonical ensemble: the thermodynamics of one row of logits.

A row is one softmax: ``z [..., K]`` are its logits, key i is a microstate of energy ``-z_i`` at temperature 1, and
``p = softmax(z)`` is the Boltzmann distribution. Masked keys are not states: they take no part in any sum, whatever
value is stored there. Everything is in reduced units with k_B = 1, entropies in nats.

The energies are known up to a constant (adding one vector to all keys shifts a row): ``log_partition``,
``internal_energy``, ``free_energy`` and ``max_logit`` move with it and are not to be compared between heads or steps;
all other functions here do not.

Undefined is NaN: every function for a row without keys, and for a row with one key all functions that describe how
something is distributed over the keys. A logit of an allowed key that is not finite makes its row NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from thermo_monitor.physics.bound import specific_heat_bound as specific_heat_bound
from thermo_monitor.physics.rows import RowStatistics as RowStatistics
from thermo_monitor.physics.rows import row_statistics as row_statistics


def _for_two(row: RowStatistics, x: Tensor) -> Tensor:
    """NaN where fewer than two keys are left, so that there is nothing to distribute."""
    return torch.where(row.n >= 2, x, math.nan)


def _energy_gap(row: RowStatistics) -> Tensor:
    return _for_two(row, (row.mean_logit - row.plain_mean).clamp(min=0))


def _free_energy_gap(row: RowStatistics) -> Tensor:
    return _for_two(row, (row.log_partition - row.plain_mean - row.n.log()).clamp(min=0))


def _specific_heat_norm(row: RowStatistics) -> Tensor:
    return (row.specific_heat / specific_heat_bound(row.n, row.keys)).clamp(max=1)


ROW_QUANTITIES: dict[str, Callable[[RowStatistics], Tensor]] = {
    "log_partition": lambda row: row.log_partition,
    "internal_energy": lambda row: -row.mean_logit,
    "entropy": lambda row: row.entropy,
    "free_energy": lambda row: -row.log_partition,
    "specific_heat": lambda row: row.specific_heat,
    "specific_heat_norm": _specific_heat_norm,
    "specific_heat_row": lambda row: row.plain_variance,
    "energy_gap": _energy_gap,
    "free_energy_gap": _free_energy_gap,
    "entropy_fraction": lambda row: (row.entropy / row.n.log()).clamp(max=1),
    "n_eff": lambda row: row.entropy.exp(),
    "max_logit": lambda row: row.max_logit,
    "p_max": lambda row: (row.max_logit - row.log_partition).exp(),
    "logit_std": lambda row: row.plain_variance.sqrt(),
    "freezing_ratio": lambda row: (row.plain_variance / (2 * row.n.log())).sqrt(),
}
"""Every quantity of a row as a function of its statistics, under its key in the registry without ``attn/``."""


def _quantity(name: str, z: Tensor, mask: Tensor | None) -> Tensor:
    return ROW_QUANTITIES[name](row_statistics(z, mask))


def log_partition(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logarithm of the partition function, ``ln Z = logsumexp_i z_i``, in nats.

    The generating function of the ensemble: its derivatives with respect to a factor on the logits are the mean and
    the variance of the energy. Adding c to a row adds c.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...]; NaN without keys.

    Example:
        >>> round(log_partition(torch.zeros(4, dtype=torch.float64)).item(), 9)
        1.386294361
    """
    return _quantity("log_partition", z, mask)


def internal_energy(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean energy of the ensemble, ``U = -sum_i p_i z_i``, in units of the logits.

    Adding c to a row subtracts c, so compare ``energy_gap`` between rows, never this.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...]; NaN without keys.

    Example:
        >>> round(internal_energy(torch.tensor([1.0, 0.0], dtype=torch.float64)).item(), 9)
        -0.731058579
    """
    return _quantity("internal_energy", z, mask)


def entropy(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Entropy of the weights, ``S = -sum_i p_i ln p_i = ln Z + U``, in nats.

    How many keys share the weight, as a logarithm: 0 when one takes all, ln n when all n have the same.
    Shannon-Boltzmann entropy of attention: Kim 2026, arXiv:2602.08216.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...]; NaN with fewer than two keys, which leave nothing to share.

    Example:
        >>> round(entropy(torch.tensor([1.0, 0.0], dtype=torch.float64)).item(), 9)
        0.582203109
    """
    return _quantity("entropy", z, mask)


def free_energy(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Helmholtz free energy at temperature 1, ``F = U - S = -ln Z``, in units of the logits.

    Softmax is the distribution that minimises it: F[p'] - F[p] = KL(p' | p) >= 0 for every other p'
    (Kim 2026, arXiv:2602.08216). Moves with a constant in the logits.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...]; NaN without keys.

    Example:
        >>> round(free_energy(torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)).item(), 9)
        -2.440189699
    """
    return _quantity("free_energy", z, mask)


def specific_heat(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Specific heat, variant A: ``C = sum_i p_i (z_i - <z>)^2 = dU/dT = T dS/dT``, a pure number.

    How strongly the weights would answer to a change of temperature, and the Fisher information about ln T that one
    draw from p carries. 0 for a uniform row and for a frozen one, with a maximum between: a row that only sharpens
    passes through it, so a peak is to be read beside ``freezing_ratio``. The unweighted variances of the logits that
    circulate under the same name are ``specific_heat_pooled`` and ``specific_heat_row``; they have no such maximum.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...], between 0 and ``specific_heat_bound(n)``; NaN with fewer than two keys.

    Example:
        Two states with gap x: p (1 - p) x^2, Schottky's anomaly.

        >>> round(specific_heat(torch.tensor([1.0, 0.0], dtype=torch.float64)).item(), 9)
        0.196611933
    """
    return _quantity("specific_heat", z, mask)


def energy_gap(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """By how much the attended keys beat the average one, ``<z> - mean_i z_i >= 0``, in units of the logits.

    The form of the internal energy that does not move with a constant in the logits. 0 for a uniform row.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...]; NaN with fewer than two keys.

    Example:
        >>> round(energy_gap(torch.tensor([1.0, 0.0], dtype=torch.float64)).item(), 9)
        0.231058579
    """
    return _quantity("energy_gap", z, mask)


def free_energy_gap(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Divergence of the uniform distribution from the weights, ``ln Z - mean_i z_i - ln n = KL(1/n | p)``, in nats.

    The form of the free energy that does not move with a constant in the logits. 0 for a uniform row.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...]; NaN with fewer than two keys.

    Example:
        >>> round(free_energy_gap(torch.tensor([1.0, 0.0], dtype=torch.float64)).item(), 9)
        0.120114507
    """
    return _quantity("free_energy_gap", z, mask)


def entropy_fraction(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Entropy as a share of its largest value, ``S / ln n``: 1 for a uniform row, 0 when one key takes all.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...] in [0, 1]; NaN with fewer than two keys.

    Example:
        >>> round(entropy_fraction(torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)).item(), 9)
        0.683503439
    """
    return _quantity("entropy_fraction", z, mask)


def n_eff(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Effective number of keys that share the weight, ``exp(S)``.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...] in [1, n]; NaN with fewer than two keys.

    Example:
        >>> round(n_eff(torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)).item(), 9)
        2.5793488
    """
    return _quantity("n_eff", z, mask)


def p_max(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Weight of the most attended key, ``exp(max z - ln Z)``.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...] in [1/n, 1]; NaN without keys.

    Example:
        >>> round(p_max(torch.tensor([1.0, 0.0], dtype=torch.float64)).item(), 9)
        0.731058579
    """
    return _quantity("p_max", z, mask)


def logit_std(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Spread of the logits of a row: standard deviation over the keys, ddof 0.

    The inverse of the reduced temperature of one row. A head's reduced temperature is the inverse of the mean of this
    over rows: average first, then invert.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...]; NaN with fewer than two keys.

    Example:
        >>> logit_std(torch.tensor([1.0, 1.0, -1.0, -1.0])).item()
        1.0
    """
    return _quantity("logit_std", z, mask)


def freezing_ratio(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Spread of the logits over the spread at which n random energies freeze, ``s / sqrt(2 ln n)``.

    Above 1 a few keys carry the weight and the specific heat falls as the row sharpens further (random-energy model:
    Derrida 1981; for softmax attention: Giorlandino & Goldt 2025, arXiv:2505.24333).

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...]; NaN with fewer than two keys.

    Example:
        >>> z = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
        >>> round(1 / freezing_ratio(z).item(), 4)
        1.6651
    """
    return _quantity("freezing_ratio", z, mask)


def specific_heat_norm(z: Tensor, mask: Tensor | None = None) -> Tensor:
    """Specific heat as a share of the largest value that n keys allow, ``C / C_max(n)``.

    Args:
        z: [..., K] logits.
        mask: bool, broadcastable to z; True: the key is a state.

    Returns:
        [...] in [0, 1]; NaN with fewer than two keys.

    Example:
        >>> round(specific_heat_norm(torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)).item(), 9)
        0.602434749
    """
    return _quantity("specific_heat_norm", z, mask)
