"""``flex_attention`` called by the program itself: heard where it is not compiled, refused by name where it is."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tests.probes.matrix import hears, refuses
from tests.probes.models import listening, one_line, softmax
from thermo_monitor import Monitor
from thermo_monitor.probes import AttentionProbe

flex = pytest.importorskip("torch.nn.attention.flex_attention")
# Torch warns that it is slow when not compiled, and of its own look at gradients.
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without", "ignore:The .grad attribute")

LENGTH, SLOPES = 20, torch.tensor([0.5, 0.25, 0.1, 0.0])


def causal(b, h, i, j):
    return i >= j


def packed(b, h, i, j):
    return (i >= j) & (SEQUENCE[i] == SEQUENCE[j])


SEQUENCE = torch.tensor([0] * 12 + [1] * 8)


def alibi(score, b, h, i, j):
    return score - SLOPES[h] * (i - j)


def capped(score, b, h, i, j):
    return 5 * torch.tanh(score / 5)


class Layer(nn.Module):
    """Grouped queries through flex_attention."""

    def __init__(self, mask=causal, score=None, function=flex.flex_attention, scale=None):
        super().__init__()
        self.q, self.k = nn.Linear(16, 32), nn.Linear(16, 16)
        self.options = {"score_mod": score, "scale": scale, "enable_gqa": True}
        if mask is not None:
            self.options["block_mask"] = flex.create_block_mask(mask, None, None, LENGTH, LENGTH, device="cpu")
        self.function, self.mask, self.score = function, mask, score

    def forward(self, x):
        q = self.q(x).unflatten(-1, (4, 8)).transpose(1, 2)
        k = self.k(x).unflatten(-1, (2, 8)).transpose(1, 2)
        return self.function(q, k, k, **self.options)

    def weights(self, x):
        """By hand."""
        q = self.q(x).unflatten(-1, (4, 8)).transpose(1, 2)
        k = self.k(x).unflatten(-1, (2, 8)).transpose(1, 2).repeat_interleave(2, 1)
        z = q @ k.mT * (self.options["scale"] or 8**-0.5)
        h, i, j = torch.meshgrid(torch.arange(4), torch.arange(LENGTH), torch.arange(LENGTH), indexing="ij")
        z = z if self.score is None else self.score(z, 0, h, i, j)
        return z if self.mask is None else z.masked_fill(~self.mask(0, h, i, j), -torch.inf)


class Two(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.layers = nn.ModuleList(Layer(**options) for _ in range(2))
        self.requires_grad_(False)  # torch has no gradients of it on a CPU

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x).transpose(1, 2).flatten(2)[..., :16]
        return x


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@hears("causal", "flex_attention")
@hears("grouped queries", "flex_attention")
@hears("additive bias, ALiBi", "flex_attention")
@hears("soft cap", "flex_attention")
@hears("packed sequences", "flex_attention")
@pytest.mark.parametrize(
    "options", [{"mask": None}, {}, {"mask": packed, "score": alibi}, {"score": capped, "scale": 3.0}]
)
def test_the_weights_are_those_of_the_rules(options):
    model = Two(**options)
    x = torch.randn(3, LENGTH, 16)
    with listening(model) as heard:
        model(x)
    assert [call.name for call in heard.attention] == ["layers.0", "layers.1"]
    call = heard.attention[0]
    torch.testing.assert_close(softmax(call), model.layers[0].weights(x).softmax(-1), rtol=1e-5, atol=1e-6)
    # And with them the values that the program got.
    k = model.layers[0].k(x).unflatten(-1, (2, 8)).transpose(1, 2).repeat_interleave(2, 1)
    torch.testing.assert_close(softmax(call) @ k, model.layers[0](x), rtol=1e-5, atol=1e-6)


@hears("same outputs, gradients, random numbers", "flex_attention")
def test_outputs_and_random_numbers_do_not_change():
    def outcome(monitored):
        torch.manual_seed(0)
        model, x = Two(score=alibi), torch.randn(2, LENGTH, 16)
        with Monitor(model, every=1, preset=[AttentionProbe()], sinks=[], strict=True) as monitor:
            if monitored:
                monitor.begin(0)
            out = model(x)
            monitor.end()
        assert not monitored or monitor.latest["attn/specific_heat"] > 0
        return [out, torch.rand(1)]

    for with_it, without in zip(outcome(True), outcome(False), strict=True):
        assert torch.equal(with_it, without)


def shows_itself():
    """Whether the compiler asks function modes when it comes to flex_attention."""

    class Doubles(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            flexible = torch.compiler.is_compiling() and func is torch.ops.higher_order.flex_attention
            return (2 * result[0], *result[1:]) if flexible else result

    model, x = Layer(), torch.randn(2, LENGTH, 16)
    with torch.no_grad():
        called, expected = torch.compile(model, backend="aot_eager"), model(x)
        with Doubles():
            return not torch.allclose(called(x), expected)


@refuses("torch.compile", "flex_attention")
@pytest.mark.parametrize("whole", [False, True])
def test_compiled_calls_are_refused_with_one_line_that_names_the_layer(whole):
    if not shows_itself():
        pytest.skip(f"torch {torch.__version__} traces flex_attention without asking any function mode")
    function = flex.flex_attention if whole else torch.compile(flex.flex_attention, backend="aot_eager")
    model = Two(function=function)
    called = torch.compile(model, backend="aot_eager") if whole else model
    x = torch.randn(2, LENGTH, 16)
    expected = called(x)
    with one_line() as lines, Monitor(model, every=1, preset=[AttentionProbe()], sinks=[]) as monitor:
        monitor.begin(0)
        assert torch.equal(called(x), expected)
        monitor.end()
        described = monitor.describe()
    assert len([line for line in lines if "flex_attention" in line and "layers.0" in line]) == 1
    for layer in ("layers.0", "layers.1"):
        assert f"absent: attention of {layer}: compiled flex_attention is not read" in described
