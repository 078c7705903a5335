"""Temperatures of stochastic gradient descent: how hot the noise of the gradient keeps the weights.

Heavy ball, with v the velocity: ``v' = mu v - eta g``, ``w' = w + v'``; g includes weight decay. Averages ``<.>`` are
over a stationary stretch of the run. On a quadratic with curvature h and gradient noise of variance s^2 per coordinate
all come to ``h Var(w) = eta s^2 (1 + mu) / ((1 - mu)(2 (1 + mu) - eta h))``. Under adaptive optimizers there is no
temperature; only the norm balance keeps its meaning.
"""

from __future__ import annotations

import math


def sgd_temperature(
    lr: float, noise: float, *, batch: float, parameters: float, momentum: float = 0.0, dataset: float = math.inf
) -> float:
    """Temperature of the gradient noise, ``eta tr Sigma / (2 B P (1 - mu))``, times ``(N - B)/(N - 1)`` for N examples.

    What the noise alone implies, where ``eta h`` is small: the other temperatures measure what the weights do.
    Jastrzebski et al. 2017, arXiv:1711.04623; Mandt et al. 2017, arXiv:1704.04289.

    Args:
        lr: eta.
        noise: tr Sigma, trace of the covariance of per-example gradients.
        batch: B.
        parameters: P.
        momentum: mu.
        dataset: N, where examples are drawn without replacement.

    Returns:
        In units of the loss; NaN where the batch is all there is.

    Example:
        >>> sgd_temperature(0.1, noise=8.0, batch=8, parameters=1)
        0.05
        >>> sgd_temperature(0.1, noise=8.0, batch=8, parameters=1, dataset=8)
        nan
    """
    if batch >= dataset:
        return math.nan
    finite = (dataset - batch) / (dataset - 1) if math.isfinite(dataset) else 1.0
    return lr * noise * finite / (2 * batch * parameters * (1 - momentum))


def sgd_noise_scale(lr: float, *, batch: float, dataset: float, momentum: float = 0.0) -> float:
    """Noise scale of the optimizer, ``eta (N/B - 1) / (1 - mu)`` (Smith & Le 2018, arXiv:1710.06451).

    Returns:
        NaN where the batch is all there is.

    Example:
        >>> sgd_noise_scale(0.1, batch=10, dataset=1010, momentum=0.5), sgd_noise_scale(0.1, batch=10, dataset=10)
        (20.0, nan)
    """
    return lr * (dataset / batch - 1) / (1 - momentum) if batch < dataset else math.nan


def configurational_temperature(weights_by_gradient: float, parameters: float) -> float:
    """``<w . g> / P``: by equipartition T for each parameter, wherever the optimum lies, if ``<g> = 0``.

    Exactly zero for weights whose scale does not matter. Wenzel et al. 2020, arXiv:2002.02405.

    Example:
        >>> configurational_temperature(6.0, parameters=3)
        2.0
    """
    return weights_by_gradient / parameters


def kinetic_temperature(update_square: float, lr: float, parameters: float, momentum: float = 0.0) -> float:
    """``(1 + mu) / (2 eta) <|v'|^2> / P``, v' being the change of the weights in a step.

    Without momentum ``(eta/2) <|g|^2> / P``. Far from stationarity it contains the drift and is larger.

    Example:
        >>> round(kinetic_temperature(0.04, lr=0.1, parameters=2, momentum=0.5), 6)
        0.15
    """
    return (1 + momentum) / (2 * lr) * update_square / parameters


def fluctuation_dissipation_ratio(configurational: float, kinetic: float) -> float:
    """Configurational over kinetic temperature: 1 where ``<|w|^2>`` and ``<w . v>`` are stationary.

    The first fluctuation-dissipation relation of Yaida 2018, arXiv:1810.00004, for heavy ball.

    Example:
        >>> fluctuation_dissipation_ratio(0.5, 0.25)
        2.0
    """
    return configurational / kinetic if kinetic > 0 else math.nan


def norm_balance(weights_by_update: float, update_square: float) -> float:
    """``-2 <w . dw> / <|dw|^2>``: 1 if and only if the mean squared norm of the weights is constant.

    Follows from ``|w + dw|^2 - |w|^2 = 2 w . dw + |dw|^2``; any optimizer. A test of stationarity, no temperature.

    Example:
        A step that turns the weights and keeps their length.

        >>> norm_balance(weights_by_update=-1.0, update_square=2.0)
        1.0
    """
    return -2 * weights_by_update / update_square if update_square > 0 else math.nan


def loss_specific_heat(loss_variance: float, temperature: float) -> float:
    """``Var(L) / T^2`` over a stationary window, of the loss of fixed examples: d/2 for d quadratic directions.

    Example:
        >>> loss_specific_heat(0.5, temperature=0.5)
        2.0
    """
    return loss_variance / temperature**2 if temperature > 0 else math.nan


def loss_degrees_of_freedom(mean_loss: float, least_loss: float, loss_variance: float) -> float:
    """``2 (<L> - L*)^2 / Var(L)``: the number of quadratic directions that fluctuate, without a temperature.

    Equipartition gives ``<L> - L* = k T / 2`` and ``Var(L) = k T^2 / 2``; the temperature drops out. Definition ours.

    Args:
        mean_loss: mean over a stationary window.
        least_loss: L*, the least possible loss.
        loss_variance: variance over the window.

    Example:
        >>> round(loss_degrees_of_freedom(1.5, 0.5, 0.2), 6)
        10.0
    """
    return 2 * (mean_loss - least_loss) ** 2 / loss_variance if loss_variance > 0 else math.nan
