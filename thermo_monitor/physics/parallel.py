"""Parallel generations as an ensemble: one run may be sure of its next token while the runs together are not.

Input ``z [..., B, V]``: logits of the next token of B runs at one position, at the temperature that is applied (what is
cut off is -inf). With p_b = softmax(z_b) and pbar = mean_b p_b,

    conditional entropy  mean_b H(p_b)  <=  marginal entropy  H(pbar),

and their gap is the mean divergence of the runs from their mean, the Jensen-Shannon divergence, which is the mutual
information of run and token: at most ln B. Entropies in nats. (The two entropies: the blog "Physics of Language",
November 2025; gap, bias and derivative are standard.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thermo_monitor.physics.precision import working


def _p(z: Tensor) -> Tensor:
    return working(z).softmax(-1)


def _entropy(p: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(p).sum(-1)
    return entropy


def conditional_entropy(z: Tensor) -> Tensor:
    """Mean entropy of the prediction of a run, ``mean_b H(p_b)``.

    Args:
        z: [..., B, V] logits.

    Returns:
        [...] in [0, ln V].

    Example:
        >>> z = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64).log()
        >>> round(conditional_entropy(z).item(), 6)
        0.346574
    """
    return _entropy(_p(z)).mean(-1)


def marginal_entropy(z: Tensor) -> Tensor:
    """Entropy of the mean prediction, ``H(mean_b p_b)``: what is known of the next token without knowing the run.

    As an estimate of the value for infinitely many runs it is too low, to first order by
    ``sum_v Var_b p_b(v) / (2 B pbar(v))``: see :func:`jackknife_marginal_entropy`.

    Args:
        z: [..., B, V] logits.

    Returns:
        [...] in [0, ln V].

    Example:
        >>> one_hot = torch.eye(5, dtype=torch.float64).log()
        >>> abs(marginal_entropy(one_hot).item() - math.log(5)) < 1e-12
        True
    """
    return _entropy(_p(z).mean(-2))


def ensemble_gap(z: Tensor) -> Tensor:
    """Marginal less conditional entropy: mean divergence of a run from the mean of the runs.

    Args:
        z: [..., B, V] logits.

    Returns:
        [...] in [0, min(ln B, ln V)], 0 for one run.

    Example:
        >>> z = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64).log()
        >>> round(ensemble_gap(z).item(), 6)
        0.215762
    """
    p = _p(z)
    return (_entropy(p.mean(-2)) - _entropy(p).mean(-1)).clamp(min=0)


def jackknife_marginal_entropy(z: Tensor) -> tuple[Tensor, Tensor]:
    """Marginal entropy without its bias of order 1/B, ``B H - (B - 1) mean_b H_(-b)``, and its standard error.

    ``H_(-b)`` leaves out one run; the error is ``sqrt((B - 1)/B sum_b (H_(-b) - mean)^2)``
    (Quenouille 1956, Tukey 1958); the error is too large on average (Efron & Stein 1981), by a third for ten runs that
    all differ and together are nearly uniform.

    Args:
        z: [..., B, V] logits, in runs that are independent of each other.

    Returns:
        [...] the estimate, which may exceed ln V by a little, and [...] its standard error; NaN for one run.

    Example:
        >>> z = torch.zeros(4, 3, dtype=torch.float64)
        >>> [round(x.item(), 6) for x in jackknife_marginal_entropy(z)]
        [1.098612, 0.0]
    """
    p = _p(z)
    runs = p.shape[-2]
    if runs < 2:
        nan = torch.full(p.shape[:-2], math.nan, dtype=p.dtype, device=p.device)
        return nan, nan
    total = p.sum(-2, keepdim=True)
    left_out = _entropy(((total - p) / (runs - 1)).clamp(min=0))
    mean = left_out.mean(-1)
    spread = (left_out - mean.unsqueeze(-1)).square().sum(-1)
    return runs * _entropy(p.mean(-2)) - (runs - 1) * mean, ((runs - 1) / runs * spread).sqrt()


def marginal_entropy_slope(z: Tensor) -> Tensor:
    """Derivative of the marginal entropy with respect to ln T, at the temperature that is applied.

    ``-(1/B) sum_b sum_v p_b(v) (<z>_b - z_b(v)) ln pbar(v)``; for one run this is its specific heat. Unlike that, it
    may be negative: warmer runs may agree more.

    Args:
        z: [..., B, V] logits.

    Returns:
        [...] nats.

    Example:
        >>> z = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
        >>> round(marginal_entropy_slope(z).item(), 9)
        0.616586275
    """
    z = working(z)
    p = z.softmax(-1)
    log_mean = p.mean(-2, keepdim=True).log()
    some = p > 0
    energy = torch.where(some, z, 0.0)
    lift = (p * energy).sum(-1, keepdim=True) - energy
    return -torch.where(some, p * lift * log_mean, 0.0).sum(-1).mean(-1)


def logit_variance(y: Tensor) -> Tensor:
    """Mean over runs of the variance of the logits over the vocabulary (ddof 0), a cheap companion of the entropies.

    No exponential is taken. It is unweighted, so that it follows the scale of all logits, the hopeless ones included.

    Args:
        y: [..., B, V] logits; those that are -inf take no part.

    Returns:
        [...] squared logits.

    Example:
        >>> logit_variance(torch.tensor([[1.0, 1.0, -1.0, -1.0]])).item()
        1.0
    """
    y = working(y)
    some = y > -math.inf
    count = some.sum(-1, keepdim=True)
    y = torch.where(some, y, 0.0)
    centred = torch.where(some, y - y.sum(-1, keepdim=True) / count, 0.0)
    return (centred.square().sum(-1, keepdim=True) / count).squeeze(-1).mean(-1)
