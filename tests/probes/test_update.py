"""The change of the weights in one step: kept whole, sampled, and in several types."""

import pytest
import torch
from torch import nn

from thermo_monitor import Monitor
from thermo_monitor.probes import UpdateProbe
from thermo_monitor.sinks.memory import MemorySink


def moved(model: nn.Module, elements: int) -> tuple[float, float | None, float]:
    """The reading, its error, and the norm in double precision of what one step did."""
    sink = MemorySink()
    before = [p.detach().clone().double() for p in model.parameters()]
    generator = torch.Generator().manual_seed(1)
    monitor = Monitor(model, preset=[UpdateProbe(elements)], every=1, sinks=[sink], strict=True)
    with monitor, monitor.step(0), torch.no_grad():
        monitor.gradients()
        for p in model.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=generator).to(p.dtype))
    exact = sum((p.double() - b).square().sum().item() for p, b in zip(model.parameters(), before, strict=True)) ** 0.5
    (reading,) = [r for r in sink.readings if r.quantity == "opt/update_norm"]
    return reading.value, reading.error, exact


def test_parameters_of_several_types_that_are_kept_whole():
    model = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 7).double(), nn.Linear(7, 5).bfloat16(), nn.PReLU())
    value, error, exact = moved(model, 65_536)
    assert value == pytest.approx(exact, rel=1e-6)
    assert error is None


def test_large_ones_are_sampled_beside_small_ones_that_are_not():
    model = nn.Sequential(nn.Linear(200, 300), nn.Linear(300, 7))
    value, error, exact = moved(model, 10_000)
    assert error is not None
    assert value == pytest.approx(exact, abs=4 * error)
    assert 0 < error < 0.05 * exact


def test_frozen_parameters_do_not_count():
    model = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 7))
    model[0].requires_grad_(False)
    value, _, exact = moved(model, 65_536)
    assert value < 0.7 * exact
