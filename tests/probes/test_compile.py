"""Compiled models: they train as they would, in two graphs at most, and their attention is heard."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from tests.probes.matrix import hears, refuses
from tests.probes.models import Decoder, gradients, listening, one_line, softmax, tokens
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
    return Decoder(layers=1)


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=8, n_layer=1, n_head=2, vocab_size=29, use_cache=False, bos_token_id=0, eos_token_id=0,
        attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def compiled(make, how: str, backend: object) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The model, what is called, and what is monitored."""
    model = make()
    if how in ("wrapper monitored", "inner monitored"):
        called = torch.compile(model, backend=backend, fullgraph=True)
        return model, called, called if how == "wrapper monitored" else model
    if how == "in place":
        model.compile(backend=backend, fullgraph=True)
    else:
        (model.blocks[0] if make is plain else model.transformer.h[0]).compile(backend=backend, fullgraph=True)
    return model, model, model


@hears("torch.compile", "sdpa function", "HF sdpa")
@pytest.mark.parametrize(
    ("make", "how"),
    [(plain, "wrapper monitored"), (plain, "in place"), (plain, "a block"), (gpt2, "inner monitored")],
)
def test_a_compiled_model_trains_as_it_would_and_is_heard(make, how):
    eager = make()
    train(eager, eager, eager, steps=4)
    expected, results = train.latest, []
    for on in (False, True):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        model, called, monitored = compiled(make, how, counter)
        with one_line() as lines:
            results.append(train(model, called, monitored if on else None, steps=4))
        if on:
            assert counter.frame_count == 2
    assert results[0] == results[1]
    assert not any("no attention" in line for line in lines)
    if how != "a block":
        assert any("are not heard" in line for line in lines)  # representations
    for key in ("attn/specific_heat", "attn/entropy_fraction", "attn/max_logit"):
        assert train.latest[key] == pytest.approx(expected[key], rel=1e-3)  # dropout aside, which is off here
    assert train.latest["out/predictive_entropy"] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside the compiler
@pytest.mark.parametrize("make", [plain, gpt2])
def test_inductor_gives_the_same_values_and_gradients(make):
    """One graph each way, whole; the model's bits are those of the compiled model that nobody hears."""
    model = make()
    counter = CompileCounterWithBackend("inductor")
    called, x = torch.compile(model, backend=counter, fullgraph=True), tokens()

    def run() -> list[torch.Tensor]:
        model.zero_grad()
        out = called(x)
        out = out if isinstance(out, torch.Tensor) else out.logits
        out.square().mean().backward()
        return [out, *gradients(model)]

    before = run()
    with listening(model) as ears:
        during = run()
    after = run()
    with listening(model) as eager:
        model(x)
    assert counter.frame_count == 2
    assert ears.names == eager.names
    for heard in (during, after):
        assert all(torch.equal(a, b) for a, b in zip(before, heard, strict=True))
    for ours, theirs in zip(ears.attention, eager.attention, strict=True):
        assert (softmax(ours) - softmax(theirs)).abs().max() < 1e-5


@hears("torch.compile with checkpointing", "HF sdpa")
def test_checkpointing_inside_compiled_code_counts_once():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=29, use_cache=False, **sizes)
    model, x = transformers.LlamaForCausalLM(config).train(), tokens()
    with one_line():
        model.gradient_checkpointing_enable({"use_reentrant": False})
        counter = CompileCounterWithBackend("aot_eager")
        called = torch.compile(model, backend=counter)
        called(x, labels=x).loss.backward()
        before, alone = gradients(model), counter.frame_count
        model.zero_grad()
        with listening(model) as ears:
            called(x, labels=x).loss.backward()
    assert ears.names == [f"model.layers.{k}.self_attn" for k in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(gradients(model), before, strict=True))
    assert counter.frame_count == 2 * alone  # one, where the library's loss breaks no graph


@refuses("torch.compile with checkpointing", "sdpa function")
def test_checkpointing_of_plain_calls_inside_compiled_code_is_absent():
    """No function mode reaches a region that is checkpointed while it is compiled; nothing is read wrongly.

    In torch 2.6 one does, and hears each layer once.
    """
    from tests.probes.test_passes import Checkpointed

    model, x = Checkpointed(False), tokens()
    with listening(model) as eager:
        model(x)
    counter = CompileCounterWithBackend("aot_eager")
    called = torch.compile(model, backend=counter)
    expected = called(x)
    with listening(model) as ears:
        assert torch.equal(called(x), expected)
    assert ears.names in ([], eager.names)
    for ours, theirs in zip(ears.attention, eager.attention, strict=False):
        assert (softmax(ours) - softmax(theirs)).abs().max() < 1e-6
    assert counter.frame_count == 2


@hears("two models in one process", "sdpa function")
def test_two_models_and_two_monitors_keep_two_graphs_each():
    models = [plain(), plain()]
    counters = [CompileCounterWithBackend("aot_eager") for _ in models]
    called = [torch.compile(m, backend=c, fullgraph=True) for m, c in zip(models, counters, strict=True)]
    x = tokens()
    for _ in range(3):
        for k in (0, 1):
            with listening(models[k]) as ears:
                for call in called:
                    call(x)
            assert ears.names == ["blocks.0.attention"]
        for call in called:
            call(x)
    assert [c.frame_count for c in counters] == [2, 2]


@pytest.mark.parametrize("how", ["wrapped", "in place", "as a function"])
def test_models_of_one_class_share_graphs_and_are_kept_apart(how):
    """The compiler has one graph for all models of a class: the layer that it was made for is not the one that runs."""
    counter, x = CompileCounterWithBackend("aot_eager"), tokens()
    models = [Decoder(), Decoder(), Decoder()]

    def step(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return model(x)

    def called(model: nn.Module) -> torch.Tensor:
        if how == "as a function":
            return torch.compile(step, backend=counter, fullgraph=True)(model, x)
        return torch.compile(model, backend=counter, fullgraph=True)(x) if how == "wrapped" else model(x)

    if how == "in place":
        for model in models:
            model.compile(backend=counter, fullgraph=True)
    called(models[0])
    heard = []
    for k in (1, 2, 0, 1):
        with listening(models[k]) as ears:
            for model in models:  # the others run as well, and are not taken for it
                called(model)
        assert ears.names == [f"blocks.{n}.attention" for n in range(2)]
        with listening(models[k]) as eager:
            models[k].eval()
            with torch.compiler.set_stance("force_eager"):
                models[k](x)
            models[k].train()
        for ours, theirs in zip(ears.attention, eager.attention, strict=True):
            assert (softmax(ours) - softmax(theirs)).abs().max() < 1e-6
        heard.append(softmax(ears.attention[0]))
    assert torch.equal(heard[0], heard[3])
    assert not torch.allclose(heard[0], heard[1])
    assert counter.frame_count <= 2 * (1 if how == "wrapped" else 3)


def test_a_method_that_torch_writes_in_python_keeps_the_graph_whole():
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = self.q(x).unflatten(-1, (2, 8)).transpose(1, 2)
            return F.scaled_dot_product_attention(q, q, q, is_causal=True)

    model, counter, x = Layer(), CompileCounterWithBackend("aot_eager"), torch.randn(2, 5, 16)
    called = torch.compile(model, backend=counter, fullgraph=True)
    expected = called(x)
    with listening(model) as ears:
        assert torch.equal(called(x), expected)
    assert ears.names == [""]
    assert counter.frame_count == 2


@refuses("torch.compile", "MultiheadAttention")
def test_multihead_attention_in_compiled_code_is_refused_by_name():
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    called, x = torch.compile(model, backend="aot_eager"), torch.randn(2, 5, 8)
    expected = called(x)
    with one_line() as lines, listening(model) as ears:
        assert torch.equal(called(x), expected)
    assert ears.attention == []
    assert len(lines) == 1
    assert "self_attn" in lines[0]
    assert "compiled" in lines[0]


@hears("torch.compile", "record_attention")
def test_a_program_that_reports_by_hand_can_be_compiled():
    from tests.probes.test_explicit import ByHand

    model, x = ByHand(), torch.randn(2, 5, 4)
    counter = CompileCounterWithBackend("aot_eager")
    called = torch.compile(model, backend=counter, fullgraph=True)
    expected = called(x)
    with listening(model) as ears:
        weights = called(x)
    assert torch.equal(weights, expected)
    assert torch.equal(called(x), expected)
    assert ears.names == ["first"]
    assert (softmax(ears.attention[0]) - weights).abs().max() < 1e-6
    assert counter.frame_count == 2
