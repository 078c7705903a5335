"""A step that is not scheduled costs a comparison; one that is reads nothing from the device."""

import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.models import batches, build, cross_entropy, train
from thermo_monitor import Monitor
from thermo_monitor.probes import FisherProbe, GeometryProbe, NoiseScaleProbe, TemperatureProbe
from thermo_monitor.probes.fisher import _POSSIBLE as FISHER
from thermo_monitor.probes.geometry_readings import ALL_GEOMETRY


class NoTorch(TorchFunctionMode):
    """Any call of torch is an error."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} was called")


def unscheduled(monitor, loss):
    with monitor.step(1):
        monitor.loss(loss)
        monitor.micro_batch()
        monitor.gradients()
        monitor.pause()


def test_a_step_that_is_not_scheduled_touches_nothing(monkeypatch, spoken):
    monitor = Monitor(build(), every=10, fast_every=10, sinks=[], strict=True)
    loss = torch.ones(())
    for listener in monitor._parts.listeners.values():
        for method in ("on_loss", "before_step", "after_step", "collect", "read"):
            monkeypatch.setattr(listener, method, None)
    for part in ("_transport", "_reader", "_meter"):
        monkeypatch.setattr(monitor, part, None)
    for method in ("open", "shut"):
        monkeypatch.setattr(monitor._ear, method, None)
    with NoTorch():
        unscheduled(monitor, loss)
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="was called"), NoTorch(), monitor.step(10):
        monitor.loss(loss)
    monitor.close()


def test_a_step_that_is_not_scheduled_makes_no_object(spoken):
    monitor, loss = Monitor(build(), every=10, fast_every=10, sinks=[]), torch.ones(())
    assert monitor.step(1) is monitor.step(2)
    unscheduled(monitor, loss)
    before = sys.getallocatedblocks()
    for _ in range(1000):
        unscheduled(monitor, loss)
    assert sys.getallocatedblocks() - before < 100
    monitor.close()


class HostReads(TorchDispatchMode):
    """Counts values that are brought to the host one by one."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


BESIDE = [FisherProbe(batches(1)[0], draws=2, lanczos=2, quantities=FISHER), NoiseScaleProbe(), TemperatureProbe()]


@pytest.mark.parametrize("fixed", [None, batches(1)[0]])
@pytest.mark.parametrize("preset", ["default", "study", BESIDE])
def test_measuring_reads_no_value(preset, fixed, spoken):
    if fixed is not None and preset is BESIDE:
        preset = [*BESIDE, GeometryProbe(quantities=ALL_GEOMETRY, layout="half", angles=(1.0, 0.1))]
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = Monitor(model, optimizer, every=1, preset=preset, probe_batch=fixed, sinks=[], strict=True)
    train(model, monitor, steps=1, optimizer=optimizer)
    monitor.flush()
    with HostReads() as reads:
        monitor.begin(1)
        tokens = batches(1)[0]
        loss = cross_entropy(model(tokens), tokens)
        loss.backward()
        monitor.loss(loss)
        monitor.gradients()
        optimizer.step()
        monitor.end()  # nothing has arrived: this measures and sends
    assert reads.count == 0
    with HostReads() as reads:
        loss.item()
    assert reads.count == 1
    assert monitor.ticks == 1
    monitor.close()
    assert monitor.ticks == 2
