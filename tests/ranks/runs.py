"""Trainings that come to the same on one process and, each with its part of every batch, on two."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from tests.models import Transformer, batches, cross_entropy
from thermo_monitor import Monitor, presets
from thermo_monitor.exchange import ranks
from thermo_monitor.probes import ExampleGradientProbe, FisherProbe, LossWindowProbe, TemperatureProbe
from thermo_monitor.sinks import MemorySink


def share(tokens):
    """This rank's rows of a batch."""
    rank, world = ranks()
    return tokens[rank::world]


def model_of(kind, dropout=False):
    """The same weights every time; without dropout, whose numbers belong to a rank."""
    torch.manual_seed(0)
    # In double precision, or trainings part ways: Adam makes a step of the last digit of a gradient that is zero.
    model = Transformer().train(dropout).double()
    if kind == "ddp":
        return model, nn.parallel.DistributedDataParallel(model)
    if kind == "fsdp2":
        mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
    return model, model


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-2)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.5)


def train(model, called, optimizer, monitor, steps, accumulate=1, data=None):
    """The plain loop; returns the losses of this rank."""
    data, losses = data or batches(steps * accumulate, size=8), []
    for step in range(steps):
        with monitor.step(step):
            for part in range(accumulate):
                tokens = share(data[(step * accumulate + part) % len(data)])
                loss = cross_entropy(called(tokens), tokens)
                monitor.loss(loss)
                (loss / accumulate).backward()
                losses.append(loss.detach())
            monitor.gradients()
            optimizer.step()
            optimizer.zero_grad()
    return losses


def readings(kind, probes, stepper, steps, every, accumulate=1):
    """Everything that a monitor reads of such a training: [step, quantity, value, error, reason]."""
    model, called = model_of(kind)
    optimizer, sink = stepper(model.parameters()), MemorySink()
    with Monitor(called, optimizer, every=every, preset=probes, sinks=[sink], strict=True) as monitor:
        train(model, called, optimizer, monitor, steps, accumulate)
    assert len(monitor.sinks) == (ranks()[0] == 0)
    assert {e.quantity for e in monitor.events} == {e.quantity for e in sink.events} or ranks()[0]
    return listed(sink) if ranks()[0] == 0 else sorted(monitor.latest)


def listed(sink):
    kept = [r for r in sink.readings if not r.quantity.startswith("monitor/")]
    return [[r.step, r.quantity, r.value, r.error, r.reason, r.layer] for r in kept] + [
        [f.step, f"{f.quantity} of {list(f.layers)}", f.values.tolist(), None, None, None] for f in sink.frames
    ]


def study():
    return presets.study()


def beside():
    """What looks at many steps, or from beside the training."""
    tokens = batches(1, size=3, seed=5)[0]
    return [
        presets.LossProbe(),
        TemperatureProbe(window=32),
        ExampleGradientProbe(examples=None),
        FisherProbe(tokens, draws=2),
        LossWindowProbe(tokens, tokens, window=20, quantities=("loss/loss_window_variance", "loss/loss_specific_heat")),
    ]


RUNS = {
    "study": (study, adamw, 6, 2, 2),
    "default": (presets.default, adamw, 6, 1, 1),
    "beside": (beside, sgd, 36, 1, 1),
}


def run(kind, name):
    make, stepper, steps, every, accumulate = RUNS[name]
    return readings(kind, make(), stepper, steps, every, accumulate)
