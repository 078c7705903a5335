"""Where compiled code is broken into pieces, our code runs between them: it is never compiled by itself."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

from tests.probes.models import Decoder, tokens
from tests.silent import Silent
from thermo_monitor import Monitor
from thermo_monitor.probes.hooks import Hook
from thermo_monitor.probes.routes.functions import ListeningMode

pytestmark = pytest.mark.filterwarnings(  # the compiler's own, and what it says of things that it looks at
    "ignore::DeprecationWarning", "ignore:The .grad attribute", "ignore:Profiler"
)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Broken(Decoder):
    """Its forward pass cannot be compiled whole, and asks its tensors for what reaches a mode as a passing function."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        try:
            torch._dynamo.graph_break()  # inside try: the whole function runs as it is
            places = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)
            x = x + 0.1 * places.unsqueeze(-1)
            for block in self.blocks:
                x = block(x)
            return self.head(x.to(x.device))
        finally:
            pass


def model_and_optimizer(kind: type[Decoder]) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = kind(layers=1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def loss_of(called, x):
    return F.cross_entropy(called(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())


def stepper(monitor, called, optimizer):
    """A step of a training."""

    def step(number, x):
        with monitor.step(number):
            loss = loss_of(called, x)
            monitor.loss(loss)
            loss.backward()
            monitor.gradients()
            optimizer.step()
            optimizer.zero_grad()
        return loss

    return step


def test_a_model_that_is_compiled_in_pieces_trains_as_it_would_and_is_heard():
    def losses(on):
        torch._dynamo.reset()
        model, optimizer = model_and_optimizer(Broken)
        called = torch.compile(model, backend="eager")
        monitor = Monitor(model, optimizer, every=2, sinks=[], strict=True) if on else Silent()
        step = stepper(monitor, called, optimizer)
        return [step(n, tokens(seed=n)).item() for n in range(4)], monitor

    expected, _ = losses(on=False)
    found, monitor = losses(on=True)
    monitor.close()
    assert found == expected
    for ours in (ListeningMode.__torch_function__, Hook.__call__):
        assert _debug_get_cache_entry_list(ours.__code__) == []
    assert 0 < monitor.latest["attn/entropy_fraction"] < 1


def test_a_whole_step_may_be_compiled():
    """The monitor's part of it is left out."""

    def losses(on):
        torch._dynamo.reset()
        model, optimizer = model_and_optimizer(Decoder)
        monitor = Monitor(model, optimizer, every=2, sinks=[], strict=True) if on else Silent()
        step = torch.compile(stepper(monitor, model, optimizer), backend="eager")
        return [step(n, tokens(seed=n)).item() for n in range(3)], monitor

    expected, _ = losses(on=False)
    found, monitor = losses(on=True)
    monitor.close()
    assert found == expected
    assert monitor.latest["loss/train"] == pytest.approx(expected[-1])
    assert 0 < monitor.latest["attn/entropy_fraction"] < 1
