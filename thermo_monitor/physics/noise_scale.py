"""How much of a gradient is noise: the gradient noise scale of McCandlish et al. 2018, arXiv:1812.06162.

The squared norm of a gradient over B independent examples is ``|G|^2 + tr Sigma / B`` in expectation, G being the mean
gradient and Sigma the covariance of single examples. Two batch sizes give both parts without bias. Their ratio is not
without bias: parts are averaged first, each by itself, and divided afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NoiseParts:
    """Both parts of a squared gradient norm, each without bias; either may be negative in a single step.

    Attributes:
        signal: |G|^2, squared norm of the mean gradient.
        noise: tr Sigma, trace of the covariance of per-example gradients.
        reason: why they are NaN, a reason code of the registry; empty otherwise.
    """

    signal: float
    noise: float
    reason: str = ""

    @property
    def scale(self) -> float:
        """Tr Sigma / |G|^2, in examples: the batch at which noise and signal are equal; NaN unless |G|^2 > 0."""
        return self.noise / self.signal if self.signal > 0 else math.nan


def noise_parts(small: float, big: float, *, small_batch: float, big_batch: float) -> NoiseParts:
    """Both parts from mean squared gradient norms at two batch sizes.

    ``|G|^2 = (B_b |g_b|^2 - B_s |g_s|^2) / (B_b - B_s)``, ``tr Sigma = (|g_s|^2 - |g_b|^2) / (1/B_s - 1/B_b)``. The
    small batches may be micro-batches of an accumulated step, the shares of data-parallel ranks, or single examples
    (B_s = 1, with the mean of their squared norms), which has by far the least variance.

    Args:
        small: mean squared gradient norm of the small batches.
        big: squared gradient norm of the big batch, which is made of the small ones.
        small_batch: examples in a small batch.
        big_batch: examples in the big one.

    Returns:
        Both parts, NaN with the reason ``n_lt_2`` where the batches are of the same size.

    Example:
        Two examples with gradients (2, 0) and (1, 1): the mean is (1.5, .5).

        >>> parts = noise_parts(small=3.0, big=2.5, small_batch=1, big_batch=2)
        >>> parts.signal, parts.noise, parts.scale
        (2.0, 1.0, 0.5)
        >>> noise_parts(1.0, 1.0, small_batch=8, big_batch=8).reason
        'n_lt_2'
    """
    if not 0 < small_batch < big_batch:
        return NoiseParts(math.nan, math.nan, "n_lt_2")
    signal = (big_batch * big - small_batch * small) / (big_batch - small_batch)
    noise = (small - big) / (1 / small_batch - 1 / big_batch)
    return NoiseParts(signal, noise)


@dataclass(slots=True)
class SmoothedNoise:
    """Exponential averages of both parts, kept apart, with the bias of the start taken off.

    Attributes:
        decay: share of the past that is kept at each reading.

    Example:
        >>> smoothed = SmoothedNoise(decay=0.5)
        >>> for parts in (NoiseParts(2.0, 1.0), NoiseParts(-1.0, 2.0), NoiseParts(math.nan, math.nan)):
        ...     smoothed.add(parts)
        >>> smoothed.parts
        NoiseParts(signal=0.0, noise=1.6666666666666667, reason='')
    """

    decay: float = 0.995
    _signal: float = 0.0
    _noise: float = 0.0
    _weight: float = 0.0

    def add(self, parts: NoiseParts) -> None:
        """One reading; what is not finite is left out."""
        if not (math.isfinite(parts.signal) and math.isfinite(parts.noise)):
            return
        self._signal = self.decay * self._signal + (1 - self.decay) * parts.signal
        self._noise = self.decay * self._noise + (1 - self.decay) * parts.noise
        self._weight = self.decay * self._weight + (1 - self.decay)

    @property
    def parts(self) -> NoiseParts:
        """The averages so far."""
        if not self._weight:
            return NoiseParts(math.nan, math.nan, "too_early")
        return NoiseParts(self._signal / self._weight, self._noise / self._weight)
