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
MOST = 1e300  # evidence beyond is only "overwhelming"

_exp = math.exp


def init() -> list[float]:
    """Components, ``SR`` for each of ``SHIFTS``, that have seen nothing."""
    return [0.0] * len(SHIFTS)


def penalties(proxy: float) -> tuple[float, float, float, float]:
    """``exp(-v lam^2 / 2)`` for each of ``SHIFTS``, v being the variance proxy.

    Example:
        >>> [round(-2.0 * math.log(factor), 6) for factor in penalties(1.0)]
        [0.0144, 0.0625, 0.25, 1.0]
    """
    quarter = _exp(-0.03125 * proxy)
    half = quarter * quarter * quarter * quarter
    half_squared = half * half
    return _exp(-0.0072 * proxy), quarter, half, half_squared * half_squared


def update(terms: list[float], excess: float, factors: tuple[float, float, float, float]) -> float:
    """One more innovation, in place: ``SR = (1 + SR) exp(lam x) exp(-v lam^2 / 2)``.

    The last three shifts are a quarter, a half and one, so that one exponential and its powers serve them all.

    Args:
        terms: state, ``SR`` for each of ``SHIFTS``.
        excess: x, which is ``z - d`` for an upward shift and ``-z - d`` for a downward one.
        factors: from :func:`penalties`.

    Returns:
        The sum of the components.

    Example:
        With no dead band and every innovation equal to its mean, the recurrence is a geometric sum.

        >>> terms = init()
        >>> for _ in range(3):
        ...     total = update(terms, 0.5 * SHIFTS[3], penalties(1.0))  # the last factor is one
        >>> round(terms[3], 9)
        3.0
    """
    quarter = _exp(0.25 * excess)
    half = quarter * quarter
    a, b, c, d = factors
    terms[0] = first = (1.0 + terms[0]) * _exp(0.12 * excess) * a
    terms[1] = second = (1.0 + terms[1]) * quarter * b
    terms[2] = third = (1.0 + terms[2]) * half * c
    terms[3] = fourth = (1.0 + terms[3]) * half * half * d
    total = first + second + third + fourth
    if total > MOST:
        for j, value in enumerate(terms):
            terms[j] = value if value < MOST else MOST
        total = sum(terms)
    return total
