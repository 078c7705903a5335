"""Which query rows of an attention are read, and which of them are no padding.

Shapes: B examples, H query heads, Q queries, K keys, R selected queries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MASKED = -9000.0
"""An additive term at or below this masks its key.

Programs mask with -1e4 (what half precision holds), -1e9 or the lowest number of a type as often as with -inf, and
may add two such masks or a position bias. All of these give a weight of exactly zero, but as states such keys would
swamp the spread of the logits and count as keys that could have been attended to. The limit is absolute, not relative
to the row, so that the row of a padded query, whose keys are all masked, has no state instead of n equal ones. Its
price: under a linear bias (ALiBi) the steepest heads lose keys that are more than about 12 000 positions away.
"""

MaskOf = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, slots=True)
class EvenRows:
    """The middles of ``count`` equal parts of 0 ... length - 1, so that early and late queries weigh the same.

    Known on the host, so that a causal attention need not form the logits that it masks.

    Attributes:
        length: number of queries.
        count: number of rows wanted; all rows if there are not more.

    Example:
        >>> EvenRows(10, 4).index().tolist(), EvenRows(3, 8).index().tolist(), EvenRows(10, 4).row(3)
        ([1, 3, 6, 8], [0, 1, 2], 8)
    """

    length: int
    count: int

    def __len__(self) -> int:
        return min(self.length, self.count)

    def row(self, i: int) -> int:
        """Query of the i-th row."""
        return i if self.count >= self.length else (2 * i + 1) * self.length // (2 * self.count)

    def index(self, device: torch.device | str | None = None) -> Tensor:
        """[R] int64, sorted, without repetition, R = min(length, count). Kept for the next call: not to be changed."""
        return _even_index(self.length, self.count, torch.device("cpu" if device is None else device))

    def causal(self, some: slice, keys: int, device: torch.device) -> Tensor:
        """[r, K] bool: which of the first K keys some of the rows see. Kept for the next call: not to be changed."""
        return _even_causal(self.length, self.count, some.start, some.stop, keys, device)


@functools.lru_cache(maxsize=64)  # five small operations on each tick, for numbers that do not change
def _even_index(length: int, count: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        i = torch.arange(min(length, count), device=device)
        return i if count >= length else (2 * i + 1) * length // (2 * count)


@functools.lru_cache(maxsize=16)  # as many as the groups of rows of a few lengths; the largest takes a megabyte
def _even_causal(
    length: int, count: int, start: int | None, stop: int | None, keys: int, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(keys, device=device) <= _even_index(length, count, device)[start:stop].unsqueeze(-1)


Rows = Tensor | EvenRows | None


def valid_rows(
    rows: Tensor | None,
    queries: int,
    keys: int,
    *,
    mask: Tensor | MaskOf | None = None,
    bias: Tensor | None = None,
) -> Tensor | None:
    """Which queries are no padding: those that may attend to their own key.

    In self-attention a padded token is masked as a key, and its query is computed all the same; averaging over such
    rows would dilute every mean. A mask that excludes the diagonal for every row at hand says nothing about padding,
    and then all rows are valid.

    Args:
        rows: [R] the selected queries, or None for all.
        queries: Q, before the selection.
        keys: K. If it differs from Q this is no self-attention over one sequence and the rule does not apply.
        mask: as in ``attention_logits``.
        bias: as in ``attention_logits``.

    Returns:
        bool, broadcastable to [B, H, R], or None where all rows are valid.

    Example:
        >>> mask = torch.tensor([[True, True, False]])  # the third token is padding
        >>> valid_rows(None, 3, 3, mask=mask).tolist()
        [True, True, False]
    """
    if (mask is None and bias is None) or queries != keys:
        return None
    own: Tensor | None = None
    for term in (mask, bias):
        if term is None:
            continue
        if isinstance(term, Tensor):
            term = term.expand(*term.shape[:-2], queries, keys)
            at = term.diagonal(dim1=-2, dim2=-1)
            at = at if rows is None else at.index_select(-1, rows)
        else:
            assert rows is not None
            whole = term(rows, keys)
            at = whole.gather(-1, rows.unsqueeze(-1).expand(*whole.shape[:-1], 1)).squeeze(-1)
        state = at if at.dtype == torch.bool else ~(at <= MASKED)
        own = state if own is None else own & state
    assert own is not None
    return own | ~own.any()


def random_rows(length: int, count: int, generator: torch.Generator) -> Tensor:
    """A simple random sample of rows without replacement: the mean over it is unbiased.

    Args:
        length: number of queries.
        count: number of rows wanted; all rows if there are not more.
        generator: the source of randomness; the global one is never touched.

    Returns:
        [R] int64 on the generator's device, sorted, R = min(length, count).

    Example:
        >>> rows = random_rows(10, 4, torch.Generator().manual_seed(0))
        >>> len(set(rows.tolist())), bool((rows.diff() > 0).all())
        (4, True)
    """
    if count >= length:
        return torch.arange(length, device=generator.device)
    return torch.randperm(length, generator=generator, device=generator.device)[:count].sort().values
