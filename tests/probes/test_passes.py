"""Counting once: recomputation, repeated calls and micro-batches."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.probes.matrix import hears
from tests.probes.models import Decoder, Measuring, gradients, listening, tokens
from thermo_monitor.probes import AttentionProbe, OutputProbe, RepresentationProbe
from thermo_monitor.probes.attention import ALL_QUANTITIES
from thermo_monitor.probes.hub import recomputing
from thermo_monitor.probes.output import _POSSIBLE


class Checkpointed(Decoder):
    def __init__(self, reentrant: bool) -> None:
        super().__init__(layers=3)
        self.reentrant = reentrant

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


@hears("gradient checkpointing", "sdpa function")
@pytest.mark.parametrize("backward", [torch.Tensor.backward, torch.autograd.backward])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputed_layer_counts_once(reentrant, backward):
    model, x = Checkpointed(reentrant), tokens()
    model(x).square().mean().backward()
    before = gradients(model)
    model.zero_grad()
    with Measuring(model, AttentionProbe()) as measuring, listening(model) as ears:
        backward(model(x).square().mean())
        label, tensors = measuring.listener.collect()
    assert ears.names == label == [f"blocks.{k}.attention" for k in range(3)]
    assert tensors[0][0].sum() == 3 * 2 * 8  # examples, heads, and rows with more than one key
    assert all(torch.equal(a, b) for a, b in zip(gradients(model), before, strict=True))


@hears("gradient checkpointing", "HF sdpa", "HF eager")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_checkpointing_of_transformers(implementation, reentrant):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=29, **sizes, attn_implementation=implementation)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=implementation).train()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    with listening(model) as ears:
        model(tokens(), labels=tokens()).loss.backward()
    assert ears.names == [f"model.layers.{k}.self_attn" for k in range(2)]
    assert len(ears.output) == 1


def test_the_sign_of_recomputation():
    seen = []

    def part(x):
        seen.append(recomputing())
        return x.sin()

    for reentrant in (True, False):
        seen.clear()
        checkpoint(part, torch.randn(3, requires_grad=True), use_reentrant=reentrant).sum().backward()
        assert seen == [False, True]


class Shared(Decoder):
    """One block, called three times."""

    def forward(self, x):
        x = self.embed(x)
        for _ in range(3):
            x = self.blocks[0](x)
        return self.head(x)


@hears("called again in one pass", "sdpa function")
def test_a_module_that_is_called_again_is_a_site_of_its_own():
    model = Shared(layers=1)
    with listening(model) as ears:
        model(tokens())
        model(tokens())
    assert ears.names == 2 * ["blocks.0.attention", "blocks.0.attention#2", "blocks.0.attention#3"]


@hears("called again in one pass", "HF sdpa")
def test_a_model_inside_the_model_that_is_called_twice():
    """Two towers with shared weights, as contrastive training has them: one pass, whatever is inside."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=29, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )

    class Towers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = transformers.BertModel(config)

        def forward(self, x):
            return self.tower(x)[0][:, 0] @ self.tower(x.flip(1))[0][:, 0].T

    model = Towers()
    with listening(model) as ears:
        model(tokens())
        model(tokens())
    name = "tower.encoder.layer.0.attention.self"
    assert ears.names == 2 * [name, f"{name}#2"]


PROBES = {
    "attention": AttentionProbe(rows=64, quantities=ALL_QUANTITIES),
    "some rows": AttentionProbe(rows=4, quantities=ALL_QUANTITIES),
    "output": OutputProbe(quantities=tuple(key for key in _POSSIBLE if key != "out/calibration_drift")),
}


def loss(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("how", ["model", "container", "compiled"])
def test_micro_batches_add_up(probe, how):
    whole, x = Decoder(), tokens(batch=8)
    model: nn.Module = whole
    forward = whole
    if how == "container":  # never called itself: that a micro-batch ended is known from its loss
        model = nn.ModuleDict({"inner": whole})
    if how == "compiled":
        torch._dynamo.reset()
        forward = torch.compile(whole, backend="eager")
    with Measuring(model, PROBES[probe]) as measuring:
        loss(forward, x)
        large = measuring.values()
        measuring.ear.shut()
        measuring.ear.open()
        for part in x.chunk(4):
            value = loss(forward, part)
            measuring.listener.on_loss(value)
        small = measuring.values()
    assert small == pytest.approx(large, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("sampling", ["even", "random"])
def test_batches_in_pieces_give_the_same_sums(monkeypatch, sampling):
    model, x = Decoder(), tokens(batch=7)
    results = []
    for largest in (2**24, 2 * 9 * 4 * 2, 1):  # all, two examples at a time, one
        monkeypatch.setattr("thermo_monitor.probes.attention._LARGEST", largest)
        with Measuring(model, AttentionProbe(rows=4, sampling=sampling, quantities=ALL_QUANTITIES)) as measuring:
            model(x)
            results.append(measuring.listener.collect())
    for label, tensors in results[1:]:
        assert label == results[0][0]
        for a, b in zip(tensors, results[0][1], strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "probe", [AttentionProbe(), AttentionProbe(sampling="random"), OutputProbe(), RepresentationProbe()]
)
@pytest.mark.parametrize("shape", [(0, 9), (3, 0)])
def test_an_empty_batch_is_nothing(probe, shape):
    model = Decoder()
    x = torch.zeros(shape, dtype=torch.long)
    with Measuring(model, probe) as measuring:
        logits = model(x)
        F.cross_entropy(logits.flatten(0, 1), x.flatten())
        values = measuring.values()
    assert all(torch.tensor(value).isnan() for value in values.values())


@pytest.mark.parametrize("cadence", [1, 2])
def test_layers_keep_their_place_when_not_all_are_heard(cadence):
    """Layers that are dropped at random: the map has a row for every layer that was ever heard."""
    model, x = Decoder(layers=3), tokens()
    with Measuring(model, AttentionProbe()) as measuring:
        model(x)
        first = measuring.read()
        measuring.ear.open()
        model.blocks[2](model.blocks[cadence - 1](model.embed(x)))
        second = measuring.read()
    assert first.maps[0].layers == second.maps[0].layers
    missing = [bool(torch.tensor(row).isnan().all()) for row in second.maps[0].values.tolist()]
    assert missing == [k not in (cadence - 1, 2) for k in range(3)]


def test_reading_is_a_function_of_what_was_collected():
    model = Decoder()
    with Measuring(model, AttentionProbe()) as measuring:
        model(tokens())
        label, tensors = measuring.listener.collect()
        arrays = [t.double().numpy() for t in tensors]
        read = functools.partial(measuring.listener.read, 0, label)
        assert read(arrays).readings == read([a.copy() for a in arrays]).readings
        assert measuring.listener.collect() == ([], [])
