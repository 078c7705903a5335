"""Temperatures in live trainings whose answer is known, and why there is none."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models import batches, build, train
from thermo_monitor import Monitor
from thermo_monitor.probes import TemperatureProbe
from thermo_monitor.probes.temperature import _OF_SGD
from thermo_monitor.probes.temperature_readings import BALANCE, CONFIGURATIONAL, FDR, KINETIC, LOGITS
from thermo_monitor.sinks import MemorySink


class Valley(nn.Module):
    """A quadratic valley, not at the origin, in whose gradient there is noise of variance 1."""

    def __init__(self, width=400, h=1.3, offset=0.0):
        super().__init__()
        self.h, self.offset = h, offset
        self.weights = nn.Parameter(torch.zeros(width) + offset)
        self.generator = torch.Generator().manual_seed(0)

    def forward(self):
        noise = torch.randn(self.weights.shape, generator=self.generator)
        return 0.5 * self.h * (self.weights - self.offset).square().sum() + noise @ self.weights


def run(model, optimizer, steps, probe=None, every=1, between=None):
    sink = MemorySink()
    with Monitor(
        model, optimizer, every=every, preset=[probe or TemperatureProbe()], sinks=[sink], strict=True
    ) as monitor:
        for step in range(steps):
            with monitor.step(step):
                loss = model()
                monitor.loss(0.5 * model.h * (model.weights - model.offset).square().sum())
                loss.backward()
                monitor.gradients()
                if between is not None:
                    between(step, model, optimizer)
                optimizer.step()
                optimizer.zero_grad()
    return sink


def last(sink, key):
    return [r for r in sink.readings if r.quantity == key][-1]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_in_a_valley_has_the_temperature_of_the_closed_form(momentum):
    model = Valley()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    sink = run(model, optimizer, 1500, TemperatureProbe(window=1000))
    exact = 0.1 * (1 + momentum) / ((1 - momentum) * (2 * (1 + momentum) - 0.1 * 1.3))
    for key in (CONFIGURATIONAL, KINETIC):
        reading = last(sink, key)
        assert 0 < reading.error < 0.1 * exact
        assert abs(reading.value - exact) < 5 * reading.error, key
    ratio = last(sink, FDR)
    assert 0 < ratio.error < 0.1
    assert abs(ratio.value - 1) < 5 * ratio.error
    balance = last(sink, BALANCE)
    assert abs(balance.value - 1) < 5 * balance.error + 0.01


def test_weight_decay_is_part_of_the_force():
    # With decay the valley is steeper by it and the ratio is 1; left out, it would be 1.3/(1.3 + .7).
    model = Valley()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.7)
    ratio = last(run(model, optimizer, 1200, TemperatureProbe(window=800)), FDR)
    assert abs(ratio.value - 1) < 5 * ratio.error
    assert ratio.error < 0.06


def test_a_sample_of_the_elements_gives_the_same():
    model = Valley(width=4000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kinetic = last(run(model, optimizer, 700, TemperatureProbe(window=400, elements=500)), KINETIC)
    assert kinetic.value == pytest.approx(0.1 / (2 - 0.13), rel=0.03)


def test_cold_start_is_too_early_and_a_descent_is_not_stationary():
    model = Valley()
    with torch.no_grad():
        model.weights += 50.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    sink = run(model, optimizer, 100)
    reasons = [r.reason for r in sink.readings if r.quantity == KINETIC]
    assert reasons[:63] == ["too_early"] * 63
    assert reasons[-1] == "not_stationary"


def test_weights_that_drift_under_a_loss_that_stands_still_have_no_configurational_temperature():
    # The measured loss lies flat along a direction, in which a constant force moves weights that are far from zero.
    class Slope(Valley):
        def forward(self):
            return super().forward() - 2.0 * self.weights.sum()

    model = Slope(h=0.0, offset=-500.0)
    sink = run(model, torch.optim.SGD(model.parameters(), lr=0.001), 200)
    heat, ratio = last(sink, CONFIGURATIONAL), last(sink, FDR)
    assert (heat.value != heat.value, heat.reason) == (True, "not_stationary")
    assert ratio.value > 2 + 4 * ratio.error
    assert last(sink, KINETIC).value > 0


def test_another_learning_rate_starts_the_window_again():
    def between(step, model, optimizer):
        if step == 100:
            optimizer.param_groups[0]["lr"] = 0.05

    model = Valley()
    sink = run(model, torch.optim.SGD(model.parameters(), lr=0.1), 170, between=between)
    reasons = [r.reason for r in sink.readings if r.quantity == BALANCE]
    assert reasons[101:164] == ["too_early"] * 63  # the gradient of step 100 was read before the rate was changed
    assert reasons[164] != "too_early"


def test_a_gradient_that_is_clipped_is_noticed():
    def between(step, model, optimizer):
        nn.utils.clip_grad_norm_(model.parameters(), 15.0)

    model = Valley()
    sink = run(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), 400, between=between)
    assert last(sink, KINETIC).reason == "altered_gradient"


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.AdamW(p, lr=1e-3),
        lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, nesterov=True),
        lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, dampening=0.5),
    ],
)
def test_other_optimizers_have_no_temperature_but_a_norm_balance(make):
    model = Valley(offset=1.0)
    sink = run(model, make(model.parameters()), 100)
    for key in _OF_SGD:
        assert last(sink, key).reason == "unsupported_optimizer"
    balance = [r for r in sink.readings if r.quantity == BALANCE]
    assert all(r.reason in ("too_early", "not_stationary", None) for r in balance)


def test_full_batch_training_has_no_temperature():
    model, sink = build(), MemorySink()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with Monitor(model, optimizer, every=1, preset=[TemperatureProbe(window=32)], sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=40, optimizer=optimizer, data=batches(1))
    for key in _OF_SGD:
        assert last(sink, key).reason == "full_batch"
    assert last(sink, LOGITS).value > 0


def test_without_an_optimizer_or_a_gradient_it_says_so():
    model, sink = build(), MemorySink()
    with Monitor(model, every=1, preset=[TemperatureProbe()], sinks=[sink], strict=True) as monitor:
        train(model, monitor)
    assert last(sink, FDR).reason == "no_optimizer"
    frozen, sink = build(), MemorySink()
    frozen.requires_grad_(False)
    with Monitor(frozen, every=1, preset=[TemperatureProbe()], sinks=[sink], strict=True) as monitor, monitor.step(0):
        monitor.loss(torch.ones(()))
        monitor.gradients()
    assert last(sink, BALANCE).reason == "no_gradient"


def test_the_logit_temperature_falls_as_logits_grow():
    logits = torch.randn(50, 7)
    centred = logits - logits.mean(1, keepdim=True)
    found = []
    for c in (1.0, 4.0):
        sink = MemorySink()
        probe = TemperatureProbe(quantities=(LOGITS,))
        with Monitor(nn.Linear(1, 1), every=1, preset=[probe], sinks=[sink], strict=True) as monitor, monitor.step(0):
            monitor.loss(F.cross_entropy(c * logits + 3.0, torch.zeros(50, dtype=torch.int64)))
        found.append(last(sink, LOGITS).value)
    assert found[0] == pytest.approx(1 / centred.square().mean().sqrt().item(), rel=1e-5)
    assert found[1] == pytest.approx(found[0] / 4, rel=1e-5)


@pytest.mark.parametrize("options", [{"window": 8}, {"elements": 1}, {"tokens": 0}, {"quantities": ("opt/heat",)}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=r"window=8|elements=1|tokens=0|unknown quantity"):
        TemperatureProbe(**options)
