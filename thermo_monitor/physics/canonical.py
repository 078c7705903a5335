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
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from thermo_monitor.physics.precision import working

_SHORT = 16
"""Rows up to this length are reduced across rows, not along them: a row is then shorter than a vector register."""

CPU_BLOCK = 1 << 18
_DEVICE_BLOCK = 1 << 26
"""Numbers that are worked on at once: on the host what the cache holds, on a device what its memory can spare."""

_TABLE = 4096
_LARGEST_TABLE = 1 << 17
_BISECTIONS = 48


class RowStatistics(NamedTuple):
    """What one pass over the logits leaves of each row; all quantities of a row follow from it.

    Attributes:
        n: [...] number of unmasked keys, in the dtype of the logits.
        log_partition: [...] ln Z = logsumexp(z), nats; n >= 1.
        mean_logit: [...] <z> = sum_i p_i z_i; n >= 1.
        entropy: [...] S = -sum_i p_i ln p_i, nats; n >= 2.
        specific_heat: [...] C = sum_i p_i (z_i - <z>)^2; n >= 2.
        plain_mean: [...] mean of z over the keys; n >= 1.
        plain_variance: [...] variance of z over the keys, ddof 0; n >= 2.
        max_logit: [...] largest z; n >= 1.
        keys: K, an upper limit of n that is known without reading the device.
    """

    n: Tensor
    log_partition: Tensor
    mean_logit: Tensor
    entropy: Tensor
    specific_heat: Tensor
    plain_mean: Tensor
    plain_variance: Tensor
    max_logit: Tensor
    keys: int


def row_statistics(
    z: Tensor, mask: Tensor | None = None, *, leading: int = 0, scratch: tuple[Tensor, ...] | None = None
) -> RowStatistics:
    """All moments of the rows in one pass.

    Moments are taken of ``d = z - max z``, and the second ones are centred before they are squared, so that a large
    constant in the logits costs no digits beyond those that the logits themselves have lost to it.

    Args:
        z: [..., K] logits, any float dtype; float64 is kept, others are taken to float32.
        mask: bool, broadcastable to z; True: the key is a state. None: all are.
        leading: the first so many keys are states of every row, and the mask is that of the others only: masking is
            half of the work, and rows of a causal attention that stand close together share most of their keys.
        scratch: two tensors of the shape and type of z to work in. Then z is overwritten, and no memory of its size is
            asked for, which on the host costs more than the arithmetic.

    Returns:
        Statistics of shape [...].

    Example:
        >>> row = row_statistics(torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64))
        >>> [round(x.item(), 9) for x in (row.log_partition, row.mean_logit, row.entropy, row.specific_heat)]
        [2.440189699, 1.492652735, 0.947536964, 0.616586275]
        >>> row.plain_mean.item(), row.plain_variance.item(), row.max_logit.item(), row.n.item()
        (0.5, 1.25, 2.0, 4.0)
    """
    if scratch is None and z.numel() > (CPU_BLOCK if z.device.type == "cpu" else _DEVICE_BLOCK):
        axis = next((i - z.dim() for i, size in enumerate(z.shape[:-1]) if size > 1), None)
        if axis is not None:
            return _blockwise(z, mask, axis, leading)
    z = working(z)
    rows, keys, dim = z.shape[:-1], z.shape[-1], -1
    if keys == 0:
        nan = z.new_full(rows, math.nan)
        return RowStatistics(z.new_zeros(rows), nan, nan, nan, nan, nan, nan, nan, keys)
    others = keys - leading  # keys that the mask is about
    if mask is not None:
        mask = mask.expand(*mask.shape[:-1], others)
    if keys <= _SHORT:
        z, dim, scratch = z.movedim(-1, 0).contiguous(), 0, None
        if mask is not None:
            mask = mask[(None,) * (z.dim() - mask.dim())].movedim(-1, 0)
    # Finite, so that a masked key times a zero is a zero; far enough below any logit to have no weight.
    fill = torch.finfo(z.dtype).min / 4
    if mask is None:
        present = None
        n = z.new_full((), keys).expand(rows)
    else:
        present = mask.to(z.dtype)
        n = leading + present.sum(dim).expand(rows)
        unsure = z.narrow(dim, leading, others)
        if scratch is not None:
            torch.where(mask, unsure, unsure.new_full((), fill), out=unsure)
        else:
            unsure = torch.where(mask, unsure, fill)
            z = torch.cat([z.narrow(dim, 0, leading), unsure], dim) if leading else unsure

    top = z.amax(dim)
    # Where results go that are needed no longer than to the end of this function. A derivative needs them longer.
    place, place_p, place_c = (z, *scratch) if scratch is not None else (None, None, None)
    reuse = scratch is not None or not (torch.is_grad_enabled() and z.requires_grad)
    d = torch.sub(z, top.unsqueeze(dim), out=place)
    p = torch.softmax(d, dim, out=place_p)
    # The weights of a long row add up to 1 only as well as they were added in single precision; this sum is better.
    total = p.sum(dim)
    log_total = (total / p.amax(dim)).log()  # the largest weight is 1 / sum_i e^(d_i)
    if present is not None:
        d.narrow(dim, leading, others).mul_(present)
    plain = d.sum(dim) / n
    centred = torch.sub(d, plain.unsqueeze(dim), out=place_c)
    if present is not None:
        centred.narrow(dim, leading, others).mul_(present)
    variance = torch.mul(centred, centred, out=centred if reuse else None).sum(dim) / n
    mean = torch.mul(p, d, out=centred if reuse else None).sum(dim) / total
    centred = torch.sub(d, mean.unsqueeze(dim), out=centred if reuse else None)
    first = torch.mul(p, centred, out=p if reuse else None)
    heat = torch.mul(first, centred, out=first if reuse else None).sum(dim) / total
    plain = torch.where(plain.isfinite(), plain, math.nan)
    entropy = log_total - mean

    if present is None:
        if keys < 2:
            entropy, heat, variance = (torch.full_like(x, math.nan) for x in (entropy, heat, variance))
    else:
        # A row whose allowed logits are all -inf has no state of finite energy.
        top = torch.where((n >= 1) & (top != fill), top, math.nan)
        entropy, heat, variance = (torch.where(n >= 2, x, math.nan) for x in (entropy, heat, variance))
    return RowStatistics(n, top + log_total, top + mean, entropy, heat, top + plain, variance, top, keys)


def concatenate(parts: Sequence[RowStatistics], dim: int) -> RowStatistics:
    """Statistics of several sets of rows as one, along a dimension of the rows."""
    if len(parts) == 1:
        return parts[0]
    tensors = zip(*(part[:-1] for part in parts), strict=True)
    n, log_z, mean, entropy, heat, plain, variance, top = (torch.cat(pieces, dim) for pieces in tensors)
    return RowStatistics(n, log_z, mean, entropy, heat, plain, variance, top, max(part.keys for part in parts))


def _blockwise(z: Tensor, mask: Tensor | None, axis: int, leading: int) -> RowStatistics:
    """The statistics of blocks of rows, put together again.

    ``axis`` counts from the end, because the mask may have fewer dimensions.
    """
    block = CPU_BLOCK if z.device.type == "cpu" else _DEVICE_BLOCK
    blocks = min(z.shape[axis], -(-z.numel() // block))
    z_blocks = z.chunk(blocks, axis)
    mask_blocks: list[Tensor | None] = [mask] * len(z_blocks)
    if mask is not None and mask.dim() >= -axis and mask.shape[axis] > 1:
        mask_blocks = list(mask.chunk(blocks, axis))
    parts = [row_statistics(a, b, leading=leading) for a, b in zip(z_blocks, mask_blocks, strict=True)]
    return concatenate(parts, axis + 1)


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


def specific_heat_bound(n: Tensor, largest: int | None = None) -> Tensor:
    """Largest specific heat that a distribution over n states can have, ``C_max(n)``.

    Reached by one state above n - 1 equal ones with gap x: ``p = 1/(1 + (n-1) e^-x)``, ``x (2p - 1) = 2``,
    ``C_max = p (1 - p) x^2 <= ln^2(n-1)/4 + 1`` (Reeb & Wolf 2015, arXiv:1304.0036).

    Args:
        n: [...] numbers of states, whole numbers in any dtype.
        largest: an upper limit of n, if one is known: up to 131072 the values then come from a table that is
            made once per device, which spares the search for the root for n > 4096.

    Returns:
        [...] in the dtype of n, or float32 if n holds integers; 0 for n = 1, NaN for n = 0.

    Example:
        >>> [round(c, 6) for c in specific_heat_bound(torch.tensor([2.0, 4.0, 50257.0], dtype=torch.float64)).tolist()]
        [0.439229, 1.023491, 30.2836]
    """
    n = working(n)
    size = _TABLE
    while largest is not None and size < largest and size < _LARGEST_TABLE:
        size *= 2
    bound = _bound_table(size, n.device, n.dtype)[n.clamp(0, size).to(torch.int64)]
    if largest is not None and largest <= size:
        return bound
    return torch.where(n > size, _solve_bound(n.clamp(min=size)), bound)


def _solve_bound(n: Tensor) -> Tensor:
    """C_max(n) by bisection of ``x (2p - 1) = 2`` on [2, 4 + ln n], with a fixed number of steps."""
    others = (n - 1).log()
    low, high = torch.full_like(n, 2.0), 4.0 + n.log()
    for _ in range(_BISECTIONS):
        x = (low + high) / 2
        above = x * (2 * torch.sigmoid(x - others) - 1) > 2
        low, high = torch.where(above, low, x), torch.where(above, x, high)
    x = (low + high) / 2
    return x * x * torch.sigmoid(x - others) * torch.sigmoid(others - x)


_bound_tables: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}


def _bound_table(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """C_max(0) ... C_max(size), solved in float64 on the host and kept on the device from then on."""
    key = (size, device, dtype)
    if key not in _bound_tables:
        with torch.inference_mode(False), torch.no_grad():
            table = _solve_bound(torch.arange(size + 1, dtype=torch.float64))
            table[:2] = torch.tensor([math.nan, 0.0])
            _bound_tables[key] = table.to(device=device, dtype=dtype)
    return _bound_tables[key]
