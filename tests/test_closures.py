"""An optimizer that evaluates its closure several times makes one step, and the first evaluation is what is read."""

import pytest
import torch

from tests.fingerprint import result, seed_all
from tests.fits import Module, ThermoMonitor, fit, loader, trainer
from tests.models import batches, build, cross_entropy
from thermo_monitor import Monitor
from thermo_monitor.sinks import MemorySink

STEPS = 5


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.05, max_iter=4, history_size=3)


def loop(make):
    """Losses and norms of the first evaluation of each step, and what the training came to."""
    model, tokens = build(), batches(1)[0]
    model.eval()
    optimizer = lbfgs(model.parameters())
    seed_all()
    monitor, first, calls = make(model, optimizer), [], []
    for step in range(STEPS):

        def closure(step=step):
            optimizer.zero_grad()
            loss = cross_entropy(model(tokens), tokens)
            if monitor is not None:
                monitor.loss(loss)
            loss.backward()
            if monitor is not None:
                monitor.gradients()
            calls.append(step)
            if len(first) == step:
                norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
                first.append((loss.item(), norm.item()))
            return loss

        if monitor is None:
            optimizer.step(closure)
        else:
            with monitor.step(step):
                optimizer.step(closure)
    assert len(calls) > 3 * STEPS
    found = result(model, optimizer, [])
    if monitor is not None:
        monitor.close()
    return first, found


def test_a_plain_loop_reads_the_first_evaluation_once(spoken):
    sink = MemorySink()
    first, expected = loop(lambda *_: None)
    _, found = loop(lambda model, optimizer: Monitor(model, optimizer, every=1, preset="study", sinks=[sink]))
    assert found == expected
    for quantity, values in (("loss/train", [f[0] for f in first]), ("opt/gradient_norm", [f[1] for f in first])):
        steps, read = sink.series(quantity)
        assert steps.tolist() == list(range(STEPS))
        assert read.tolist() == pytest.approx(values, rel=1e-5)
    assert sink.series("attn/entropy_fraction")[0].tolist() == list(range(STEPS))
    assert {r.reason for r in sink.readings if r.quantity == "loss/train"} == {None}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fit_reads_the_first_evaluation_once(accumulate, tmp_path):
    class Second(Module):
        def __init__(self):
            super().__init__()
            self.model.eval()
            self.first = []

        def training_step(self, tokens, index):
            loss = super().training_step(tokens, index)
            if len(self.first) == index:
                self.first.append(loss.item())
            return loss

        def configure_optimizers(self):
            return lbfgs(self.parameters())

    def outcome(*callbacks):
        module = Second()
        run = trainer(tmp_path, *callbacks, max_steps=STEPS, accumulate_grad_batches=accumulate)
        seed_all()
        fit(run, module, loader(STEPS * accumulate))
        return result(module, run.optimizers[0], module.losses), module.first

    sink = MemorySink()
    expected, _ = outcome()
    found, first = outcome(ThermoMonitor(every=1, sinks=[sink], strict=True))
    assert found == expected
    steps, losses = sink.series("loss/train")
    assert steps.tolist() == list(range(STEPS))
    if accumulate == 1:
        assert losses.tolist() == pytest.approx(first, rel=1e-6)
    assert len(sink.series("opt/gradient_norm")[0]) == STEPS


def test_two_optimizers_in_one_step_are_no_closure(spoken):
    """As in the training of a pair of networks: both losses count, and the last gradients."""
    model, sink = build(), MemorySink()
    optimizers = [torch.optim.SGD(part.parameters(), 0.1) for part in (model.blocks, model.head)]
    losses, norms = [], []
    with Monitor(model, every=1, sinks=[sink], strict=True) as monitor, monitor.step(0):
        for optimizer, tokens in zip(optimizers, batches(2), strict=True):
            optimizer.zero_grad()
            loss = cross_entropy(model(tokens), tokens)
            monitor.loss(loss)
            loss.backward()
            monitor.gradients()
            losses.append(loss.item())
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
            optimizer.step()
    assert sink.series("loss/train")[1].tolist() == pytest.approx([sum(losses) / 2])
    assert sink.series("opt/gradient_norm")[1].tolist() == pytest.approx([norms[-1]])
