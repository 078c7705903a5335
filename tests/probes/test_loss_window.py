"""Fluctuations of the loss of fixed examples, where the answer is known."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models import batches, build, train
from thermo_monitor import Monitor
from thermo_monitor.probes import LossWindowProbe
from thermo_monitor.probes.loss_window import _DOF, _FUNCTIONAL, _HEAT, _POSSIBLE, _VARIANCE, detrended_variance
from thermo_monitor.sinks import MemorySink


class Regression(nn.Module):
    """Inputs are unit vectors, so that every weight is a direction of its own and the curvature is known."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x):
        return self.layer(x)


def wandering(width=40, steps=4000, every=8, window=400, lr=0.5, batch=20):
    """SGD on noisy labels of unit vectors; the loss of all of them without noise is a sum of quadratics."""
    generator = torch.Generator().manual_seed(0)
    model, sink = Regression(width), MemorySink()
    optimizer = torch.optim.SGD(model.parameters(), lr)
    inputs = torch.eye(width)
    probe = LossWindowProbe(
        inputs,
        torch.zeros(width, 1),
        loss=lambda y, t: (y - t).square().sum(1),
        window=window,
        least=0.0,
        examples=None,
    )
    with Monitor(model, optimizer, every=every, preset=[probe], sinks=[sink], strict=True) as monitor:
        for step in range(steps):
            with monitor.step(step):
                rows = torch.randint(width, (batch,), generator=generator)
                labels = torch.randn(batch, 1, generator=generator)
                loss = F.mse_loss(model(inputs[rows]), labels)
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()
                optimizer.step()
                optimizer.zero_grad()
    return {r.quantity: r for r in sink.readings}


def test_a_sum_of_quadratics_has_half_its_directions_for_specific_heat():
    width = 40
    found = wandering(width)
    # 500 readings of a chi-squared variable that hang together over some ten: a fifth is three standard errors.
    assert found[_DOF].value == pytest.approx(width, rel=0.35)
    assert found[_HEAT].value == pytest.approx(width / 2, rel=0.35)
    # The sum over examples of the variance of each: 2 sigma^4 each, where their mean has 2 sigma^4 / width.
    assert found[_FUNCTIONAL].value == pytest.approx(width**2 * found[_VARIANCE].value, rel=0.35)


def test_the_variance_is_that_around_a_line():
    x = np.random.default_rng(0).normal(size=(50, 3)) + np.arange(50)[:, None]
    line = np.stack([np.polyval(np.polyfit(np.arange(50), column, 1), np.arange(50)) for column in x.T], 1)
    assert detrended_variance(x) == pytest.approx(((x - line) ** 2).sum(0) / 48)


def run(optimizer_of, steps=24, data=None, window=20):
    model, sink = build(), MemorySink()
    optimizer = optimizer_of(model.parameters())
    tokens = batches(1)[0]
    probe = LossWindowProbe(tokens, tokens, window=window)
    with Monitor(model, optimizer, every=1, preset=[probe], sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=steps, optimizer=optimizer, data=data)
    return {r.quantity: r for r in sink.readings}


def test_without_a_temperature_there_is_no_specific_heat():
    found = run(torch.optim.AdamW)
    assert found[_HEAT].reason == "unsupported_optimizer"
    assert found[_VARIANCE].value > 0
    assert run(lambda p: torch.optim.SGD(p, 0.1), data=batches(1))[_HEAT].reason == "full_batch"
    assert {run(torch.optim.AdamW, steps=5)[key].reason for key in _POSSIBLE[:1]} == {"too_early"}


def test_a_loss_that_is_not_finite_is_no_reading():
    model, sink = nn.Linear(2, 2), MemorySink()
    probe = LossWindowProbe(torch.full((3, 2), math.inf), torch.zeros(3, dtype=torch.int64), quantities=(_VARIANCE,))
    with Monitor(model, every=1, preset=[probe], sinks=[sink], strict=True) as monitor, monitor.step(0):
        monitor.gradients()
    assert {r.quantity: r for r in sink.readings}[_VARIANCE].reason == "non_finite"


def test_a_short_window_is_refused():
    with pytest.raises(ValueError, match="window=8"):
        LossWindowProbe(torch.zeros(1), torch.zeros(1), window=8)
