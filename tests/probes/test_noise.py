"""The gradient noise scale from micro-batches and from ranks."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from thermo_monitor import Monitor
from thermo_monitor.probes import NoiseScaleProbe
from thermo_monitor.sinks import MemorySink

NOISE, SCALE = "fisher/noise_trace", "fisher/gradient_noise_scale"


def data(step, size=12):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(size, 3, generator=generator), torch.randint(4, (size,), generator=generator)


def run(model, steps=1, parts=3, scale=1.0, backwards=1, probe=None, size=12):
    sink = MemorySink()
    with Monitor(model, every=1, preset=[probe or NoiseScaleProbe()], sinks=[sink], strict=True) as monitor:
        for step in range(steps):
            with monitor.step(step):
                inputs, labels = data(step, size)
                for x, y in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
                    loss = F.cross_entropy(model(x), y)
                    monitor.loss(loss)
                    for _ in range(backwards):
                        (loss * scale / parts).backward(retain_graph=backwards > 1)
                for p in model.parameters():
                    p.grad /= scale
                monitor.gradients()
                model.zero_grad()
    return sink


def last(sink, key):
    return [r for r in sink.readings if r.quantity == key][-1]


@pytest.mark.parametrize("scale", [1.0, 2.0**14])
def test_it_is_the_pair_estimate_of_its_definition(scale):
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    inputs, labels = data(0)

    def gradient(rows):
        loss = F.cross_entropy(model(inputs[rows]), labels[rows])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).double()

    small = sum(gradient(slice(4 * k, 4 * k + 4)).square().sum() for k in range(3)).item() / 3
    big = gradient(slice(None)).square().sum().item()
    found = run(model, scale=scale)
    assert last(found, NOISE).value == pytest.approx((small - big) / (1 / 4 - 1 / 12), rel=1e-5)
    signal = (12 * big - 4 * small) / 8
    expected = last(found, NOISE).value / signal if signal > 0 else math.nan
    assert last(found, SCALE).value == pytest.approx(expected, rel=1e-4, nan_ok=True)


def test_it_finds_the_noise_of_the_population():
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    sink = run(model, steps=400)
    inputs, labels = (torch.cat(parts) for parts in zip(*(data(step) for step in range(400)), strict=True))
    with torch.no_grad():
        residual = model(inputs).softmax(-1) - F.one_hot(labels, 4)
    extended = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    gradients = torch.einsum("no,ni->noi", residual, extended).flatten(1).double()
    noise, mean = gradients.var(0, correction=1).sum().item(), gradients.mean(0).square().sum().item()
    values = sink.series(NOISE)[1]
    assert abs(values.mean() - noise) < 5 * values.std() / 20
    # The averages still remember the start: a few per cent, and the signal scatters more than the noise.
    assert last(sink, SCALE).value == pytest.approx(noise / mean, rel=0.3)


@pytest.mark.parametrize(("options", "why"), [({"parts": 1}, "n_lt_2"), ({"backwards": 2}, "second_backward")])
def test_where_it_says_nothing_it_says_why(options, why):
    found = run(nn.Linear(3, 4), **options)
    assert last(found, NOISE).reason == last(found, SCALE).reason == why
    assert math.isnan(last(found, NOISE).value)


def test_gradients_that_are_not_finite_are_no_reading():
    model = nn.Linear(3, 4)
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    assert last(run(model), NOISE).reason == "non_finite"


def test_a_copy_of_the_model_carries_nothing_and_closing_takes_the_hooks_off():
    model = nn.Linear(3, 4)
    with Monitor(model, every=1, preset=[NoiseScaleProbe()], sinks=[], strict=True):
        assert len(model.weight._backward_hooks) == 1
        twin = copy.deepcopy(model)
        twin(torch.ones(2, 3)).sum().backward()
    assert not model.weight._backward_hooks
