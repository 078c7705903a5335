"""The output distribution of a model and its loss: per token, and as sums that merge over micro-batches and ranks.

Shapes: N tokens, V words. All quantities of one reading are taken over the same tokens, those with a label, because
the calibration gap compares two of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from thermo_monitor.physics.canonical import row_statistics
from thermo_monitor.physics.moments import Moments, moments_of
from thermo_monitor.physics.precision import accumulator, working


class TokenStatistics(NamedTuple):
    """What is known of each token.

    Attributes:
        loss: [N] ln Z - y[label], nats; NaN where not kept.
        entropy: [N] entropy of the prediction, nats.
        specific_heat: [N] variance of the logits under the prediction.
        kept: [N] bool, the label is not the ignored one.
    """

    loss: Tensor
    entropy: Tensor
    specific_heat: Tensor
    kept: Tensor


def token_statistics(y: Tensor, labels: Tensor, ignore_index: int = -100) -> TokenStatistics:
    """Loss, entropy and specific heat of every token.

    Args:
        y: [N, V] output logits, any float dtype.
        labels: [N] integers; those equal to ``ignore_index`` are no labels.
        ignore_index: as in ``torch.nn.functional.cross_entropy``.

    Returns:
        Statistics [N] in float32, or float64 if y is.

    Example:
        >>> token = token_statistics(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([1]))
        >>> [round(x.item(), 9) for x in token[:3]]
        [1.313261688, 0.582203109, 0.196611933]
    """
    row = row_statistics(y)
    kept = labels != ignore_index
    answer = y.gather(-1, torch.where(kept, labels, 0).to(torch.int64).unsqueeze(-1)).squeeze(-1)
    loss = torch.where(kept, row.log_partition - working(answer), math.nan)
    return TokenStatistics(loss, row.entropy, row.specific_heat, kept)


@dataclass(frozen=True, slots=True)
class OutputSums:
    """Sums over the labelled tokens, 0-d and in float64 where the device has it.

    Attributes:
        loss: count, mean and centred sum of squares of the loss of a token.
        entropy: sum of the entropies.
        specific_heat: sum of the specific heats.
    """

    loss: Moments
    entropy: Tensor
    specific_heat: Tensor

    @property
    def count(self) -> Tensor:
        """Number of labelled tokens."""
        return self.loss.count

    def merge(self, other: OutputSums) -> OutputSums:
        """Sums over the tokens of both."""
        return OutputSums(
            self.loss.merge(other.loss), self.entropy + other.entropy, self.specific_heat + other.specific_heat
        )

    def mean_loss(self) -> Tensor:
        """Mean loss of a token, nats; NaN without labels."""
        return torch.where(self.count > 0, self.loss.mean, math.nan)

    def loss_variance(self) -> Tensor:
        """Variance (ddof 1) of the loss over tokens, nats^2: how unevenly they are learned; NaN with fewer than two."""
        return self.loss.variance()

    def predictive_entropy(self) -> Tensor:
        """Mean entropy of the prediction, nats, in [0, ln V]: how undecided the model is; NaN without labels."""
        return self.entropy / self.count

    def output_specific_heat(self) -> Tensor:
        """Mean variance of the logits under the prediction, at most C_max(V); NaN without labels."""
        return self.specific_heat / self.count

    def calibration_gap(self) -> Tensor:
        """Mean loss less mean entropy, nats.

        0 on average if the labels were drawn from the predictions; positive: overconfident, negative: underconfident.
        """
        return self.mean_loss() - self.predictive_entropy()


def output_sums(y: Tensor, labels: Tensor, ignore_index: int = -100) -> OutputSums:
    """The pieces of all output readings of a batch. Ignored tokens take no part, whatever their logits.

    Args:
        y: [N, V] output logits, any float dtype.
        labels: [N] integers.
        ignore_index: label of tokens that do not count.

    Returns:
        Sums that ``merge`` over micro-batches.

    Example:
        >>> sums = output_sums(torch.zeros(3, 4), torch.tensor([0, 3, -100]))
        >>> sums.count.item(), round(sums.predictive_entropy().item(), 6), sums.calibration_gap().abs().item() < 1e-6
        (2.0, 1.386294, True)
    """
    token = token_statistics(y, labels, ignore_index)
    wide = accumulator(y.device)
    entropy, heat = (torch.where(token.kept, x, 0.0).sum(dtype=wide) for x in (token.entropy, token.specific_heat))
    return OutputSums(moments_of(token.loss, token.kept), entropy, heat)
