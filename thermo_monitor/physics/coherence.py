"""How many examples a step on the gradient of one of them helps: the coherence of per-example gradients.

A small step along the mean gradient changes the loss of example i by ``-eta <g_i, gbar>``. Summed over the examples and
divided by what each contributes to its own change, that is

    ``C = n |gbar|^2 / mean_i |g_i|^2 = 1 + sum_{i != j} <g_i, g_j> / sum_i |g_i|^2``.

The second form says what it means: C - 1 is, to first order, how much of what a step does to an example comes from the
*other* examples. At C = 1 each example is learned by itself, as gradients that are orthogonal are; below, the examples
undo each other's work; where all gradients are the same, C = n. So ``C > 1`` means that training on the others would
help an example that is left out, which is what generalization is, and it is known without one.

Source: Chatterjee & Zielinski 2020, arXiv:2008.01217 (m-coherence, ``n`` times their alpha); Chatterjee 2020,
arXiv:2002.10657 (coherent gradients).
"""

from __future__ import annotations

import math


def gradient_coherence(mean: float, gradient: float, *, batch: int, examples: int | None = None) -> float:
    """Coherence of the gradients of a batch, or of the data that it was drawn from.

    Args:
        mean: mean squared gradient norm of single examples, ``mean_i |g_i|^2``.
        gradient: squared norm of their mean gradient, ``|gbar|^2``.
        batch: number n of examples in the batch.
        examples: number N of examples in the training set, where the batch is drawn from it and C is meant for all of
            them: ``1 + (N - 1) <g_i, g_j> / mean``, with the mean product of two different examples of the batch.

    Returns:
        C, between 0 and n for the batch itself; an estimate for more may be negative. NaN for a mean of zero, or of a
        single example.

    Example:
        Three orthogonal gradients, and three that are the same:

        >>> gradient_coherence(1.0, 1 / 3, batch=3), gradient_coherence(1.0, 1.0, batch=3)
        (1.0, 3.0)
        >>> gradient_coherence(1.0, 0.5, batch=2, examples=1000)  # orthogonal in the batch: orthogonal altogether
        1.0
    """
    if batch < 2 or not mean > 0.0 or not math.isfinite(gradient):
        return math.nan
    if examples is None or examples <= batch:
        return batch * gradient / mean
    product = (batch * gradient - mean) / (batch - 1)
    return 1.0 + (examples - 1) * product / mean
