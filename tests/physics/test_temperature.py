"""Temperatures against the closed forms of noisy quadratics."""

import math

import pytest
import torch

from thermo_monitor.physics import temperature as T


@pytest.mark.parametrize(("momentum", "expected", "noise_only"), [(0.0, 0.053476, 0.05), (0.9, 0.517711, 0.5)])
def test_the_discrete_recurrence_of_heavy_ball_on_a_quadratic(momentum, expected, noise_only):
    lr, h, s2 = 0.1, 1.3, 1.0
    # Covariance of (w, v) at stationarity by iteration: exact, no sampling.
    step = torch.tensor([[1 - lr * h, momentum], [-lr * h, momentum]], dtype=torch.float64)
    noise = lr * lr * s2 * torch.ones(2, 2, dtype=torch.float64)
    covariance = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(5000):
        covariance = step @ covariance @ step.T + noise
    variance, kinetic = covariance[0, 0].item(), covariance[1, 1].item()
    closed = lr * s2 * (1 + momentum) / ((1 - momentum) * (2 * (1 + momentum) - lr * h))
    assert h * variance == pytest.approx(closed, rel=1e-9)
    assert closed == pytest.approx(expected, rel=1e-5)
    configurational = T.configurational_temperature(h * variance, 1)
    measured = T.kinetic_temperature(kinetic, lr, 1, momentum)
    assert T.fluctuation_dissipation_ratio(configurational, measured) == pytest.approx(1, rel=1e-9)
    assert T.sgd_temperature(lr, s2 * 16, batch=16, parameters=1, momentum=momentum) == pytest.approx(noise_only)
    if momentum:  # the formula without momentum is wrong by a lot
        assert T.kinetic_temperature(kinetic, lr, 1) < 0.6 * measured


def test_langevin_at_a_known_temperature():
    # Draws from the exact Gaussian: w ~ N(0, T/h) in d directions.
    temperature, d, draws = 0.3, 20, 40_000
    generator = torch.Generator().manual_seed(0)
    h = torch.linspace(0.5, 4, d, dtype=torch.float64)
    w = torch.randn(draws, d, generator=generator, dtype=torch.float64) * (temperature / h).sqrt()
    found = T.configurational_temperature((w * h * w).sum(1).mean().item(), d)
    # w.g / P has standard deviation T sqrt(2/d).
    assert abs(found - temperature) < 5 * temperature * math.sqrt(2 / d / draws)
    loss = 0.5 * (h * w * w).sum(1)
    heat = T.loss_specific_heat(loss.var().item(), temperature)
    # Of a gamma variable with shape k = d/2 the variance has relative sd sqrt((2 + 6/k)/n).
    floor = 5 * math.sqrt((2 + 12 / d) / draws)
    assert heat == pytest.approx(d / 2, rel=floor)
    dof = T.loss_degrees_of_freedom(loss.mean().item(), 0.0, loss.var().item())
    assert dof == pytest.approx(d, rel=floor + 10 * math.sqrt(2 / d / draws))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_langevin_dynamics_has_the_temperature_of_its_bath(momentum):
    # Heavy ball in a bath: noise of variance 2 T (1 - mu) / eta in the force, many chains from rest.
    bath, lr, chains = 0.3, 0.02, 4000
    h = torch.linspace(0.5, 2, 10, dtype=torch.float64)
    d = len(h)
    generator = torch.Generator().manual_seed(0)
    w, v = torch.zeros(2, chains, d, dtype=torch.float64)
    kick = lr * math.sqrt(2 * bath * (1 - momentum) / lr)
    for _ in range(600 if momentum == 0 else 200):
        noise = torch.randn(w.shape, generator=generator, dtype=torch.float64)
        v = momentum * v - lr * h * w + kick * noise
        w = w + v
    # Of a finite step each direction is warmer than the bath by a factor in closed form, up to a hundredth.
    warm = bath / (1 - lr * h / (2 * (1 + momentum)))
    expected = warm.mean().item()
    assert expected == pytest.approx(bath, rel=0.015)
    sigma = expected * math.sqrt(2 / (d * chains))
    configurational = T.configurational_temperature((h * w * w).sum(1).mean().item(), d)
    kinetic = T.kinetic_temperature((v * v).sum(1).mean().item(), lr, d, momentum)
    assert abs(configurational - expected) < 5 * sigma
    assert abs(kinetic - expected) < 5 * sigma
    loss = 0.5 * (h * w * w).sum(1)
    heat = T.loss_specific_heat(loss.var().item(), bath)
    assert heat == pytest.approx(0.5 * (warm / bath).square().sum().item(), rel=5 * math.sqrt((2 + 12 / d) / chains))
    assert heat == pytest.approx(d / 2, rel=0.25)


def test_what_is_not_defined_is_nan():
    assert math.isnan(T.sgd_temperature(0.1, 1.0, batch=8, parameters=1, dataset=8))
    assert math.isnan(T.sgd_noise_scale(0.1, batch=8, dataset=8))
    assert math.isnan(T.norm_balance(0.0, 0.0))
    assert math.isnan(T.fluctuation_dissipation_ratio(1.0, 0.0))
    assert math.isnan(T.loss_specific_heat(1.0, 0.0))
    assert math.isnan(T.loss_degrees_of_freedom(1.0, 0.0, 0.0))


def test_a_smaller_dataset_is_a_smaller_noise():
    assert T.sgd_temperature(0.1, 1.0, batch=8, parameters=1, dataset=15) == pytest.approx(
        0.5 * T.sgd_temperature(0.1, 1.0, batch=8, parameters=1)
    )
