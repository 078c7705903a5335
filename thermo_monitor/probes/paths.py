"""The way that the attention rows of one layer go through training, on the device: what is kept of the last reading."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from thermo_monitor.physics import (
    first_law,
    fisher_rao_distance,
    free_energy_gap,
    path_efficiency,
    weights,
    work_split,
)

ROWS = (
    "distance", "square", "gap", "length", "coarse", "divergence", "efficiency", "heat", "work", "dissipation",
    "inference", "learning",
)  # fmt: skip
"""What is read of each row, in the order in which it is sent."""


class Path:
    """Logits of the last reading of some rows, and sums along the way.

    The rows are those of a fixed batch, so keys and masks are the same each time; where they are not, a row does not
    count.

    Args:
        z: [B, H, R, K] logits of the first reading.
        mask: [B, H, R, K], which keys are states, or None.
    """

    def __init__(self, z: Tensor, mask: Tensor | None) -> None:
        self._z, self._mask = z, mask
        self._coarse = z  # of every second reading
        self._moves = 0
        self._length: Tensor | None = None
        self._coarse_length: Tensor | None = None
        self._squares: Tensor | None = None

    def fits(self, z: Tensor, mask: Tensor | None) -> bool:
        """Whether a reading is one of the same rows."""
        return self._z.shape == z.shape and (self._mask is None) == (mask is None)

    def move(self, z: Tensor, mask: Tensor | None, valid: Tensor | None) -> Tensor:
        """A further reading.

        Args:
            z: [B, H, R, K] logits.
            mask: [B, H, R, K], which keys are states, or None.
            valid: bool, broadcastable to [B, H, R], or None: which rows are no padding.

        Returns:
            [len(ROWS), 2, H] number of rows that count and sum over them.
        """
        before, old = self._z, self._mask
        self._z = z
        n = z.shape[-1] if mask is None else mask.sum(-1)
        keep = torch.ones_like(z[..., 0], dtype=torch.bool) & (n >= 2 if valid is None else (n >= 2) & valid)
        if mask is not None and old is not None:
            keep = keep & (mask == old).all(-1)
        d = fisher_rao_distance(weights(before, mask), weights(z, mask), mask)
        square = d.square()
        self._moves += 1
        self._length = _added(self._length, d)
        self._squares = _added(self._squares, square)
        if self._moves % 2 == 0:
            far = fisher_rao_distance(weights(self._coarse, mask), weights(z, mask), mask)
            self._coarse, self._coarse_length = z, _added(self._coarse_length, far)
        law = first_law(before, z, mask)
        cost = self._moves * self._squares
        none = torch.zeros_like(keep)
        counted = {
            "distance": (d, keep),
            "square": (square, keep),
            "gap": (free_energy_gap(z.to(d.dtype), mask), keep),
            "length": (self._length, keep),
            "coarse": (d, none) if self._coarse_length is None else (self._coarse_length, keep),
            "divergence": (cost, keep),
            "efficiency": (path_efficiency(self._length, cost), keep & (cost > 0)),  # a row that moved at all
            "heat": (law.heat, keep),
            "work": (law.work, keep),
            "dissipation": (law.dissipation, keep),
        }
        half = len(z) // 2
        for name in ("inference", "learning"):
            counted[name] = (d[:half], none[:half])
        if half:
            # The other half of the batch is the new input, example by example.
            one, two = slice(0, half), slice(half, 2 * half)
            both = keep[one] & keep[two]
            if mask is not None:
                both = both & (mask[one] == mask[two]).all(-1)
            split = work_split(before[one], before[two], z[one], z[two], None if mask is None else mask[one])
            counted |= {"inference": (split.inference, both), "learning": (split.learning, both)}
        return torch.stack([_sums(*counted[name]) for name in ROWS])


def _added(total: Tensor | None, x: Tensor) -> Tensor:
    """A sum that one reading without a number does not spoil."""
    x = torch.where(x.isfinite(), x, 0.0)
    return x if total is None else total + x


def _sums(x: Tensor, keep: Tensor) -> Tensor:
    """[2, H] how many rows count, and their sum."""
    return torch.stack([keep.sum((0, 2)).to(x.dtype), torch.where(keep, x, 0.0).sum((0, 2))])


def mean(sums: Tensor) -> Tensor:
    """[..., H] means from [..., 2, H]; NaN without rows."""
    count, total = sums.unbind(-2)
    return torch.where(count > 0, total / count, math.nan)
