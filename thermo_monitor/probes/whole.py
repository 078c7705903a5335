"""Whether what was heard of a parameter is all that its gradient is made of.

A weight that its module uses may be used by a bare function as well, which is not heard, and norms without that use
would be wrong. But what was heard adds up to the gradient itself, or else something is missing. A matrix is compared by
its product with a vector u of random signs, which costs two products with vectors instead of one with a matrix: where R
is what is missing, ``E |R u|^2 = |R|^2``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from thermo_monitor.physics.precision import accumulator, precise_matmul, working
from thermo_monitor.probes.uses import Use

_TOLERANCE = 1e-4  # of the squared norm: what is missing may be a hundredth of the gradient
_ROUNDED_TOLERANCE = 1e-2  # where something was rounded to half precision on the way
_PIECE = 2**24  # elements that are widened at a time
_HALF = (torch.bfloat16, torch.float16)


class Whole:
    """Adds up what is heard of some parameters, and holds it against their gradients; nothing is read back.

    Args:
        parameters: by ``id``.
        seed: of the random signs.
    """

    def __init__(self, parameters: Mapping[int, nn.Parameter], seed: int) -> None:
        self._parameters = parameters
        self._seed = seed
        self._signs: dict[tuple[int, torch.device], Tensor] = {}
        self._heard: dict[int, Tensor] = {}
        self._kinds: dict[int, str] = {}
        self._rounded: set[int] = set()
        self.products: Tensor | None = None  # of the last comparison: gradient by gradient, and by what was heard

    def hear(self, key: int, use: Use, batch: int) -> None:
        """One use of a parameter, with all examples of a micro-batch."""
        if use.right.dtype in _HALF:
            self._rounded.add(key)
        # In pieces, since in single precision the whole may be as large as all of the logits.
        rows, size = len(use.right), max(1, _PIECE // max(1, use.right[:1].numel()))
        for at in range(0, rows, size):
            left = None if use.left is None else use.left[at : at + size]
            heard = self._part(key, Use(use.kind, left, use.right[at : at + size]), rows // max(1, batch))
            self._heard[key] = self._heard[key] + heard if key in self._heard else heard
        # A weight that is tied counts its products, which say how it stands.
        if self._kinds.get(key) not in ("product", "transposed"):
            self._kinds[key] = use.kind

    def _part(self, key: int, use: Use, groups: int) -> Tensor:
        right = working(use.right)
        if use.left is None:
            return right.sum((0, 1))
        if use.kind == "lookup":
            along = precise_matmul(right, self._random(right.shape[-1], right))
            zeros = along.new_zeros(len(self._parameters[key]))
            return zeros.index_add(0, use.left.flatten(), along.flatten())
        left = working(use.left)
        along = precise_matmul(left.flatten(0, 1), self._random(left.shape[-1], left)).view(left.shape[:2])
        if groups == 1:
            return precise_matmul(right.flatten(0, 1).t(), along.flatten())
        # The groups of a convolution stand where examples do, and beside each other in its weight.
        sums = precise_matmul(right.mT, along.unsqueeze(-1)).squeeze(-1)
        return sums.view(-1, groups, sums.shape[-1]).sum(0).flatten()

    def _random(self, size: int, like: Tensor) -> Tensor:
        device = like.device
        if (size, device) not in self._signs:
            generator = torch.Generator().manual_seed(self._seed)
            signs = torch.randint(2, (size,), generator=generator).float().mul_(2).sub_(1)
            self._signs[size, device] = signs.to(device)
        return self._signs[size, device].to(like.dtype)

    def compare(self) -> tuple[Tensor | None, dict[int, Tensor]]:
        """The factor between the gradients and what was heard, and whether each parameter was heard in full.

        The factor is what loss scaling left, or a clipping by the norm. It is the median over the parameters, so that
        a few incomplete ones do not move it.
        """
        keys, rows = [], []
        for key, heard in self._heard.items():
            gradient = self._parameters[key].grad
            if gradient is not None:
                seen = self._seen(key, gradient.detach())
                rounded = key in self._rounded or gradient.dtype in _HALF
                square = seen @ seen
                keys.append(key)
                rows.append(
                    torch.stack(
                        [square, seen @ heard, heard @ heard, square * (_ROUNDED_TOLERANCE if rounded else _TOLERANCE)]
                    )
                )
        self._heard = {}
        self.products = None
        if not rows:
            return None, {}
        device = rows[0].device
        table = torch.stack([row.to(device, non_blocking=True) for row in rows]).to(accumulator(device))
        seen2, both, heard2, allowed = table.unbind(1)
        self.products = torch.stack([seen2.sum(), both.sum()])
        factor = torch.nanmedian(both / heard2)
        missing = seen2 - 2 * factor * both + factor * factor * heard2
        # Written so that what is not finite passes: that has a reason of its own.
        return factor, dict(zip(keys, (~(missing > allowed)).unbind(), strict=True))

    def _seen(self, key: int, gradient: Tensor) -> Tensor:
        kind = self._kinds[key]
        if kind == "sum":
            return working(gradient).flatten()
        if gradient.is_sparse:  # of rows, which may be there more than once
            rows = working(gradient._values())
            along = precise_matmul(rows, self._random(gradient.shape[1], rows))
            return along.new_zeros(len(gradient)).index_add(0, gradient._indices()[0], along)
        gradient = gradient.flatten(1)
        gradient = working(gradient.t() if kind == "transposed" else gradient)
        return precise_matmul(gradient, self._random(gradient.shape[1], gradient))
