"""The same model and data give the same readings in every loop."""

import lightning as L
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from lightning.fabric import Fabric
from torch.utils.data import DataLoader

from tests import fits, trainers
from tests.trainers import collate, examples, gpt2
from thermo_monitor import Monitor
from thermo_monitor.huggingface import ThermoMonitor as Callback
from thermo_monitor.sinks import MemorySink

STEPS = 6
OPTIONS = {"every": 2, "preset": "study", "strict": True}


def sgd(model):
    # The trainers divide the loss of a micro-batch at different places, and Adam makes a step of the last digit of a
    # gradient that is nearly zero.
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def loader(accumulate):
    return DataLoader(examples(STEPS * 4 * accumulate), batch_size=4, collate_fn=collate)


def huggingface(tmp_path, accumulate, clip):
    model, sink = gpt2(), MemorySink()
    run = trainers.trainer(
        tmp_path,
        Callback(sinks=[sink], **OPTIONS),
        model=model,
        gradient_accumulation_steps=accumulate,
        max_grad_norm=clip,
        trainer_options={"optimizers": (sgd(model), None)},
    )
    trainers.run(run)
    return sink


def lightning(tmp_path, accumulate, clip):
    class Module(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = gpt2()

        def training_step(self, batch, index):
            return self.model(**batch).loss

        def configure_optimizers(self):
            return sgd(self)

    sink = MemorySink()
    run = fits.trainer(
        tmp_path,
        fits.ThermoMonitor(sinks=[sink], **OPTIONS),
        max_steps=STEPS,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=clip or None,
    )
    fits.fit(run, Module(), loader(accumulate))
    return sink


def loop(model, optimizer, data, accumulate, clip, backward, parameters):
    """The plain loop, with the backward pass of whoever helps."""
    sink, batches = MemorySink(), iter(data)
    model.train()
    with Monitor(model, optimizer, sinks=[sink], **OPTIONS) as monitor:
        for step in range(STEPS):
            with monitor.step(step):
                for _ in range(accumulate):
                    loss = model(**next(batches)).loss
                    monitor.loss(loss)
                    backward(loss / accumulate)
                monitor.gradients()
                if clip:
                    torch.nn.utils.clip_grad_norm_(parameters, clip)
                optimizer.step()
                optimizer.zero_grad()
    return sink


def plain(tmp_path, accumulate, clip):
    model = gpt2()
    return loop(
        model, sgd(model), loader(accumulate), accumulate, clip, torch.Tensor.backward, list(model.parameters())
    )


def accelerate(tmp_path, accumulate, clip):
    helper = Accelerator(cpu=True)
    model = gpt2()
    model, optimizer, data = helper.prepare(model, sgd(model), loader(accumulate))
    return loop(model, optimizer, data, accumulate, clip, helper.backward, list(model.parameters()))


def fabric(tmp_path, accumulate, clip):
    helper = Fabric(accelerator="cpu", devices=1)
    model = gpt2()
    model, optimizer = helper.setup(model, sgd(model))
    data = helper.setup_dataloaders(loader(accumulate))
    return loop(model, optimizer, data, accumulate, clip, helper.backward, list(model.parameters()))


@pytest.mark.parametrize("clip", [0.0, 0.1])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("other", [lightning, plain, accelerate, fabric])
def test_readings_agree(other, accumulate, clip, tmp_path):
    """Before-clip values too, since all three are asked before clipping."""
    expected, found = huggingface(tmp_path / "hf", accumulate, clip), other(tmp_path / "other", accumulate, clip)
    keys = {r.quantity for r in expected.readings if not r.quantity.startswith("monitor/")}
    assert keys == {r.quantity for r in found.readings if not r.quantity.startswith("monitor/")}
    assert len(keys) > 25
    for key in keys:
        steps, values = expected.series(key)
        other_steps, other_values = found.series(key)
        assert other_steps.tolist() == steps.tolist(), key
        np.testing.assert_allclose(other_values, values, rtol=1e-6, atol=1e-7, err_msg=key)
    if clip:
        assert (expected.series("opt/gradient_norm")[1] > 2 * clip).all()
