"""Mixture Shiryaev-Roberts statistic: the evidence that a change has happened at some time in the past.

For a shift ``lam`` of standardised innovations z the betting factor is ``e_t = exp(lam (z_t - d) - v lam^2 / 2)``, and

    ``SR_t = (1 + SR_{t-1}) e_t``,  ``SR_0 = 0``,

the sum over all start times of the product of factors since. When every factor has conditional mean at most one,
``SR_t - t`` is a supermartingale, so the mean time to the first crossing of A is at least A whatever the
distribution: no calibration and no simulation. A mean of such statistics over several ``lam`` and both signs keeps
the promise.

``d`` is a dead band, in which the mean may move without evidence, and ``v`` the variance proxy of the innovations.

Source: Shin, Ramdas, Rinaldo 2024, "E-detectors", New England J. Statistics in Data Science.
"""

from __future__ import annotations

import math

SHIFTS = (0.12, 0.25, 0.5, 1.0)  # in standard deviations of the innovations
NOTHING = -1e300  # logarithm of zero, as JSON has no infinity

_exp, _log1p = math.exp, math.log1p


def init() -> list[float]:
    """Logarithms of the components, one for each shift, that have seen nothing."""
    return [NOTHING] * len(SHIFTS)


def update(logs: list[float], excess: float, proxy: float) -> None:
    """One more innovation, in place.

    Args:
        logs: state, ``log SR`` for each of ``SHIFTS``.
        excess: ``z - d`` for an upward shift, ``-z - d`` for a downward one.
        proxy: variance proxy ``v``.

    Example:
        With no dead band and every innovation equal to its mean, the recurrence is a geometric sum.

        >>> logs = init()
        >>> for _ in range(3):
        ...     update(logs, 0.5 * SHIFTS[3], 1.0)  # log e = 0 for the last component
        >>> round(math.exp(logs[3]), 9)
        3.0
    """
    half = 0.5 * proxy
    for j, lam in enumerate(SHIFTS):
        old = logs[j]
        logs[j] = (_log1p(_exp(old)) if old < 30.0 else old) + lam * (excess - half * lam)


def total(*groups: list[float]) -> float:
    """Logarithm of the sum of all components of all groups.

    Example:
        >>> round(math.exp(total([0.0, 0.0], [math.log(3.0)])), 9)
        5.0
    """
    top = max(map(max, groups))
    if top <= -700.0:
        return NOTHING
    if top < 700.0:
        return math.log(sum([sum(map(_exp, group)) for group in groups]))
    return top + math.log(sum(_exp(value - top) for group in groups for value in group))
