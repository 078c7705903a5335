"""Fisher information from what Adam remembers: the moving averages of the gradient and of its square.

For the gradient of a mean over B independent examples, with mean mu and per-example covariance Sigma, the second moment
of Adam estimates ``mu^2 + diag(Sigma)/B`` and its first moment estimates mu. Their difference is the noise of the
batch, and B times it the covariance of single examples: no further pass, no further gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdamFisher:
    """What the moments of Adam say about the empirical Fisher information.

    Attributes:
        noise: tr Sigma, the trace of the covariance of per-example gradients.
        mean: squared norm of the mean gradient; too large by about tr Sigma (1 - beta1) / ((1 + beta1) B).
    """

    noise: float
    mean: float

    @property
    def trace(self) -> float:
        """Trace of the empirical Fisher information, the mean squared norm of per-example gradients."""
        return self.noise + self.mean


def first_moment_noise(step: float, beta1: float) -> float:
    """Share of a single gradient's variance that is left in the bias-corrected first moment.

    ``(1 - b)(1 + b^t) / ((1 + b)(1 - b^t))`` for b = beta1 and t steps: 1 at the first step, ``(1 - b)/(1 + b)`` later.

    Example:
        >>> first_moment_noise(1, 0.9), round(first_moment_noise(1000, 0.9), 6)
        (1.0, 0.052632)
    """
    forgotten = math.pow(beta1, step)
    return (1 - beta1) * (1 + forgotten) / ((1 + beta1) * (1 - forgotten))


def adam_fisher(
    squares: float, first: float, *, step: float, beta1: float, beta2: float, examples: float
) -> AdamFisher:
    """Empirical Fisher information from the sums over the moments of Adam.

    ``tr Sigma = B sum_k (vhat_k - mhat_k^2) / (1 - s)``, s being ``first_moment_noise``, with bias-corrected moments;
    for many steps the factor is ``(1 + beta1)/(2 beta1)``. The trace adds ``sum_k mhat_k^2``. The shortcut
    ``B sum vhat`` is too large by (B - 1) times the squared mean gradient.

    Exact in expectation for gradients that are independent and identically distributed over the averaging times
    ``1/(1 - beta1)`` and ``1/(1 - beta2)``. In a training they are not quite, and it deviates: a mean gradient that
    changes within these times counts as noise, the average lags behind the weights by ``1/(1 - beta2)`` steps, a
    clipped gradient is smaller, labels are those of the data. It carries no noise information in full-batch training.
    Definition ours; that Adam's second moment follows the Fisher diagonal: arXiv:2507.18807.

    Args:
        squares: sum of the second moment v over the parameters, as the optimizer stores it.
        first: sum of the squared first moment m.
        step: steps that the moments have seen.
        beta1: decay of m.
        beta2: decay of v.
        examples: B, examples that the loss of a step averages over.

    Returns:
        Both parts; NaN with fewer than two steps, or with beta1 = 0, where m is the last gradient and nothing else.

    Example:
        Expected moments of a gradient with mean 1 and standard deviation 2 per example, B = 16: the truth is 4 and 1.

        >>> fisher = adam_fisher(1.25, 1.013157895, step=1e6, beta1=0.9, beta2=0.999, examples=16)
        >>> round(fisher.noise, 6), round(fisher.trace, 6)
        (4.0, 5.013158)
    """
    if step < 2 or beta1 <= 0 or examples <= 0:
        return AdamFisher(math.nan, math.nan)
    mean = first / (1 - beta1**step) ** 2
    mean_of_squares = squares / (1 - beta2**step)
    noise = examples * (mean_of_squares - mean) / (1 - first_moment_noise(step, beta1))
    return AdamFisher(noise, mean)
