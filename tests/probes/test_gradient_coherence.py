"""Gradient coherence as the probe reads it: against gradients taken one by one, and where it is not valid."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.reference.fisher import example_gradients
from thermo_monitor import Monitor
from thermo_monitor.probes.example_gradients import ExampleGradientProbe
from thermo_monitor.probes.example_readings import COHERENCE, COVERED
from thermo_monitor.sinks import MemorySink


def read(model, batches, examples=None, dataset=None):
    """The coherence of one step over some micro-batches."""
    sink, probe = (
        MemorySink(),
        ExampleGradientProbe(examples=examples, dataset=dataset, quantities=(COHERENCE, COVERED)),
    )
    with Monitor(model, every=1, preset=[probe], sinks=[sink], strict=True) as monitor, monitor.step(0):
        for inputs, labels in batches:
            loss = F.cross_entropy(model(inputs), labels) / len(batches)
            monitor.loss(loss)
            loss.backward()
        monitor.gradients()
    return next(r for r in sink.readings if r.quantity == COHERENCE)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def data(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, generator=generator), torch.randint(3, (count,), generator=generator)


def slow(model, batch):
    gradients = example_gradients(model, F.cross_entropy, *batch).values()
    g = torch.cat([x.flatten(1).double() for x in gradients], dim=1)
    return g @ g.T


def test_it_is_that_of_gradients_one_by_one_also_over_micro_batches():
    batch = data(12)
    gram = slow(network(), batch)
    known = (gram.sum() / gram.trace()).item()
    assert read(network(), [batch]).value == pytest.approx(known, rel=1e-5)
    halves = [tuple(x[rows] for x in batch) for rows in (slice(0, 6), slice(6, 12))]
    assert read(network(), halves).value == pytest.approx(known, rel=1e-5)


def test_of_the_data_that_a_batch_is_drawn_from():
    batch = data(12)
    gram = slow(network(), batch)
    product = (gram.sum() - gram.trace()) / (12 * 11)
    known = 1 + 99 * (product / (gram.trace() / 12)).item()
    found = read(network(), [batch], dataset=100)
    assert found.value == pytest.approx(known, rel=1e-5)
    assert 0 < found.error < abs(found.value)  # of the scale alone


def test_a_part_of_the_examples_says_it_with_an_error_bar():
    batch = data(64)
    whole = read(network(), [batch])
    part = read(network(), [batch], examples=16)
    assert 0 < part.error < part.value
    assert part.value == pytest.approx(whole.value, abs=4 * part.error)


def test_examples_with_the_same_gradient_help_each_other_in_full():
    inputs, labels = data(1)
    same = inputs.repeat(9, 1), labels.repeat(9)
    found = read(network(), [same])
    assert found.value == pytest.approx(9, rel=1e-5)
    assert found.error is None  # all were read: of this batch nothing is estimated


class Bare(nn.Module):
    """Most of it is a parameter that no module holds."""

    def __init__(self):
        super().__init__()
        self.bare, self.head = nn.Parameter(torch.randn(4, 32)), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(torch.tanh(x @ self.bare))


def test_it_is_not_told_of_a_part_of_the_model():
    found = read(Bare(), [data(8)])
    assert math.isnan(found.value)
    assert found.reason == "partly_covered"


def test_nor_of_a_gradient_that_is_rounding():
    inputs, _ = data(32)
    inputs[:, 0] = torch.tensor([36.0, -36.0]).repeat(16)
    labels = (inputs[:, 0] < 0).long()
    model = nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        model.weight.zero_()
        model.weight[0, 0], model.weight[1, 0] = 0.5, -0.5
    found = read(model, [(inputs, labels)])  # a loss of 2e-8
    assert math.isnan(found.value)
    assert found.reason == "rounding"


def test_a_single_example_has_nothing_to_help():
    found = read(network(), [data(1)])
    assert math.isnan(found.value)
    assert found.reason == "n_lt_2"
