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


class NextToken(NamedTuple):
    """The state functions of a prediction at one temperature, in reduced units: the energy of word v is ``-y_v / tau``.

    Multiply U and F by tau for the units of the logits.

    Attributes:
        log_partition: [...] ln Z = logsumexp(y / tau); gauge dependent, as are U and F.
        internal_energy: [...] U = -<y> / tau.
        entropy: [...] S = ln Z + U, nats.
        free_energy: [...] F = U - S = -ln Z.
        free_energy_gap: [...] ln Z - mean(y) / tau - ln V = KL(uniform || p); gauge free.
        specific_heat: [...] C = Var_p(y) / tau^2 = dS/d ln tau.
    """

    log_partition: Tensor
    internal_energy: Tensor
    entropy: Tensor
    free_energy: Tensor
    free_energy_gap: Tensor
    specific_heat: Tensor


def next_token(y: Tensor, temperature: float | Tensor = 1.0) -> NextToken:
    """Z, U, S, F and C of the next token, at the model's temperature (1) or any other.

    Args:
        y: [..., V] output logits, any float dtype.
        temperature: tau, positive; a tensor broadcasts against [...].

    Returns:
        State functions [...] in float32, or float64 if y is.

    Example:
        >>> state = next_token(torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64))
        >>> [round(x.item(), 9) for x in state[:3]]
        [2.440189699, -1.492652735, 0.947536964]
        >>> hot = next_token(torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64), 1.711715325)
        >>> round(hot.entropy.item(), 6)
        1.2
    """
    tau = torch.as_tensor(temperature, dtype=working(y).dtype, device=y.device)
    row = row_statistics(working(y) / tau.unsqueeze(-1))
    gap = row.log_partition - row.plain_mean - row.n.log()
    return NextToken(
        row.log_partition, -row.mean_logit, row.entropy, -row.log_partition, gap.clamp(min=0), row.specific_heat
    )


def training_temperature(entropy_bonus: float = 0.0, label_smoothing: float = 0.0) -> float:
    """The temperature T in force in ``F = U - T S``, U the cross entropy on the data, S the entropy of the predictions.

    * Bare cross entropy: 1, by convention. Nothing in the objective pays for entropy; T = 1 is the temperature of the
      softmax, at which F is the calibration gap.
    * Entropy bonus, ``loss = U - beta S``: T = beta, exactly; F is the loss.
    * Label smoothing, ``loss = (1 - e) U + e CE(uniform, p)``. Over the weight of U this is
      ``U + e/(1 - e) (ln V + KL(uniform || p))``, while ``-T S = -T ln V + T KL(p || uniform)``. The two divergences
      agree to second order around the uniform distribution, so ``T = e/(1 - e)``, where F is the loss over (1 - e) up
      to the constant ``2 T ln V``. Away from it the smoothing resists sharpening more: its price grows with the logits,
      that of entropy ends at ``T ln V``.
    * Both: ``loss = (1 - e) U + e CE(uniform, p) - beta S``, T = (beta + e)/(1 - e).

    Args:
        entropy_bonus: beta >= 0.
        label_smoothing: e in [0, 1), as in ``torch.nn.functional.cross_entropy``.

    Returns:
        T.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> training_temperature(), training_temperature(entropy_bonus=0.01), training_temperature(label_smoothing=0.2)
        (1.0, 0.01, 0.25)
    """
    if not (0 <= entropy_bonus < math.inf and 0 <= label_smoothing < 1):
        raise ValueError(f"entropy_bonus={entropy_bonus} has to be >= 0, label_smoothing={label_smoothing} in [0, 1)")
    if entropy_bonus == 0 and label_smoothing == 0:
        return 1.0
    return (entropy_bonus + label_smoothing) / (1 - label_smoothing)


def distance_from_equilibrium(y: Tensor, labels: Tensor, ignore_index: int = -100) -> Tensor:
    """Loss of each token less the entropy of its prediction, ``-ln p[label] - S``, nats.

    0 on average where labels are drawn from the predictions; its mean over tokens is the calibration gap. Of one token
    it is at least -S, and has no upper bound.

    Args:
        y: [N, V] output logits.
        labels: [N] integers.
        ignore_index: label of tokens that do not count.

    Returns:
        [N]; NaN for ignored tokens.

    Example:
        >>> y = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        >>> round(distance_from_equilibrium(y, torch.tensor([1])).item(), 9)
        0.731058579
    """
    token = token_statistics(y, labels, ignore_index)
    return token.loss - token.entropy


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
    row = row_statistics(y, plain=False)
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

    def training_free_energy(self, temperature: float = 1.0) -> Tensor:
        """F = U - T S, nats: mean loss less T times the mean entropy; see ``training_temperature``."""
        return self.mean_loss() - temperature * self.predictive_entropy()


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
