"""Trainings that come to the same on one process and, each with its part of every batch, on two."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from tests.models import Transformer, batches, cross_entropy
from thermo_monitor import Event, Monitor, presets
from thermo_monitor.exchange import ranks
from thermo_monitor.probes import ExampleGradientProbe, FisherProbe, GeometryProbe, LossWindowProbe, TemperatureProbe
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
    if kind == "hsdp":  # replicas of shards; of one shard here, which is enough to count replicas twice
        fully_shard(model, mesh=dist.init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard")))
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


def readings(kind, probes, stepper, steps, every, accumulate=1, probe_batch=None):
    """Everything that a monitor reads of such a training: [step, quantity, value, error, reason]."""
    model, called = model_of(kind)
    optimizer, sink = stepper(model.parameters()), MemorySink()
    options = {"every": every, "preset": probes, "probe_batch": probe_batch, "sinks": [sink], "strict": True}
    with Monitor(called, optimizer, **options) as monitor:
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
        GeometryProbe(),
        LossWindowProbe(tokens, tokens, window=20, quantities=("loss/loss_window_variance", "loss/loss_specific_heat")),
    ]


RUNS = {
    "study": (study, adamw, 6, 2, 2),
    "default": (presets.default, adamw, 6, 1, 1),
    "beside": (beside, sgd, 36, 1, 1),
}


def run(kind, name):
    make, stepper, steps, every, accumulate = RUNS[name]
    fixed = batches(1, size=4, seed=9)[0] if name == "beside" else None
    return readings(kind, make(), stepper, steps, every, accumulate, fixed)


# The same training by other trainers: their data comes ready, each rank's own.
STEPS = 6
OPTIONS = {"every": 2, "preset": "default", "strict": True}


def data():
    return [share(tokens) for tokens in batches(STEPS, size=8)]


def lightning(folder, world):
    """Readings through the callback, with the strategy ddp on several ranks; and checkpoints that were asked for."""
    from torch.utils.data import DataLoader

    from tests import fits

    class Module(fits.Module):
        def __init__(self):
            super().__init__()
            self.model = model_of("plain")[0]

        def configure_optimizers(self):
            return adamw(self.parameters())

        def on_train_batch_end(self, *args):
            if self.global_step == 2 and ranks()[0] == 0:
                callback.monitor._reader._emit([Event("shift", 2, 1, phase="instability")])

    sink = MemorySink()
    callback = fits.ThermoMonitor(sinks=[sink], save_checkpoint_on=["shift"], **OPTIONS)
    options = {"max_steps": STEPS, "enable_checkpointing": False}
    if world > 1:
        options |= {"strategy": "ddp", "devices": world, "use_distributed_sampler": False}
    fit = fits.trainer(folder, callback, **options)
    module = Module()
    module.train = lambda mode=True: module  # no dropout
    fits.fit(fit, module, DataLoader(data(), batch_size=None))
    return listed(sink), sorted(path.name for path in folder.rglob("*.ckpt"))


def accelerated(folder, world):
    """Readings in a loop with accelerate."""
    from accelerate import Accelerator

    helper = Accelerator(cpu=True)
    model = model_of("plain")[0]
    model, optimizer = helper.prepare(model, adamw(model.parameters()))
    assert isinstance(model, nn.parallel.DistributedDataParallel) == (world > 1)
    sink = MemorySink()
    with Monitor(model, optimizer, sinks=[sink], **OPTIONS) as monitor:
        for step, tokens in enumerate(data()):
            with monitor.step(step):
                loss = cross_entropy(model(tokens), tokens)
                monitor.loss(loss)
                helper.backward(loss)
                monitor.gradients()
                optimizer.step()
                optimizer.zero_grad()
    return listed(sink), []


def huggingface(folder, world):
    """Readings through transformers' Trainer."""
    from tests import trainers
    from thermo_monitor.huggingface import ThermoMonitor

    rows = trainers.examples(STEPS * 8)
    sink = MemorySink()
    callback = ThermoMonitor(sinks=[sink], save_checkpoint_on=["shift"], **OPTIONS)

    class Planted(trainers.TrainerCallback):
        def on_step_end(self, args, state, control, **given):
            if state.global_step == 2 and ranks()[0] == 0:
                callback.monitor._reader._emit([Event("shift", 2, 1, phase="instability")])

    model = trainers.gpt2()
    run = trainers.trainer(
        folder, callback, Planted(), model=model, data=rows, per_device_train_batch_size=8 // world, max_steps=STEPS,
        save_only_model=True, ddp_find_unused_parameters=False,
        trainer_options={"optimizers": (torch.optim.SGD(model.parameters(), lr=0.1), None)},
    )  # fmt: skip
    trainers.run(run)
    return listed(sink), sorted(path.name for path in folder.glob("checkpoint-*"))


TRAINERS = {"lightning": lightning, "accelerate": accelerated, "transformers": huggingface}
