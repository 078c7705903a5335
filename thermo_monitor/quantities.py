"""The registry: one entry for every quantity, with its name, unit, formula, validity and source.

Documentation, labels, tests and detectors read it, so a quantity has one name, one unit and one definition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Scale = Literal["linear", "log"]

REASONS: dict[str, str] = {
    "masked_row": "every key of the row is masked",
    "n_lt_2": "fewer than two states, so nothing can be distributed over them",
    "degenerate": "the formula divides by a spread that is zero",
    "full_batch": "every example is in the batch, so there is no gradient noise",
    "not_stationary": "the window is not stationary",
    "unsupported_optimizer": "not defined for this optimizer",
    "l2_in_gradient": "the optimizer adds weight decay to the gradient, so that its moments are not those of the loss",
    "unsupported_loss": "not defined for this loss",
    "altered_gradient": "the gradient was changed, clipped say, between being read and the optimizer's step",
    "second_backward": "a second backward pass was made in one step, so that gradients are not those of one loss",
    "incomplete_gradient": "weights are also used outside of their modules, where it is not heard",
    "ambiguous_batch": "forward passes and losses of a step do not match, so that it is not clear what one example is",
    "partly_covered": "less than nine tenths of the parameters are in modules whose per-example gradients are read",
    "rounding": "the loss is so small that its gradient is mostly rounding",
    "no_optimizer": "the monitor was not given the optimizer",
    "one_layer": "fewer than two layers have the same queries and keys",
    "one_input": "the fixed batch holds no two examples with the same mask, of which one could be the new input",
    "no_rotary": "no rotary positions of a known layout were recognised in this attention",
    "few_octaves": "fewer than four octaves of context lengths with 100 rows each",
    "too_early": "too few steps have been seen",
    "unknown_dataset": "the number of examples that batches are drawn from is not known",
    "unknown_batch": "the number of examples in the batch is not known",
    "no_logits": "no logits with integer labels were heard in this step",
    "no_attention": "no attention was heard in this step",
    "no_gradient": "no parameter had a gradient",
    "no_representation": "no representation was heard in this step",
    "unsupported_attention": "the attention has a feature that this route does not read correctly",
    "non_finite": "the input held a value that is not finite",
    "unreachable": "no solution exists in the searched interval",
    "empty_prompt": "the prompt has no token, and no symbol that begins a text is known",
    "context_exceeded": "the text is longer than the model's context",
    "no_stop_symbol": "no symbol ends a text, so that the entropy of all continuations is not defined",
    "truncated": "some continuations were cut off before they stopped",
    "probe_failed": "the probe raised an error and was switched off",
    "several_ranks": "the probe says nothing of a run on several ranks",
    "sharded": "parameters and gradients are spread over ranks in a way that this probe does not read",
    "learning": "the baseline of every quantity is still being learned",
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """What is known about one quantity.

    Attributes:
        key: ``<family>/<key>``, the name in readings, and ``thermo/<key>`` in TensorBoard.
        name: for people.
        symbol: as in the formula.
        unit: ``nats``, ``logits``, ``1`` for a pure number.
        formula: definition, z being the argument of the softmax and p = softmax(z).
        meaning: what a person learns from it.
        valid: when it is defined.
        source: paper or identity.
        scale: ``log`` for a positive quantity that changes by factors; detectors see its logarithm.
        minimum_effect: smallest change worth an event: a difference on a linear scale, a factor on a log scale.
        watched: whether a detector reads it; quantities that repeat another one are only recorded.
        group: quantities of one group share one weight when evidence is combined.
        low: smallest possible value.
        high: largest possible value.
    """

    key: str
    name: str
    symbol: str
    unit: str
    formula: str
    meaning: str
    valid: str = "always"
    source: str = "standard"
    scale: Scale = "linear"
    minimum_effect: float = math.nan
    watched: bool = False
    group: str = ""
    low: float = -math.inf
    high: float = math.inf

    @property
    def family(self) -> str:
        """Part of the key before the slash."""
        return self.key.partition("/")[0]

    @property
    def minimum_effect_transformed(self) -> float:
        """The minimum effect in the units that the detector sees (the logarithm of the factor on a log scale)."""
        return math.log(self.minimum_effect) if self.scale == "log" else self.minimum_effect


_KIM = "Kim 2026, arXiv:2602.08216"
_ATTENTION = (
    Quantity(
        "attn/log_partition", "log partition", "ln Z", "nats", "logsumexp_i z_i",
        "normaliser of the attention row; moves with any constant added to the logits", "n >= 1",
    ),
    Quantity(
        "attn/internal_energy", "internal energy", "U", "logits", "-sum_i p_i z_i",
        "mean energy of the attended keys; gauge dependent", "n >= 1",
    ),
    Quantity(
        "attn/entropy", "attention entropy", "S", "nats", "-sum_i p_i ln p_i",
        "how many keys share the attention, as a logarithm", "n >= 2", _KIM, low=0.0,
    ),
    Quantity(
        "attn/free_energy", "free energy", "F", "logits", "U - S = -ln Z",
        "minimised by softmax; gauge dependent", "n >= 1", _KIM,
    ),
    Quantity(
        "attn/specific_heat", "specific heat (A)", "C", "1", "sum_i p_i (z_i - <z>)^2",
        "how strongly the attention would respond to a change of temperature; "
        "also the Fisher information about ln T", "n >= 2", "Var(E)/T^2: arXiv:2607.20552; identities standard", low=0.0,
    ),
    Quantity(
        "attn/specific_heat_norm", "specific heat over its bound", "C/C_max", "1", "C / C_max(n)",
        "specific heat as a share of the largest value that n keys allow", "n >= 2",
        "bound: Reeb & Wolf 2015, arXiv:1304.0036", minimum_effect=0.05, watched=True, group="attention", low=0.0, high=1.0,
    ),
    Quantity(
        "attn/specific_heat_pooled", "pooled logit variance (B)", "B", "1", "variance (ddof 1) of all logits of the batch",
        "not a specific heat: changes when a row is shifted, and is not bounded", "two logits", "arXiv:2607.20552 eq. 2", low=0.0,
    ),
    Quantity(
        "attn/specific_heat_row", "row logit variance (B_row)", "B_row", "1", "mean over rows of the variance of z over keys (ddof 0)",
        "spread of the logits, unweighted", "n >= 2", "ours: invariant form of B", low=0.0,
    ),
    Quantity(
        "attn/energy_gap", "energy gap", "<z> - mean z", "logits", "<z> - mean_i z_i",
        "how much better than average the attended keys are; gauge free", "n >= 2", "ours", low=0.0,
    ),
    Quantity(
        "attn/free_energy_gap", "free-energy gap", "ln Z - mean z - ln n", "nats", "ln Z - mean_i z_i - ln n",
        "divergence of the uniform distribution from the attention; gauge free", "n >= 2", "ours", low=0.0,
    ),
    Quantity(
        "attn/entropy_fraction", "entropy fraction", "S/ln n", "1", "S / ln n",
        "1: attention is uniform, 0: one key takes all", "n >= 2", minimum_effect=0.05, watched=True, group="attention", low=0.0, high=1.0,
    ),
    Quantity(
        "attn/n_eff", "effective number of keys", "e^S", "keys", "exp(S)", "number of keys that share the attention", "n >= 2", low=1.0,
    ),
    Quantity(
        "attn/logit_std", "logit spread", "s", "1", "standard deviation of z over keys (ddof 0)",
        "inverse of the reduced temperature of one row", "n >= 2", low=0.0,
    ),
    Quantity(
        "attn/reduced_temperature", "reduced temperature", "T*", "1", "1 / mean over rows of s",
        "effective temperature of a head: falls as the logits sharpen", "s > 0",
        "ours, from the random-energy model", "log", 1.25, True, "attention", low=0.0,
    ),
    Quantity(
        "attn/freezing_ratio", "freezing ratio", "s/s_c", "1", "s / sqrt(2 ln n)",
        "above 1 the row is frozen: few keys carry the mass; read a peak of C against this", "n >= 2",
        "Derrida 1981; arXiv:2505.24333", "log", 1.25, low=0.0,
    ),
    Quantity(
        "attn/max_logit", "largest logit", "max z", "logits", "max_i z_i", "runaway logits precede divergence; gauge dependent", "n >= 1",
    ),
    Quantity(
        "attn/p_max", "largest weight", "max p", "1", "exp(max z - ln Z)", "weight of the most attended key", "n >= 1", low=0.0, high=1.0,
    ),
)  # fmt: skip

_OUTPUT = (
    Quantity(
        "loss/train", "training loss", "L", "nats", "mean loss of the step, micro-batches averaged",
        "what is minimised", source="the training loop", scale="log", minimum_effect=1.25, watched=True, group="loss",
    ),
    Quantity(
        "loss/loss_variance", "loss variance", "Var_i l_i", "nats^2", "variance of the per-example loss (ddof 1), sampled tokens",
        "how unevenly the examples are learned", "two labelled examples", scale="log", minimum_effect=1.25, low=0.0,
    ),
    Quantity(
        "out/predictive_entropy", "predictive entropy", "H", "nats", "-sum_v p_v ln p_v, p = softmax(logits)",
        "how undecided the model is about its answer", "logits heard", minimum_effect=0.1, watched=True, group="output", low=0.0,
    ),
    Quantity(
        "out/output_specific_heat", "output specific heat", "C_out", "1", "Var_p(logits)",
        "response of the output distribution to its temperature", "logits heard", low=0.0,
    ),
    Quantity(
        "out/calibration_gap", "calibration gap", "L - H", "nats", "mean loss - mean predictive entropy, same tokens",
        "0 where the model is as unsure as it is wrong; negative: underconfident, positive: overconfident", "labels heard",
        minimum_effect=0.1,
    ),
    Quantity(
        "out/dist_tv", "total variation of models", "TV", "1", "(1/2)|p - q|_1, mean and maximum over a prompt set",
        "largest difference of the probability of any set of next tokens", source="arXiv:2407.21092 (moduli space: reconstruction)",
        low=0.0, high=1.0,
    ),
    Quantity(
        "out/dist_sup", "sup distance of models", "sup", "1", "max_v |p_v - q_v|, mean and maximum over a prompt set",
        "largest difference of the probability of one next token", low=0.0, high=1.0,
    ),
    Quantity(
        "out/dist_fisher_rao", "Fisher-Rao distance of models", "d", "rad",
        "4 asin(|sqrt p - sqrt q|/2), mean and maximum over a prompt set", "length of the shortest path between the predictions",
        low=0.0, high=math.pi,
    ),
    Quantity(
        "out/distributional_rank_corr", "rank correlation of distances", "rho", "1",
        "Spearman correlation of output distances and embedding distances over pairs of prompts",
        "whether prompts that lie close are continued alike", ">= 4 prompts", "arXiv:2407.21092 (reconstruction)",
        low=-1.0, high=1.0,
    ),
    Quantity(
        "out/convexity_gap", "convexity gap", "g", "nats", "S((x + y)/2) - (S(x) + S(y))/2, x and y embeddings of prompts of one length",
        "whether mixed prompts are continued more vaguely than the prompts; neither sign is claimed", "prompts of equal length",
        "arXiv:2407.21092, conjecture 6.4 (reconstruction)",
    ),
    Quantity(
        "out/calibration_drift", "drift of the calibration gap", "d(L - H)/dt", "nats per 1000 steps",
        "slope of a straight line through the last readings of out/calibration_gap",
        "whether the model moves towards its data (falling distance from equilibrium) or into overconfidence", "8 readings of the gap; "
        "the error allows for correlation", "ours",
    ),
    Quantity(
        "out/cross_entropy", "energy of training", "U", "nats", "mean_t -ln p(y_t), without label smoothing",
        "first part of the free energy of training: how wrong the model is on the data", "labels heard", low=0.0,
    ),
    Quantity(
        "out/entropy_term", "entropy term of training", "T S", "nats", "T mean_t H(p_t); T = 1 for bare cross entropy, beta with an entropy bonus, e/(1 - e) "
        "with label smoothing e",
        "second part of the free energy of training: how undecided the model is, at the temperature in force", "labels heard",
        "label smoothing: second order around the uniform distribution, ours", low=0.0,
    ),
    Quantity(
        "out/training_free_energy", "free energy of training", "F = U - T S", "nats", "out/cross_entropy - out/entropy_term",
        "what training lowers when entropy is paid for; the calibration gap at T = 1", "labels heard", "arXiv:2407.21092 (reconstruction)",
    ),
    Quantity(
        "out/prompt_entropy", "entropy function of a prompt", "S_L(s)", "nats", "-sum over continuations s' of P_L(s'|s) ln P_L(s'|s), up to the stop symbol",
        "how many ways the model has of going on: near 0 where it has memorised", "a stop symbol; a lower bound where continuations are cut off",
        "Yang 2024, arXiv:2407.21092 (second-hand)", low=0.0,
    ),
    Quantity(
        "out/conditional_entropy", "conditional entropy of parallel generations", "<H(p_b)>", "nats", "mean over runs b of H(p_b), p_b the next-token distribution",
        "how undecided a single run is", "always", "blog Physics of Language, 4 Nov 2025", low=0.0,
    ),
    Quantity(
        "out/marginal_entropy", "marginal entropy of parallel generations", "H(<p_b>)", "nats", "entropy of the mean over runs of the next-token distribution",
        "how undecided the runs are together; explodes or collapses in long generations", "too low by about the number of words over 2 B for few runs B",
        "blog Physics of Language, 4 Nov 2025", low=0.0,
    ),
    Quantity(
        "out/ensemble_gap", "gap of marginal and conditional entropy", "JSD", "nats", "mean_b KL(p_b || mean p) = mutual information of run and token",
        "how much the runs differ", "B >= 2; at most ln B", low=0.0,
    ),
)  # fmt: skip

_OPTIMISER = (
    Quantity(
        "opt/gradient_norm", "gradient norm", "|g|", "1", "l2 norm of all gradients, before clipping",
        "force on the weights", "a gradient exists", scale="log", minimum_effect=1.25, watched=True, group="optimiser", low=0.0,
    ),
    Quantity(
        "opt/weight_norm", "weight norm", "|w|", "1", "l2 norm of all trainable parameters",
        "a strong indicator of regime by itself, so every claim is held against it",
        scale="log", minimum_effect=1.25, watched=True, group="optimiser", low=0.0,
    ),
    Quantity(
        "opt/update_norm", "update norm", "|dw|", "1", "l2 norm of the parameter change of one optimizer step",
        "speed of the weights", "the step changed a parameter", scale="log", minimum_effect=1.25, low=0.0,
    ),
)  # fmt: skip

_LOSS_WINDOW = (
    Quantity(
        "loss/loss_window_variance", "variance of the loss over a window", "Var_t L", "nats^2", "variance over a window of the loss of fixed examples, around its line",
        "how far the loss wanders while the weights do", "20 readings or more, fixed batch", scale="log", minimum_effect=1.25, low=0.0,
    ),
    Quantity(
        "loss/loss_specific_heat", "specific heat of the loss", "C_L", "1", "Var_t L / T_SGD^2",
        "k/2 for k quadratic directions that fluctuate: how many the noise keeps warm", "T_SGD defined, fixed batch, stationary loss", scale="log", minimum_effect=1.25, low=0.0,
    ),
    Quantity(
        "loss/loss_effective_dof_proxy", "degrees of freedom of the loss", "k", "directions", "2 (<L> - L*)^2 / Var_t L, L* the least loss, known or seen",
        "number of quadratic directions that fluctuate; no temperature needed", "stationary loss, L* known", "ours", "log", 1.25, low=0.0,
    ),
    Quantity(
        "loss/functional_variance_proxy", "functional variance", "V", "nats^2", "sum over fixed examples of Var_t l_i, around its line",
        "how many parameters the data fix, were the weights drawn from a posterior; the path of an optimizer is none", "fixed batch",
        "Watanabe 2010, arXiv:1004.2316", "log", 1.25, low=0.0,
    ),
)  # fmt: skip

_TEMPERATURE = (
    Quantity(
        "opt/configurational_temperature", "configurational temperature", "T_C", "loss", "<w . g>/P over a window, g with weight decay",
        "heat of the weights in the valley that they are in; 0 for weights whose scale does not matter",
        "SGD or heavy ball, mini-batches, stationary loss, <g> = 0 (ratio to T_K at most 2)", "Wenzel et al. 2020, arXiv:2002.02405",
    ),
    Quantity(
        "opt/kinetic_temperature", "kinetic temperature", "T_K", "loss", "(1 + mu)/(2 eta) <|dw|^2>/P over a window",
        "heat of the motion of the weights; contains the drift where the run is not stationary",
        "SGD or heavy ball without dampening and Nesterov, mini-batches, stationary loss", "ours, from the recurrence", low=0.0,
    ),
    Quantity(
        "opt/fdr1_ratio", "fluctuation-dissipation ratio", "T_C/T_K", "1", "configurational over kinetic temperature",
        "1 where the weights have come to a stationary distribution, far from it where they drift; its error is the noise floor", "as the kinetic temperature",
        "Yaida 2018, arXiv:1810.00004",
    ),
    Quantity(
        "opt/norm_balance", "norm balance", "-2<w.dw>/<|dw|^2>", "1", "-2 <w . dw>/<|dw|^2> over a window",
        "1 where the norm of the weights is stationary; a test of stationarity under any optimizer, no temperature", "stationary loss", "identity",
    ),
    Quantity(
        "opt/logit_temperature_proxy", "logit temperature", "1/rms(y)", "1", "1/rms of the output logits, each row centred",
        "falls as the outputs sharpen; the only temperature that is left in full-batch training and under Adam, and none of the weights",
        "logits heard", "ours", "log", 1.25, low=0.0,
    ),
    Quantity(
        "opt/sgd_temperature", "temperature of the gradient noise", "T_SGD", "loss", "eta tr S/(2 B P (1 - mu)) (N - B)/(N - 1)",
        "heat that the noise of the gradient brings in", "SGD or heavy ball, mini-batches, eta h << 1",
        "Jastrzebski et al. 2017, arXiv:1711.04623; Mandt et al. 2017, arXiv:1704.04289", "log", 1.25,
    ),
    Quantity(
        "opt/sgd_noise_scale", "noise scale of the optimizer", "eta (N/B - 1)", "1", "eta (N/B - 1)/(1 - mu)",
        "how much noise the settings ask for", "SGD or heavy ball, N known, B < N", "Smith & Le 2018, arXiv:1710.06451", "log", 1.25, low=0.0,
    ),
)  # fmt: skip

_FISHER = (
    Quantity(
        "fisher/trace_adam_proxy", "Fisher information, Adam's proxy", "tr F", "1",
        "B sum (vhat - mhat^2)/(1 - s) + sum mhat^2, s = (1 - b1)(1 + b1^t)/((1 + b1)(1 - b1^t)), B examples in the batch",
        "how sharply the loss of one example depends on the parameters, on average; empirical labels, moving average",
        "Adam-type state, no L2 term in the gradient; a changing mean gradient counts as noise, clipping lowers it",
        "ours; arXiv:2507.18807", "log", 1.25,
    ),
    Quantity(
        "fisher/share_adam_proxy", "share of a layer in the Fisher information, Adam's proxy", "tr F_l/tr F", "1",
        "trace of the layer / trace; for the whole model the largest share of a layer",
        "which layer the loss depends on most sharply", "as the trace", "ours",
    ),
    Quantity(
        "fisher/trace_empirical", "empirical Fisher information", "tr F_emp", "1", "mean_i |g_i|^2, g_i the gradient of -ln p(y_i|x_i)",
        "mean squared gradient norm of single examples, labels of the data; no curvature away from a well-specified optimum",
        "per-example gradients heard", "Kunstner et al. 2019, arXiv:1905.12558", "log", 1.25, low=0.0,
    ),
    Quantity(
        "fisher/share_empirical", "share of a layer in the empirical Fisher information", "tr F_l/tr F", "1",
        "trace of the layer / trace; for the whole model the largest share of a layer",
        "which layer the loss of single examples depends on most sharply", "as the trace", low=0.0, high=1.0,
    ),
    Quantity(
        "fisher/trace_mc", "Fisher information, Monte Carlo", "tr F", "1", "N |g|^2 over draws, g of the mean loss over N rows, labels drawn from the model",
        "how sharply the predictions of one row depend on the parameters; curvature of the loss where the model is right",
        "categorical output, fixed batch", "Martens 2014, arXiv:1412.1193; Liu et al. 2023, arXiv:2305.14342", "log", 1.25, low=0.0,
    ),
    Quantity(
        "fisher/trace_ggn", "GGN trace", "tr G", "1", "mean_i tr(J_i^T H_i J_i), H the curvature of the loss at the outputs; drawn by H^(1/2)",
        "curvature of the loss without that of the model; the Fisher information for a softmax with cross entropy",
        "cross entropy or squared error, fixed batch", "Martens 2014, arXiv:1412.1193", "log", 1.25, low=0.0,
    ),
    Quantity(
        "fisher/share_mc", "share of a layer in the Fisher information", "tr F_l/tr F", "1",
        "trace of the layer / trace; for the whole model the largest share of a layer",
        "which layer the predictions depend on most sharply", "as the trace", low=0.0, high=1.0,
    ),
    Quantity(
        "fisher/effective_dimension", "effective dimension", "tr F (F + d)^-1", "parameters", "sum_k F_kk/(F_kk + d), d the damping",
        "how many parameters the data determine better than a prior of precision d; correlations are left out", "fixed batch; scatters with few draws",
        "MacKay 1992; diagonal form", "log", 1.25, low=0.0,
    ),
    Quantity(
        "fisher/diag_mean", "mean of the Fisher diagonal", "mean F_kk", "1", "tr F/P, over the draws of fisher/trace_mc",
        "information about a single parameter, layer by layer whatever their sizes", "fixed batch", scale="log", minimum_effect=1.25, low=0.0,
    ),
    Quantity(
        "fisher/diag_max", "maximum of the Fisher diagonal", "max F_kk", "1", "max_k F_kk, over the draws of fisher/trace_mc",
        "the parameter that is known best", "fixed batch; too large with few draws", scale="log", minimum_effect=1.25, low=0.0,
    ),
    Quantity(
        "fisher/diag_participation", "participation ratio of the Fisher diagonal", "PR(F)", "parameters", "(sum_k F_kk)^2/sum_k F_kk^2",
        "over how many parameters the information is spread; too small with few draws", "fixed batch", scale="log", minimum_effect=1.25, low=1.0,
    ),
    Quantity(
        "fisher/top_eigenvalue", "largest eigenvalue of the GGN", "lam_1", "1", "Lanczos with a few products, from below",
        "curvature in the sharpest direction; gradient descent is stable below 2/eta", "on request, fixed batch", "Lanczos 1950", "log", 1.25, low=0.0,
    ),
    Quantity(
        "fisher/speed", "information speed", "ds", "nats^1/2", "sqrt(dw^T F dw) with the diagonal of F, dw the change of one step",
        "how far one step moves the predictions, parameters taken one by one", "fixed batch, small step", scale="log", minimum_effect=1.25, low=0.0,
    ),
    Quantity(
        "fisher/length", "information length", "L", "nats^1/2", "sum over steps of ds, the measured one standing for those since the last",
        "how far the run has come through the manifold of predictions, as the diagonal sees it", "fixed batch; grows with the resolution",
    ),
    Quantity(
        "fisher/output_speed", "output speed", "ds_out", "rad", "rms over rows of 2 arccos sum_v sqrt(p_v q_v), p before and q after the step",
        "how far one step moves the predictions, exactly; ds^2 is twice the divergence to second order", "categorical output, fixed batch",
        scale="log", minimum_effect=1.25, low=0.0,
    ),
    Quantity(
        "fisher/output_length", "output length", "L_out", "rad", "sum over steps of ds_out, the measured one standing for those since the last",
        "how far the run has come through the manifold of predictions", "categorical output, fixed batch; grows with the resolution",
    ),
    Quantity(
        "fisher/covered_share", "share of the gradient that is covered", "|g_c|^2/|g|^2", "1",
        "squared norm of the gradient in parameters whose per-example norms are read / squared norm of the whole gradient",
        "how much of the model the empirical Fisher information and the noise scale speak of", "a gradient exists", "ours", low=0.0, high=1.0,
    ),
    Quantity(
        "fisher/proxy_ratio", "Adam's proxy over the exact value", "tr F_Adam/tr F", "1", "fisher/trace_adam_proxy / fisher/trace_empirical of the same step",
        "how far the free proxy can be trusted in this run; its error is that of the exact value", "both valid, every parameter covered", "ours",
    ),
    Quantity(
        "fisher/noise_trace", "gradient noise", "tr S", "1", "B/(B - 1) (mean_i |g_i|^2 - |mean_i g_i|^2)",
        "trace of the covariance of per-example gradients", "B >= 2; negative values are sampling error", "arXiv:1812.06162",
        "log", 1.25,
    ),
    Quantity(
        "fisher/gradient_noise_scale", "gradient noise scale", "B_simple", "examples",
        "tr S / |G|^2, both averaged with 0.995 apart, |G|^2 = (B |gbar|^2 - mean_i |g_i|^2)/(B - 1)",
        "batch size at which noise and signal of the gradient are equal", "B >= 2 and |G|^2 > 0", "McCandlish et al. 2018, arXiv:1812.06162",
        "log", 1.25, low=0.0,
    ),
    Quantity(
        "fisher/gradient_coherence", "gradient coherence", "C", "examples",
        "n |gbar|^2/mean_i |g_i|^2 = 1 + sum_{i != j} <g_i, g_j>/sum_i |g_i|^2; for N examples of data 1 + (N - 1) <g_i, g_j>/mean_i |g_i|^2",
        "how many examples a step on one of them helps: 1 where each is learned by itself, as by heart; more where training on others helps it",
        "two examples, nine tenths of the parameters covered, loss above rounding", "Chatterjee & Zielinski 2020, arXiv:2008.01217",
    ),
)  # fmt: skip

_REPRESENTATION = (
    Quantity(
        "repr/representation_entropy", "representation entropy", "H_norm", "1",
        "ln det(I + d/(n eps^2) Z^T Z) / (d ln(1 + 1/eps^2)), unit rows, eps = 0.1",
        "rate-distortion volume of the representations; capped below 1 when n < d", "n >= 1 nonzero rows",
        "arXiv:2402.03471 (reconstruction)", minimum_effect=0.03, watched=True, group="representation", low=0.0, high=1.0,
    ),
    Quantity(
        "repr/spectral_entropy", "spectral entropy", "H(lam)/ln d", "1",
        "-sum lam ln lam / ln d, lam = normalised eigenvalues of the centred covariance",
        "1: variance in all directions, 0: in one; falls when representations reorganise", "n >= 2, not constant",
        "arXiv:2604.13123", minimum_effect=0.03, watched=True, group="representation", low=0.0, high=1.0,
    ),
    Quantity(
        "repr/effective_rank", "effective rank", "e^H(lam)", "directions", "exp(-sum lam ln lam)",
        "number of directions that carry the variance", "n >= 2, not constant", "Roy & Vetterli 2007",
        "log", 1.25, low=1.0,
    ),
    Quantity(
        "repr/participation_ratio", "participation ratio", "PR", "directions", "(sum lam)^2 / sum lam^2",
        "number of dominant directions", "n >= 2, not constant", scale="log", minimum_effect=1.25, low=1.0,
    ),
    Quantity(
        "repr/head_tail_contrast", "head against tail", "m", "1", "ln(sum of the top 5 lam / sum of the rest)",
        "how far a few directions stand out; over runs its Binder cumulant tells one kind of run from two",
        "more than 5 directions, rest > 0", "arXiv:2603.24746 (second-hand); Binder 1981",
    ),
    Quantity(
        "repr/information_gain", "information gain", "IG", "nats",
        "(1/2) ln(1 + s^2/sigma^2), s^2 = min_a |x - X^T a|^2 + sigma^2 |a|^2, unit rows, sigma = 0.01",
        "what a token adds to those before it; the gains of a sentence add up to a log-determinant", "finite rows",
        "identity standard; arXiv:2402.03471 (kernel not public: reconstruction)", low=0.0,
    ),
    Quantity(
        "repr/lasso_attention_overlap", "overlap of selected and attended tokens", "J", "1",
        "top-k Jaccard index of |a| and head-mean attention, a = argmin |x_T - X^T a|^2/(2d) + lambda |a|_1, lambda = 1e-4",
        "whether attention goes to the tokens that a sparse regression of the last one picks; beside its value by chance",
        "k tokens that are selected", "arXiv:2402.03471 (lambda second-hand, loss scaling ours)", low=0.0, high=1.0,
    ),
    Quantity(
        "repr/cov_dist_frobenius", "Frobenius distance of sentences", "d_F", "1", "|A - B|_F, A and B covariances of tokens",
        "how far two sentences lie apart", source="standard; arXiv:2402.03471 (which distances are used is not public)", low=0.0,
    ),
    Quantity(
        "repr/cov_dist_bures", "squared Bures distance of sentences", "d_B^2", "1", "tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2",
        "what moves one cloud of tokens to the other, as Gaussians of equal mean", low=0.0,
    ),
    Quantity(
        "repr/cov_dist_affine_invariant", "affine-invariant distance of sentences", "d_A", "1",
        "|ln(A^-1/2 B A^-1/2)|_F, ridge 1e-6", "distance of covariances as ellipsoids; depends on the ridge where ranks are low",
        low=0.0,
    ),
    Quantity(
        "repr/cov_dist_stein", "Stein distance of sentences", "d_S", "nats", "ln det((A + B)/2) - (1/2) ln det(A B), ridge 1e-6",
        "as the affine-invariant one, through determinants", low=0.0,
    ),
    Quantity(
        "repr/cov_dist_jensen_shannon", "matrix Jensen-Shannon divergence of sentences", "JS", "nats",
        "S((A' + B')/2) - (S(A') + S(B'))/2, A' = A/tr A, S(A) = -tr A ln A",
        "how far the directions of two sentences lie apart, whatever their spread", "no constant sentence",
        low=0.0, high=math.log(2),
    ),
    Quantity(
        "repr/size_power_law", "exponent over model size", "alpha", "1", "slope of ln H_norm on ln(parameters)",
        "how representation entropy changes with model size; at fixed n width alone makes it fall, so it is shown beside random tokens",
        ">= 5 sizes, equal n, same sentences", "power law: arXiv:2402.03471, exponents not public; null measured by us",
    ),
)  # fmt: skip

_RECONSTRUCTION = "reconstruction: the definition of Kim 2026, arXiv:2602.08216, is not public"
_FIXED = "fixed probe batch, n >= 2"
_GEOMETRY = (
    Quantity(
        "geom/fisher_rao_distance", "Fisher-Rao distance", "d", "rad", "2 arccos sum_i sqrt(p_i q_i), p and q attention rows before and after",
        "how far attention has moved since the last reading", _FIXED, "standard", "log", 1.25, low=0.0, high=math.pi,
    ),
    Quantity(
        "geom/kinetic_time", "kinetic term in time", "d^2/2k^2", "nats/step^2", "d^2 / (2 k^2), k optimizer steps between the readings",
        "half the squared speed of the attention", _FIXED, _RECONSTRUCTION, "log", 1.25, low=0.0,
    ),
    Quantity(
        "geom/kinetic_depth", "kinetic term in depth", "d^2/2", "nats", "d(pbar_l, pbar_(l+1))^2 / 2, pbar the mean over the heads of a layer",
        "how much attention changes from one layer to the next, depth as time", "fixed probe batch, two layers of equal shape", _RECONSTRUCTION, "log", 1.25, low=0.0,
    ),
    Quantity(
        "geom/lagrangian", "Lagrangian candidate", "K - F", "nats", "d^2/(2 k^2) + ln Z - mean z - ln n, mass 1",
        "kinetic term minus gauge-free free energy; at rest stationary at the softmax; mass, sign and gauge are our choices", _FIXED, _RECONSTRUCTION, low=0.0,
    ),
    Quantity(
        "geom/thermo_length", "thermodynamic length", "Lc", "rad", "sum_t d_t over the readings so far",
        "how far attention has come; grows with the resolution, so compare at equal cadence", _FIXED, "Crooks 2007, arXiv:0706.0559", low=0.0,
    ),
    Quantity(
        "geom/thermo_length_coarse", "thermodynamic length at twice the stride", "Lc(2)", "rad", "sum of d between every second reading",
        "equal to the length for a straight path, about 1/sqrt 2 of it where the length is noise", _FIXED, "Crooks 2007, arXiv:0706.0559", low=0.0,
    ),
    Quantity(
        "geom/thermo_divergence", "thermodynamic divergence", "J", "rad^2", "N sum_t d_t^2 over the N moves so far",
        "cost of the path; at least the square of its length", _FIXED, "Crooks 2007, arXiv:0706.0559", low=0.0,
    ),
    Quantity(
        "geom/path_efficiency", "path efficiency", "Lc^2/J", "1", "Lc^2 / J",
        "1: attention moves at constant speed; low: in few leaps", "the path moved", "Crooks 2007, arXiv:0706.0559", low=0.0, high=1.0,
    ),
    Quantity(
        "geom/heat", "heat", "q", "logits", "sum_i mean(E_i) Dp_i, E = -z, mean of before and after",
        "energy that came with weights moving between keys; T DS to third order", _FIXED, "identity DU = q + w; its reading a reconstruction",
    ),
    Quantity(
        "geom/work", "work", "w", "logits", "sum_i mean(p_i) DE_i",
        "energy that came with the logits moving under the weights; gauge dependent", _FIXED, "identity DU = q + w; its reading a reconstruction",
    ),
    Quantity(
        "geom/work_inference", "work of inference", "w_inf", "logits", "sum_i mean(p_i) DE_i, DE from the other input, mean of both orders",
        "the part of the work between two inputs and two sets of parameters that the input does; gauge dependent",
        "two fixed batches of equal shape and mask", _RECONSTRUCTION,
    ),
    Quantity(
        "geom/work_learning", "work of learning", "w_learn", "logits", "sum_i mean(p_i) DE_i, DE from the update, mean of both orders",
        "the part that the update of the parameters does; gauge dependent", "two fixed batches of equal shape and mask", _RECONSTRUCTION,
    ),
    Quantity(
        "geom/dissipation", "dissipation", "KL(p0|p1)", "nats", "sum_i p0_i DE_i - DF = KL(p0 | p1)",
        "what a sudden change costs beyond the free energy; never negative", _FIXED, "identity; its reading a reconstruction", "log", 1.25, low=0.0,
    ),
    *(
        Quantity(
            f"geom/kappa_{name}", f"slope of {symbol} with the context", f"d<{symbol}>/d ln n", "1",
            f"slope against ln n of the means of {symbol} over octaves of n; the error is half its 95 % interval",
            "0 within its error, and a falling spread: does not depend on how long the context is",
            "4 octaves of 100 rows", _RECONSTRUCTION + "; surrogate for kappa",
        )
        for name, symbol in (("specific_heat", "C"), ("specific_heat_norm", "C/C_max"), ("entropy_fraction", "S/ln n"), ("free_energy_gap", "gap/ln n"))
    ),
    *(
        Quantity(
            f"geom/kappa_{name}_spread", f"spread of {symbol} with the context", f"sd ratio of {symbol}", "1",
            f"standard deviation of {symbol} over the rows of the last octave of n over that of the first",
            "below 1: rows agree more, the longer the context", "4 octaves of 100 rows", _RECONSTRUCTION + "; surrogate for kappa", low=0.0,
        )
        for name, symbol in (("specific_heat", "C"), ("specific_heat_norm", "C/C_max"), ("entropy_fraction", "S/ln n"), ("free_energy_gap", "gap/ln n"))
    ),
    Quantity(
        "geom/rope_flat_residual", "residual of the flat direction", "|dz|/|z|", "1", "max |change of z| / max |z| when a query and its keys turn by common angles",
        "0 to rounding: the common rotation of the rotary planes is an exact zero mode", "rotary positions", "identity; Su et al. 2021, arXiv:2104.09864", low=0.0,
    ),
    Quantity(
        "geom/rope_mass", "mass of the rotary planes", "m_j", "nats", "<z_j> - Var_p(dz_j/dphi_j), the query turned in plane j; mean over planes",
        "curvature of the free energy for turning a query in one plane: what is not massless; any sign", "rotary positions", _RECONSTRUCTION,
    ),
    Quantity(
        "geom/rope_mass_spectrum", "mass of the softest rotary plane", "min m_j", "nats", "least mean mass of a plane of a head; the map has one row per layer and head, one column per plane",
        "where the spectrum of masses begins: a plane near 0 turns for free", "rotary positions", _RECONSTRUCTION,
    ),
    Quantity(
        "geom/rope_shift_response", "response to a shift of the query", "dF/ddelta", "nats/position", "-sum_j theta_j <dz_j/dphi_j>",
        "change of the free energy when a query moves on by one position and its keys do not", "rotary positions, angles known", _RECONSTRUCTION,
    ),
)  # fmt: skip

_MONITOR = (
    Quantity(
        "monitor/milliseconds", "time spent in the monitor", "t", "ms", "wall time of our calls since the last full measurement",
        "what the monitor costs", low=0.0,
    ),
    Quantity(
        "monitor/bytes", "bytes brought to the host", "b", "bytes", "bytes copied from the device since the last full measurement",
        "what the monitor moves", low=0.0,
    ),
    Quantity(
        "monitor/stretch", "stretch of the cadence", "k", "1", "steps between full measurements / steps between them by schedule",
        "how far the budget makes the monitor measure less often", "a budget was given", low=1.0,
    ),
    Quantity(
        "monitor/overhead", "share of time spent in the monitor", "t/T", "1", "wall time of our calls / wall time of the run",
        "what the monitor costs, as a share", low=0.0,
    ),
    Quantity("monitor/disabled", "parts switched off", "k", "1", "number of probes and sinks switched off after an error", "what is no longer measured", low=0.0),
)  # fmt: skip

_DETECTION = (
    Quantity(
        "detect/score", "progress towards an alarm", "ln F/ln A", "1",
        "max(ln F, 0) / ln A, F = sum_k w_k SR_k over the watched quantities; the largest since the last tick",
        "evidence of all watched quantities together that something has changed: an alarm is raised at 1", "a baseline is known",
        "Shin, Ramdas, Rinaldo 2024 (e-detectors); the scale is ours", low=0.0, high=1.0,
    ),
    Quantity(
        "detect/early_warning", "early warning (experimental)", "W", "1",
        "larger of min(C/1.1, C/1.6 C(t/2)), C the gradient coherence, and min(smaller fall / e, sum of falls / 2.5 e) of the entropies of repr/, e = .03; at most 1",
        "how far a generalization is on its way to be announced: 1 where it is; no alarm itself",
        "a baseline is known; 0 before the training set is fitted", "ours; judged in docs/transitions.md", low=0.0, high=1.0,
    ),
)  # fmt: skip

REGISTRY: dict[str, Quantity] = {
    q.key: q
    for q in (
        *_ATTENTION,
        *_OUTPUT,
        *_OPTIMISER,
        *_TEMPERATURE,
        *_LOSS_WINDOW,
        *_FISHER,
        *_REPRESENTATION,
        *_GEOMETRY,
        *_MONITOR,
        *_DETECTION,
    )
}


def get(key: str) -> Quantity:
    """The entry of a key, or a ``ValueError`` that names what is close to it.

    Example:
        >>> get("attn/entropy").unit
        'nats'
    """
    if key in REGISTRY:
        return REGISTRY[key]
    import difflib

    near = difflib.get_close_matches(key, REGISTRY, n=3, cutoff=0.3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise ValueError(f"unknown quantity {key!r}{hint}")
