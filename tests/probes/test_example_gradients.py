"""Per-example gradient norms in a live training: against micro-batches of one and torch.func."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.models import VOCABULARY, Transformer, build, train
from tests.reference.fisher import example_gradients, squared_norms
from thermo_monitor import Monitor
from thermo_monitor.probes import ExampleGradientProbe
from thermo_monitor.probes.example_gradients import CHECKED
from thermo_monitor.probes.example_readings import (
    COVERED,
    HEAT,
    HEAT_SCALE,
    NOISE,
    POSSIBLE,
    RATIO,
    SCALE,
    SHARE,
    TRACE,
)
from thermo_monitor.sinks import MemorySink

ALL = ExampleGradientProbe(examples=None)


def measure(model, loss, micro_batches, probe=ALL, divide=True, scale=1.0):
    """One step over some micro-batches (inputs, labels); readings and frames."""
    sink = MemorySink()
    with Monitor(model, every=1, preset=[probe], sinks=[sink], strict=True) as monitor, monitor.step(0):
        for inputs, labels in micro_batches:
            value = loss(model(inputs), labels)
            monitor.loss(value)
            (value * scale / (len(micro_batches) if divide else 1)).backward()
        for p in model.parameters():
            if p.grad is not None:
                p.grad /= scale  # what a loss scaler does before gradients are looked at
        monitor.gradients()
    return {r.quantity: r for r in sink.readings}, {f.quantity: f for f in sink.frames}


def mean_square(model, loss, batch):
    return squared_norms(example_gradients(model, loss, *batch)).mean().item()


class Everything(nn.Module):
    """Every kind of module that is read: embedding, linear, both normalisations, a tied head."""

    def __init__(self, width=8, vocabulary=7, tied=False, bias=True):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, padding_idx=0)
        self.norm, self.root = nn.LayerNorm(width, bias=bias), nn.RMSNorm(width)
        self.up, self.down = nn.Linear(width, 12, bias=bias), nn.Linear(12, width, bias=bias)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        x = x + self.down(torch.tanh(self.up(self.norm(x))))
        x = x + self.down(torch.sin(self.up(x)))  # the same weights twice
        return self.head(self.root(x))


def tokens(batch, length, vocabulary=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(vocabulary, (batch, length), generator=generator) for _ in range(2))


def sequence_loss(logits, labels):
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


@settings(deadline=None, max_examples=25, derandomize=True, database=None)
@given(batch=st.integers(1, 6), length=st.integers(1, 20), width=st.sampled_from([3, 8, 30]), tied=st.booleans())
def test_they_are_those_of_micro_batches_of_one(batch, length, width, tied):
    torch.manual_seed(batch)
    model, data = Everything(width, tied=tied), tokens(batch, length)
    exact = mean_square(model, sequence_loss, data)
    found, _ = measure(model, sequence_loss, [data])
    assert found[TRACE].value == pytest.approx(exact, rel=1e-5)
    assert found[COVERED].value == pytest.approx(1)


def test_they_are_those_of_torch_func():
    model, (ids, labels) = build(), tokens(5, 6, VOCABULARY)
    model.eval()  # vmap and dropout do not go together
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def one(parameters, ids, labels):
        return sequence_loss(functional_call(model, parameters, (ids[None],)), labels)

    with sdpa_kernel(SDPBackend.MATH):
        per_example = vmap(grad(one), in_dims=(None, 0, 0))(parameters, ids, labels)
    by_layer = {}
    for name, g in per_example.items():
        layer = {"e": "embed", "h": "head"}.get(name[0], name[:8])
        by_layer[layer] = by_layer.get(layer, 0) + g.flatten(1).square().sum(1).mean().item()
    found, frames = measure(model, sequence_loss, [(ids, labels)])
    assert found[TRACE].value == pytest.approx(sum(by_layer.values()), rel=1e-5)
    assert dict(zip(frames[TRACE].layers, frames[TRACE].values[:, 0], strict=True)) == pytest.approx(by_layer, rel=1e-5)
    assert found[SHARE].value == pytest.approx(max(by_layer.values()) / sum(by_layer.values()), rel=1e-5)


CONVOLUTIONS = {
    "plain": {"stride": 2, "padding": 1},
    "grouped": {"groups": 2, "dilation": 2, "padding": (0, 2)},
    "same": {"padding": "same"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "reflected": {"padding": "same", "padding_mode": "reflect"},
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, **CONVOLUTIONS[case]), nn.ReLU(), nn.Conv2d(4, 3, 2), nn.Flatten(), nn.LazyLinear(3)
    )
    data = torch.randn(5, 2, 7, 6), torch.randint(3, (5,))
    model(data[0])
    exact = mean_square(model, F.cross_entropy, data)
    found, _ = measure(model, F.cross_entropy, [data])
    assert found[TRACE].value == pytest.approx(exact, rel=1e-5)
    assert found[COVERED].value == pytest.approx(1)


def test_transformers_models():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    llama = transformers.LlamaForCausalLM(config)
    config = transformers.GPT2Config(
        n_embd=16, n_layer=2, n_head=2, vocab_size=VOCABULARY, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    gpt2 = transformers.GPT2LMHeadModel(config)
    data = tokens(4, 9, VOCABULARY)
    for model, whole in ((llama, True), (gpt2, False)):

        def logits(ids, model=model):
            return model(ids).logits

        exact = example_gradients_of(model, logits, data)
        sink = MemorySink()
        with Monitor(model, every=1, preset=[ALL], sinks=[sink], strict=True) as monitor, monitor.step(0):
            loss = sequence_loss(logits(data[0]), data[1])
            monitor.loss(loss)
            loss.backward()
            monitor.gradients()
        found = {r.quantity: r.value for r in sink.readings}
        if not whole:  # the positions are looked up once for the whole batch
            exact.pop("transformer.wpe.weight")
        assert found[TRACE] == pytest.approx(squared_norms(exact).mean().item(), rel=1e-5)
        assert (found[COVERED] == pytest.approx(1)) is whole
        assert 0.5 < found[COVERED] <= 1.0001


def example_gradients_of(model, logits, data):
    names, parameters = zip(*model.named_parameters(), strict=True)
    rows = []
    for ids, labels in zip(*data, strict=True):
        rows.append(torch.autograd.grad(sequence_loss(logits(ids[None]), labels), parameters, allow_unused=True))
    return {
        name: torch.stack([torch.zeros_like(p) if row[k] is None else row[k] for row in rows])
        for k, (name, p) in enumerate(zip(names, parameters, strict=True))
    }


def test_how_the_loss_was_reduced_divided_and_scaled_does_not_matter():
    torch.manual_seed(0)
    model, data = Everything(), tokens(6, 5)
    exact = mean_square(model, sequence_loss, data)
    halves = [(data[0][:3], data[1][:3]), (data[0][3:], data[1][3:])]

    def summed(logits, labels):
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")

    def each(logits, labels):
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").mean()

    for loss, batch, options in [
        (sequence_loss, [data], {}),
        (summed, [data], {}),
        (each, [data], {}),
        (sequence_loss, halves, {}),
        (sequence_loss, halves, {"divide": False}),
        (sequence_loss, halves, {"scale": 1024.0}),
        (summed, halves, {"scale": 2.0**16}),
        (lambda y, t: 0.3 * sequence_loss(y, t), [data], {}),
    ]:
        model.zero_grad()
        found, _ = measure(model, loss, batch, **options)
        assert found[TRACE].value == pytest.approx(exact, rel=1e-5)


def test_the_noise_is_that_of_the_examples_whatever_the_micro_batches():
    torch.manual_seed(0)
    model, data = Everything(), tokens(6, 5)
    gradients = torch.cat([g.double().flatten(1) for g in example_gradients(model, sequence_loss, *data).values()], 1)
    noise = gradients.var(0, correction=1).sum().item()
    signal = gradients.mean(0).square().sum().item() - noise / 6
    halves = [(data[0][:3], data[1][:3]), (data[0][3:], data[1][3:])]
    for batch, options in (([data], {}), (halves, {}), (halves, {"divide": False}), (halves, {"scale": 4096.0})):
        model.zero_grad()
        found, _ = measure(model, sequence_loss, batch, **options)
        assert found[NOISE].value == pytest.approx(noise, rel=1e-4)
        assert found[SCALE].value == pytest.approx(noise / signal, rel=1e-3)


def test_the_sum_over_tokens_is_another_example():
    torch.manual_seed(0)
    model, data = Everything(), tokens(6, 5)
    mean, _ = measure(model, sequence_loss, [data])
    model.zero_grad()
    total, _ = measure(model, sequence_loss, [data], ExampleGradientProbe(examples=None, per="sum"))
    assert total[TRACE].value == pytest.approx(25 * mean[TRACE].value, rel=1e-6)
    assert total[SCALE].value == pytest.approx(mean[SCALE].value, rel=1e-4)


def test_tokens_that_are_ignored_are_no_part_of_the_mean():
    torch.manual_seed(0)
    model, (ids, labels) = Everything(), tokens(4, 5)
    labels[0, :3] = -100
    labels[2, 1] = -100

    def share(logits, labels):  # the part of the batch's mean that belongs to one sequence, times the batch
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum") * 4 / 16

    found, _ = measure(model, sequence_loss, [(ids, labels)])
    assert found[TRACE].value == pytest.approx(mean_square(model, share, (ids, labels)), rel=1e-5)


def test_some_examples_stand_for_all_with_an_error_bar():
    torch.manual_seed(0)
    model, data = Everything(), tokens(64, 5)
    norms = squared_norms(example_gradients(model, sequence_loss, *data))
    found, _ = measure(model, sequence_loss, [data], ExampleGradientProbe(examples=16))
    taken = norms[1::4]
    assert found[TRACE].value == pytest.approx(taken.mean().item(), rel=1e-5)
    assert found[TRACE].error == pytest.approx(taken.std().item() / 4, rel=1e-4)
    assert abs(found[TRACE].value - norms.mean().item()) < 5 * found[TRACE].error


def test_norm_layers_alone():
    torch.manual_seed(0)
    model, data = Everything(), tokens(6, 5)
    gradients = example_gradients(model, sequence_loss, *data)
    only = {name: g for name, g in gradients.items() if name.startswith(("norm", "root"))}
    found, _ = measure(model, sequence_loss, [data], ExampleGradientProbe(examples=None, modules="norms"))
    assert found[TRACE].value == pytest.approx(squared_norms(only).mean().item(), rel=1e-5)
    assert found[COVERED].value < 0.5


def test_what_is_not_read_is_reported_by_its_share():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.gain = nn.Linear(3, 4), nn.Parameter(torch.full((4,), 2.0))

        def forward(self, x):
            return self.layer(x) * self.gain

    model, data = Scaled(), (torch.randn(5, 3), torch.randint(4, (5,)))
    found, _ = measure(model, F.cross_entropy, [data])
    squares = {name: p.grad.square().sum().item() for name, p in model.named_parameters()}
    assert found[COVERED].value == pytest.approx(1 - squares["gain"] / sum(squares.values()), rel=1e-5)
    only = {n: g for n, g in example_gradients(model, F.cross_entropy, *data).items() if n != "gain"}
    assert found[TRACE].value == pytest.approx(squared_norms(only).mean().item(), rel=1e-5)


class Elsewhere(nn.Module):
    """A weight that a bare function uses as well, each use sending a gradient of its own."""

    def __init__(self, share=0.3):
        super().__init__()
        self.share = share
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.head(x + self.share * F.linear(x, self.second.weight))


@pytest.mark.parametrize("examples", [None, 4])
def test_a_weight_that_a_function_uses_as_well_is_not_covered(examples):
    torch.manual_seed(0)
    data = torch.randn(12, 6), torch.randint(4, (12,))
    model, probe = Elsewhere(), ExampleGradientProbe(examples=examples)
    gradients = example_gradients(model, F.cross_entropy, *data)
    found, _ = measure(model, F.cross_entropy, [data], probe, scale=64.0)
    squares = {name: p.grad.square().sum().item() for name, p in model.named_parameters()}
    assert found[COVERED].value == pytest.approx(1 - squares["second.weight"] / sum(squares.values()), rel=1e-5)
    rows = slice(None) if examples is None else slice(1, 12, 3)
    only = {name: g[rows] for name, g in gradients.items() if name != "second.weight"}
    assert found[TRACE].value == pytest.approx(squared_norms(only).mean().item(), rel=1e-5)
    # A share that counts for less than a hundredth of the gradient is let pass.
    model = Elsewhere(share=1e-4)
    assert measure(model, F.cross_entropy, [data], probe)[0][COVERED].value == pytest.approx(1)


def test_where_every_weight_is_used_elsewhere_there_is_no_reading():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.other = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)

        def forward(self, x):
            return self.layer(x) + self.other(x) * F.linear(2 * x, self.layer.weight + self.other.weight)

    torch.manual_seed(0)
    found, _ = measure(Twice(), F.cross_entropy, [(torch.randn(5, 3), torch.randint(4, (5,)))])
    assert reason(found) == "incomplete_gradient"


def test_the_gradients_are_held_against_what_was_heard_again_after_some_readings():
    torch.manual_seed(0)
    model, sink = Elsewhere(share=0.0), MemorySink()
    data = torch.randn(12, 6), torch.randint(4, (12,))
    with Monitor(model, every=1, preset=[ALL], sinks=[sink], strict=True) as monitor:
        for step in range(2 * CHECKED):
            model.share = 0.5 if step > 2 else 0.0
            with monitor.step(step):
                loss = F.cross_entropy(model(data[0]), data[1])
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()
                model.zero_grad()
    covered = sink.series(COVERED)[1]
    assert (covered[:CHECKED] > 0.999).all()
    assert (covered[CHECKED:] < 0.99).all()


def test_a_loss_that_is_no_cross_entropy():
    model, data = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (torch.randn(5, 3), torch.randn(5, 2))
    exact = mean_square(model, F.mse_loss, data)
    for loss in (F.mse_loss, lambda y, t: (y - t).square().mean()):  # heard, and not heard
        model.zero_grad()
        found, _ = measure(model, loss, [data])
        assert found[TRACE].value == pytest.approx(exact, rel=1e-5)


def test_frozen_layers_sparse_gradients_and_half_precision():
    torch.manual_seed(0)
    data = tokens(6, 5)
    model = Everything()
    model.up.weight.requires_grad_(False)
    exact = mean_square(model, sequence_loss, data)
    found, _ = measure(model, sequence_loss, [data])
    assert found[TRACE].value == pytest.approx(exact, rel=1e-5)

    sparse = nn.Sequential(nn.Embedding(7, 4, sparse=True), nn.Linear(4, 7))
    dense = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    dense.load_state_dict(sparse.state_dict())
    found, _ = measure(sparse, sequence_loss, [data])
    assert found[TRACE].value == pytest.approx(mean_square(dense, sequence_loss, data), rel=1e-5)
    assert found[COVERED].value == pytest.approx(1)

    rounded = copy.deepcopy(model).bfloat16()
    found, _ = measure(rounded, sequence_loss, [data])
    assert found[TRACE].value == pytest.approx(exact, rel=0.05)


def reason(found):
    found = {key: reading for key, reading in found.items() if key in POSSIBLE}
    assert all(math.isnan(reading.value) for reading in found.values())
    (why,) = {reading.reason for reading in found.values()}
    return why


def test_a_second_backward_pass_is_no_reading():
    model, (inputs, labels) = nn.Linear(3, 4), (torch.randn(5, 3), torch.randint(4, (5,)))
    sink = MemorySink()
    with Monitor(model, every=1, preset=[ALL], sinks=[sink], strict=True) as monitor, monitor.step(0):
        loss = F.cross_entropy(model(inputs), labels)
        monitor.loss(loss)
        loss.backward(retain_graph=True)
        loss.backward()
        monitor.gradients()
    assert reason({r.quantity: r for r in sink.readings}) == "second_backward"


def test_a_pair_of_passes_is_not_taken_for_examples():
    model, (inputs, labels) = nn.Linear(3, 4), (torch.randn(5, 3), torch.randint(4, (5,)))
    sink = MemorySink()
    with Monitor(model, every=1, preset=[ALL], sinks=[sink], strict=True) as monitor, monitor.step(0):
        loss = F.cross_entropy(model(inputs) - model(inputs.flip(1)), labels)
        monitor.loss(loss)
        loss.backward()
        monitor.gradients()
    assert reason({r.quantity: r for r in sink.readings}) == "ambiguous_batch"


def test_gradients_that_are_not_finite_or_not_there():
    model, data = nn.Linear(3, 4), (torch.full((5, 3), math.inf), torch.randint(4, (5,)))
    found, _ = measure(model, F.cross_entropy, [data])
    assert found[TRACE].reason == "non_finite"
    assert found[SCALE].reason == "non_finite"
    model.requires_grad_(False)
    model.weight.grad = model.bias.grad = None
    sink = MemorySink()
    with Monitor(model, every=1, preset=[ALL], sinks=[sink], strict=True) as monitor, monitor.step(0):
        monitor.loss(F.cross_entropy(model(torch.ones(5, 3)), data[1]))
        monitor.gradients()
    assert reason({r.quantity: r for r in sink.readings}) == "no_gradient"


def test_one_example_has_a_norm_and_no_noise():
    torch.manual_seed(0)
    model, data = Everything(), tokens(1, 5)
    found, _ = measure(model, sequence_loss, [data])
    assert found[TRACE].value == pytest.approx(mean_square(model, sequence_loss, data), rel=1e-5)
    assert found[TRACE].error is None
    assert found[NOISE].reason == found[SCALE].reason == "n_lt_2"


def test_an_empty_batch_is_no_reading():
    model = nn.Linear(3, 4)
    found, _ = measure(model, lambda y, _: y.sum(), [(torch.zeros(0, 3), None)])
    assert math.isnan(found[TRACE].value)


def test_an_input_that_is_changed_in_place_is_not_read():
    transformers = pytest.importorskip("transformers")

    class InPlace(nn.Module):
        """Its normalisation is no single function: autograd needs other tensors than its input."""

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 4)
            self.norm = transformers.models.llama.modeling_llama.LlamaRMSNorm(3).bfloat16()

        def forward(self, x):
            x = self.first(x).bfloat16()
            y = self.norm(x)
            x += 1
            return self.second((x + y).float())

    model, data = InPlace(), (torch.randn(5, 3), torch.randint(4, (5,)))
    found, _ = measure(model, F.cross_entropy, [data])
    squares = {name: p.grad.float().square().sum().item() for name, p in model.named_parameters()}
    assert found[COVERED].value == pytest.approx(1 - squares["norm.weight"] / sum(squares.values()), rel=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(reentrant):
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(Everything):
        def forward(self, ids):
            x = self.embed(ids)
            x = checkpoint(lambda x: x + self.down(torch.tanh(self.up(self.norm(x)))), x, use_reentrant=reentrant)
            return self.head(self.root(x))

    torch.manual_seed(0)
    model, data = Checkpointed(), tokens(6, 5)
    exact = None
    if not reentrant:
        exact = mean_square(model, sequence_loss, data)
    found, _ = measure(model, sequence_loss, [data])
    if reentrant:  # what happens inside is only done in the backward pass: not covered, and said so
        assert 0 < found[COVERED].value < 0.999
    else:
        assert found[TRACE].value == pytest.approx(exact, rel=1e-5)


def test_the_sequence_may_come_first():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 8)
            self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0)
            self.head = nn.Linear(8, 7)

        def forward(self, ids):
            return self.head(self.layer(self.embed(ids).transpose(0, 1))).transpose(0, 1)

    for length in (3, 5):  # where both are as long, the batch could be either
        torch.manual_seed(0)
        model, data = SequenceFirst(), tokens(5, length)
        gradients = example_gradients(model, sequence_loss, *data)
        only = {n: g for n, g in gradients.items() if "self_attn" not in n}  # its weights are used by a function
        model.zero_grad()
        found, _ = measure(model, sequence_loss, [data])
        if length == 5:
            assert reason(found) == "ambiguous_batch"
        else:
            assert found[TRACE].value == pytest.approx(squared_norms(only).mean().item(), rel=1e-5)
            assert found[COVERED].value < 1


def test_a_model_in_training_reads_at_every_step():
    model, sink = build(Transformer), MemorySink()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Monitor(model, optimizer, every=2, preset=[ALL], sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=6, optimizer=optimizer, accumulate=2)
    assert sink.series(TRACE)[0].tolist() == [0, 2, 4]
    assert (sink.series(TRACE)[1] > 0).all()
    assert set(POSSIBLE[:-2]) <= {r.quantity for r in sink.readings}


def in_training(model, batches, scaler, optimizer):
    sink = MemorySink()
    with Monitor(model, optimizer, every=1, preset=[ALL], sinks=[sink], strict=True) as monitor:
        for step, (inputs, labels) in enumerate(batches):
            with monitor.step(step):
                loss = F.cross_entropy(model(inputs), labels)
                monitor.loss(loss)
                scaler.scale(loss).backward()
                monitor.gradients(scaler)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    return [r for r in sink.readings if r.quantity == TRACE]


def test_a_step_that_the_loss_scaler_skips_is_no_reading():
    # A scale that overflows single precision: skipped, halved until it fits.
    torch.manual_seed(0)
    model, data = nn.Linear(3, 4), (100 * torch.randn(5, 3), torch.randint(4, (5,)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-110)
    wanted = mean_square(copy.deepcopy(model), F.cross_entropy, data)
    first, second, third = in_training(model, [data] * 3, scaler, optimizer)
    assert math.isnan(first.value)
    assert first.reason == "non_finite"
    assert second.value == pytest.approx(wanted, rel=1e-5)  # of weights that did not move
    assert third.value != second.value


def test_a_batch_without_examples_in_a_training_is_no_reading_and_the_next_one_is():
    torch.manual_seed(0)
    model, data = nn.Linear(3, 4), (torch.randn(5, 3), torch.randint(4, (5,)))
    empty = (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    wanted = mean_square(copy.deepcopy(model), F.cross_entropy, data)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    first, second, third = in_training(model, [data, empty, data], scaler, optimizer)
    assert math.isnan(second.value)
    assert second.reason
    assert first.value == third.value == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"examples": 1}, "examples=1"),
        ({"modules": "some"}, "give 'all' or 'norms'"),
        ({"per": "token"}, "give 'mean' or 'sum'"),
        ({"quantities": ("loss/train",)}, "does not measure"),
    ],
)
def test_wrong_options_are_refused_in_words(options, words):
    with pytest.raises(ValueError, match=words):
        ExampleGradientProbe(**options)


def heat(make, data, dataset=None, steps=4):
    torch.manual_seed(0)
    model, sink = nn.Linear(3, 4), MemorySink()
    optimizer = make(model.parameters()) if make else None
    probe = ExampleGradientProbe(examples=None, dataset=dataset, quantities=(NOISE, HEAT, HEAT_SCALE))
    with Monitor(model, optimizer, every=1, preset=[probe], sinks=[sink], strict=True) as monitor:
        for step in range(steps):
            with monitor.step(step):
                inputs, labels = data(step)
                loss = F.cross_entropy(model(inputs), labels)
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()
                model.zero_grad()
    return {r.quantity: r for r in sink.readings}


def fresh(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(6, 3, generator=generator), torch.randint(4, (6,), generator=generator)


def test_the_temperature_of_the_noise_is_its_formula():
    found = heat(lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.5), fresh, dataset=100, steps=1)
    assert found[HEAT].value == pytest.approx(0.2 * found[NOISE].value / (2 * 6 * 16 * 0.5) * 94 / 99)
    assert found[HEAT_SCALE].value == pytest.approx(0.2 * (100 / 6 - 1) / 0.5)
    found = heat(lambda p: torch.optim.SGD(p, lr=0.2), fresh)
    assert found[HEAT].value > 0
    assert found[HEAT_SCALE].reason == "unknown_dataset"


@pytest.mark.parametrize(
    ("make", "data", "dataset", "why"),
    [
        (None, fresh, None, "no_optimizer"),
        (torch.optim.AdamW, fresh, None, "unsupported_optimizer"),
        (torch.optim.SGD, lambda step: fresh(0), None, "full_batch"),
        (torch.optim.SGD, fresh, 6, "full_batch"),
        (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True), fresh, None, "unsupported_optimizer"),
    ],
)
def test_where_there_is_no_temperature_it_says_why(make, data, dataset, why):
    found = heat(make, data, dataset)
    assert found[HEAT].reason == found[HEAT_SCALE].reason == why
    assert math.isfinite(found[NOISE].value)


def test_the_proxy_is_held_against_the_exact_value():
    torch.manual_seed(0)
    model, sink = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)), MemorySink()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, betas=(0.9, 0.99))
    probe = ExampleGradientProbe(examples=None, quantities=(TRACE, RATIO))
    with Monitor(model, optimizer, every=1, preset=[probe], sinks=[sink], strict=True) as monitor:
        for step in range(400):
            with monitor.step(step):
                inputs, labels = fresh(step)
                loss = F.cross_entropy(model(inputs), labels)
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()
                optimizer.step()
                optimizer.zero_grad()
    ratios = [r for r in sink.readings if r.quantity == RATIO]
    assert ratios[0].reason == "too_early"
    assert all(r.error > 0 for r in ratios[1:])
    # The weights stand still: the ratio of the means is 1 up to some 200 gradients in the average.
    exact = sink.series(TRACE)[1][100:]
    proxy = [r.value * x for r, x in zip(ratios[100:], exact, strict=True)]
    assert sum(proxy) / exact.sum() == pytest.approx(1, rel=0.1)
    found = heat(torch.optim.SGD, fresh)
    assert RATIO not in found


def test_the_spot_check_says_why_there_is_no_proxy():
    model, sink = nn.Linear(3, 4), MemorySink()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    probe = ExampleGradientProbe(quantities=(TRACE, RATIO))
    with Monitor(model, optimizer, every=1, preset=[probe], sinks=[sink], strict=True) as monitor, monitor.step(0):
        inputs, labels = fresh(0)
        loss = F.cross_entropy(model(inputs), labels)
        monitor.loss(loss)
        loss.backward()
        monitor.gradients()
    assert {r.quantity: r for r in sink.readings}[RATIO].reason == "unsupported_optimizer"
