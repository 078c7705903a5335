"""The temperature at which the marginal entropy of parallel runs has a given value.

The marginal entropy is not monotone in the temperature: Newton steps are taken only inside a bracket with a positive
derivative. Of several roots the one nearest to the temperature before is taken; if there is none, the temperature that
comes nearest is, and the position is marked ``unreachable``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from thermo_monitor.physics.parallel import marginal_entropy, marginal_entropy_slope

COLDEST, HOTTEST = 0.05, 20.0
_STRIDE = 0.1  # of the search for a bracket, in ln T: two roots that are closer may be missed
_TOLERANCE = 1e-10
_MOST = 60  # steps to a root


@dataclass(frozen=True, slots=True)
class Solution:
    """A temperature for a target.

    Attributes:
        temperature: found.
        entropy: marginal entropy there, nats.
        unreachable: no temperature between ``COLDEST`` and ``HOTTEST`` gives the target (as far as steps of a tenth in
            ln T can tell); then this one comes nearest.
    """

    temperature: float
    entropy: float
    unreachable: bool


def solve_temperature(y: Tensor, target: float, start: float = 1.0) -> Solution:
    """The temperature nearest to ``start``, in ln T, at which the marginal entropy of runs has the target value.

    Args:
        y: [B, V] logits of the runs at temperature 1; -inf is no state.
        target: H*, nats.
        start: temperature at which the search begins.

    Returns:
        The solution, to 1e-10 nats in float64.

    Raises:
        ValueError: if the target is no positive number, or ``start`` is out of bounds.

    Example:
        >>> import torch
        >>> y = torch.tensor([[2.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
        >>> round(solve_temperature(y, 1.2).temperature, 6), solve_temperature(y, 1.5).unreachable
        (1.711715, True)
    """
    if not (math.isfinite(target) and target > 0):
        raise ValueError(f"target={target}: give a positive entropy in nats")
    if not COLDEST <= start <= HOTTEST:
        raise ValueError(f"start={start}: give a temperature between {COLDEST} and {HOTTEST}")
    y = y.double() if y.device.type != "mps" else y.float()
    middle = math.log(start)

    def excess(a: float) -> float:
        return float(marginal_entropy(y * math.exp(-a))) - target

    low, high = math.log(COLDEST), math.log(HOTTEST)
    right = left = (middle, excess(middle))
    if abs(right[1]) <= _TOLERANCE:
        return Solution(start, right[1] + target, False)
    best = right
    while right[0] < high or left[0] > low:
        found = []
        if right[0] < high:
            last, at = right, min(right[0] + _STRIDE, high)
            right = (at, excess(at))
            if last[1] * right[1] <= 0:
                found.append(_root(y, target, last, right))
        if left[0] > low:
            last, at = left, max(left[0] - _STRIDE, low)
            left = (at, excess(at))
            if last[1] * left[1] <= 0:
                found.append(_root(y, target, left, last))
        if found:
            a, h = min(found, key=lambda x: abs(x[0] - middle))
            return Solution(math.exp(a), h, False)
        best = min((best, right, left), key=lambda x: abs(x[1]))
    return Solution(math.exp(best[0]), best[1] + target, True)


def _root(y: Tensor, target: float, low: tuple[float, float], high: tuple[float, float]) -> tuple[float, float]:
    """Ln T and entropy at a root between two temperatures with excesses of different sign."""
    (a, fa), (b, fb) = low, high
    x, fx = (a, fa) if abs(fa) < abs(fb) else (b, fb)
    for _ in range(_MOST):
        if abs(fx) <= _TOLERANCE or b - a < 1e-14:
            break
        slope = float(marginal_entropy_slope(y * math.exp(-x)))
        step = x - fx / slope if slope > 0 else math.nan
        x = step if a < step < b else (a + b) / 2  # where entropy falls with temperature Newton would walk away
        fx = float(marginal_entropy(y * math.exp(-x))) - target
        if fx * fb > 0:
            b, fb = x, fx
        else:
            a, fa = x, fx
    return x, fx + target
