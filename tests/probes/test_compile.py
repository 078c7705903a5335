"""Compiled models: they train as they would, attention is absent, and the user is told why."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from tests.probes.models import Decoder, Heard, one_line, tokens
from thermo_monitor import Monitor


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def train(model: nn.Module, called: nn.Module, monitored: nn.Module | None, steps: int = 6) -> list[float]:
    """Losses of a few steps; every other one is measured."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    monitor = None
    if monitored is not None:
        monitor = Monitor(monitored, optimizer, every=2, sinks=[], strict=True)
    losses = []
    for step in range(steps):
        x = tokens(seed=step)
        if monitor:
            monitor.begin(step)
        logits = called(x)
        logits = logits if isinstance(logits, torch.Tensor) else logits.logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())
        loss.backward()
        if monitor:
            monitor.loss(loss)
            monitor.gradients()
        optimizer.step()
        optimizer.zero_grad()
        if monitor:
            monitor.end()
        losses.append(loss.item())
    if monitor:
        monitor.close()
        train.latest = monitor.latest
    return losses


def plain() -> nn.Module:
    torch.manual_seed(0)
    return Decoder()


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=29, use_cache=False)
    return transformers.GPT2LMHeadModel(config)


@pytest.mark.parametrize("make", [plain, gpt2])
@pytest.mark.parametrize("how", ["wrapper monitored", "inner monitored", "in place", "a block"])
def test_a_compiled_model_trains_as_it_would(make, how):
    results, graphs = [], []
    for on in (False, True):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        model = called = monitored = make()
        if how in ("wrapper monitored", "inner monitored"):
            called = torch.compile(model, backend=counter)
            monitored = called if how == "wrapper monitored" else model
        elif how == "in place":
            model.compile(backend=counter)
        else:
            block = model.blocks[0] if make is plain else model.transformer.h[0]
            block.compile(backend=counter)
        with one_line() as lines:
            results.append(train(model, called, monitored if on else None))
        graphs.append(counter.frame_count)
    assert results[0] == results[1]
    assert graphs[0] >= 1
    assert graphs[1] <= 2 * graphs[0]
    absent = [line for line in lines if "no attention was heard" in line]
    if how == "a block" and make is plain:
        assert absent == []  # the second block is not compiled, and is heard
    else:
        assert len(absent) == 1
        assert "compiled code is not read" in absent[0]
    assert train.latest["out/predictive_entropy"] > 0


def test_the_number_of_graphs_is_at_most_two():
    counter = CompileCounterWithBackend("aot_eager")
    model = plain()
    with one_line():
        train(model, torch.compile(model, backend=counter, fullgraph=True), model, steps=8)
    assert counter.frame_count <= 2


def test_a_program_that_reports_by_hand_can_be_compiled():
    from tests.probes.test_explicit import ByHand
    from thermo_monitor.guard import Guard
    from thermo_monitor.probes.ear import Ear

    model, x = ByHand(), torch.randn(2, 5, 4)
    ear = Ear(model, Guard(strict=True))
    heard = Heard(ear)
    ear.install()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter)
    expected = compiled(x)
    ear.open()
    assert torch.equal(compiled(x), expected)
    ear.close()
    assert torch.equal(compiled(x), expected)
    assert heard.attention == []
    assert counter.frame_count <= 2
