"""The free Fisher proxy in a training: against per-example gradients, and what it says when it cannot know."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models import Plain, Transformer, batches, build, cross_entropy, train
from tests.reference.adam import squared_gradient_norms
from thermo_monitor import Monitor
from thermo_monitor.probes import FisherProxyProbe
from thermo_monitor.sinks import MemorySink

TRACE, SHARE = "fisher/trace_adam_proxy", "fisher/share_adam_proxy"
BOTH = (TRACE, SHARE)


def readings(model, optimizer, steps=4, probe=None, **options):
    sink = MemorySink()
    probe = probe or FisherProxyProbe(quantities=BOTH)
    with Monitor(model, optimizer, every=1, preset=[probe], sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=steps, optimizer=optimizer, **options)
    return sink


def traces(sink):
    return [(r.value, r.reason) for r in sink.readings if r.quantity == TRACE]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam])
def test_it_is_the_trace_of_the_empirical_fisher_information(kind):
    # A learning rate of nearly nothing: the gradients of the steps are then independent draws around one mean.
    generator = torch.Generator().manual_seed(3)
    inputs, labels = torch.randn(256, 5, generator=generator), torch.randint(3, (256,), generator=generator)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    optimizer = kind(model.parameters(), lr=1e-9, betas=(0.9, 0.995))
    sink = MemorySink()
    with Monitor(model, optimizer, every=1, preset=[FisherProxyProbe()], sinks=[sink], strict=True) as monitor:
        for step in range(1000):
            with monitor.step(step):
                rows = torch.randint(256, (8,), generator=generator)
                loss = F.cross_entropy(model(inputs[rows]), labels[rows])
                monitor.loss(loss)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    exact = squared_gradient_norms(model, F.cross_entropy, inputs, labels).mean().item()
    # About 400 gradients are in the average. The squared norm of one, for draws from a covariance with a few large
    # eigenvalues, scatters about as much as its mean: 1 / sqrt(400) = 5 % is one standard error.
    assert sink.series(TRACE)[1][-1] == pytest.approx(exact, rel=0.2)
    values = sink.series(TRACE)[1]
    assert abs(values[300:].mean() / exact - 1) < 0.1  # about three independent averages


def test_layers_add_up_and_their_shares_too():
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    sink = readings(model, optimizer)
    frames = {frame.quantity: frame for frame in sink.frames if frame.step == 3}
    assert frames[TRACE].layers == ("embed", "blocks.0", "blocks.1", "head")
    assert frames[TRACE].values.sum() == pytest.approx(traces(sink)[-1][0], rel=1e-6)
    assert frames[SHARE].values.sum() == pytest.approx(1)
    assert sink.series(SHARE)[1][-1] == pytest.approx(frames[SHARE].values.max())


def test_the_total_is_the_same_without_layers():
    values = []
    for probe in (FisherProxyProbe(), FisherProxyProbe(quantities=BOTH)):
        model = build()
        values.append(traces(readings(model, torch.optim.AdamW(model.parameters(), lr=1e-2), probe=probe))[-1][0])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_large_tensors_are_summed_as_exactly_as_small_ones():
    model = nn.Linear(300, 300)  # 90,000 weights
    optimizer = torch.optim.AdamW(model.parameters())
    probe = FisherProxyProbe(examples=7)
    sink = MemorySink()
    generator = torch.Generator().manual_seed(0)
    with Monitor(model, optimizer, every=1, preset=[probe], sinks=[sink], strict=True) as monitor:
        for step in range(3):
            with monitor.step(step):
                loss = model(torch.randn(7, 300, generator=generator)).square().mean()
                monitor.loss(loss)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    v, m2 = (
        sum(f(s[key].double()).sum().item() for s in optimizer.state.values())
        for key, f in (("exp_avg_sq", lambda x: x), ("exp_avg", torch.square))
    )
    mean = m2 / (1 - 0.9**3) ** 2
    share = 0.1 * (1 + 0.9**3) / (1.9 * (1 - 0.9**3))
    expected = 7 * (v / (1 - 0.999**3) - mean) / (1 - share) + mean
    assert traces(sink)[-1][0] == pytest.approx(expected, rel=1e-5)


def test_a_state_that_was_replaced_or_is_not_contiguous_is_read_as_it_is_now():
    def value(change):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)).to(memory_format=change)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        sink = MemorySink()
        generator = torch.Generator().manual_seed(0)
        with Monitor(model, optimizer, every=1, preset=[FisherProxyProbe()], sinks=[sink], strict=True) as monitor:
            for step in range(5):
                with monitor.step(step):
                    images = torch.randn(6, 3, 3, 3, generator=generator)
                    loss = F.cross_entropy(model(images), torch.randint(2, (6,), generator=generator))
                    monitor.loss(loss)
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
                if step == 2:
                    optimizer.load_state_dict(optimizer.state_dict())
        return traces(sink)

    plain, strided = value(torch.contiguous_format), value(torch.channels_last)
    assert [reason for _, reason in strided] == ["too_early", None, None, None, None]
    for (one, _), (two, _) in zip(plain[1:], strided[1:], strict=True):
        assert one == pytest.approx(two, rel=1e-3)
    assert plain[-1][0] != plain[-2][0]


def test_examples_are_sequences_where_there_is_attention_and_rows_where_there_is_none():
    for kind, examples in ((Transformer, 4), (Plain, 24)):
        found = []
        for probe in (FisherProxyProbe(), FisherProxyProbe(examples=2 * examples)):
            model = build(kind)
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            found.append(traces(readings(model, optimizer, probe=probe, accumulate=2))[-1][0])
        assert found[0] == found[1]


def test_a_sum_over_examples_comes_to_the_same_as_their_mean():
    found = {}
    for reduction in ("mean", "sum"):
        model = build(Plain)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9)
        sink = MemorySink()
        probe = FisherProxyProbe(reduction=reduction)
        with Monitor(model, optimizer, every=1, preset=[probe], sinks=[sink], strict=True) as monitor:
            for step, tokens in enumerate(batches(4)):
                with monitor.step(step):
                    loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten(), reduction=reduction)
                    monitor.loss(loss)
                    loss.backward()
                    optimizer.step()
                    optimizer.zero_grad()
        found[reduction] = traces(sink)[-1][0]
    assert found["sum"] == pytest.approx(found["mean"], rel=1e-4)


def no_gradient_reading(optimizer, **options):
    model = build()
    return traces(readings(model, optimizer(model), **options))[-1]


WHY = {
    "no_optimizer": lambda model: None,
    "unsupported_optimizer": lambda model: torch.optim.SGD(model.parameters(), 0.1),
    "l2_in_gradient": lambda model: torch.optim.Adam(model.parameters(), weight_decay=0.1),
}


@pytest.mark.parametrize("why", WHY)
def test_what_cannot_be_known_is_nan_with_the_reason(why):
    model = build()
    optimizer = WHY[why](model)
    sink = MemorySink()
    with Monitor(model, optimizer, every=1, preset=[FisherProxyProbe()], sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=3, optimizer=optimizer)
    assert {(math.isnan(value), reason) for value, reason in traces(sink)} == {(True, why)}


@pytest.mark.parametrize("kind", [torch.optim.Adamax, torch.optim.RMSprop, torch.optim.Adagrad])
def test_other_moments_are_not_taken_for_adams(kind):
    model = build()
    found = traces(readings(model, kind(model.parameters(), lr=1e-3)))
    assert {reason for _, reason in found} == {"unsupported_optimizer"}


def test_the_same_batch_every_time_holds_no_noise():
    model = build()
    found = traces(readings(model, torch.optim.AdamW(model.parameters()), data=batches(1)))
    assert [reason for _, reason in found] == ["too_early", "full_batch", "full_batch", "full_batch"]


def test_labels_that_are_alike_in_every_batch_prove_nothing():
    class Contrast(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(50, 8)

        def forward(self, tokens):
            return self.embed(tokens) @ self.embed(tokens + 1).T

    model = Contrast()
    optimizer = torch.optim.AdamW(model.parameters())
    sink = MemorySink()
    generator = torch.Generator().manual_seed(0)
    with Monitor(model, optimizer, every=1, preset=[FisherProxyProbe()], sinks=[sink], strict=True) as monitor:
        for step in range(4):
            with monitor.step(step):
                rows = torch.randint(49, (16,), generator=generator)
                loss = F.cross_entropy(model(rows), torch.arange(16))
                monitor.loss(loss)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    assert [reason for _, reason in traces(sink)] == ["too_early", None, None, None]


def test_a_loss_that_was_not_told_leaves_the_batch_unknown():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    sink = MemorySink()
    with Monitor(model, optimizer, every=1, preset=[FisherProxyProbe()], sinks=[sink], strict=True) as monitor:
        for step in range(3):
            with monitor.step(step):
                model(torch.ones(4, 3)).square().mean().backward()
                optimizer.step()
    assert traces(sink)[-1][1] == "unknown_batch"


def test_frozen_parameters_take_no_part_and_a_run_without_gradients_says_so():
    model = build()
    model.embed.weight.requires_grad_(False)
    sink = readings(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    frame = next(f for f in sink.frames if f.quantity == TRACE and f.step == 3)
    assert frame.values[0, 0] == 0
    assert traces(sink)[-1][0] > 0

    frozen = build()
    for p in frozen.parameters():
        p.requires_grad_(False)
    extra = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW([*frozen.parameters(), extra])
    sink = MemorySink()
    with Monitor(frozen, optimizer, every=1, preset=[FisherProxyProbe()], sinks=[sink], strict=True) as monitor:
        for step, tokens in enumerate(batches(3)):
            with monitor.step(step):
                monitor.loss(cross_entropy(frozen(tokens), tokens))
                optimizer.step()
    assert traces(sink)[-1][1] == "no_gradient"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"examples": 0}, "examples=0"),
        ({"reduction": "none"}, "give 'mean' or 'sum'"),
        ({"quantities": ("fisher/x",)}, "unknown"),
    ],
)
def test_wrong_options_are_refused_in_words(options, words):
    with pytest.raises(ValueError, match=words):
        FisherProxyProbe(**options)
