"""The largest specific heat that a number of states allows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thermo_monitor.physics.precision import working

_TABLE = 4096
_LARGEST_TABLE = 1 << 17
_BISECTIONS = 48


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
    table = _bound_table(size, n.device, n.dtype)
    if largest is not None and largest <= size:
        return table.take(n.to(torch.int64))
    bound = table.take(n.clamp(0, size).to(torch.int64))
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
