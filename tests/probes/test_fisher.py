"""The Fisher probe on live models: right numbers, and a training that does not notice."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.fingerprint import digest, installed, seed_all
from tests.models import Transformer, batches, build, train
from tests.reference.fisher import softmax_fisher
from thermo_monitor import Monitor
from thermo_monitor.physics.fisher import softmax_fisher_trace
from thermo_monitor.probes import FisherProbe
from thermo_monitor.probes.fisher import _POSSIBLE
from thermo_monitor.sinks import MemorySink

INPUTS = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))


def step(model, probe, change=0.0, optimizer=None):
    sink = MemorySink()
    with Monitor(model, optimizer, every=1, preset=[probe], sinks=[sink], strict=True) as monitor, monitor.step(0):
        monitor.gradients()
        with torch.no_grad():
            for p in model.parameters():
                p += change * torch.sin(torch.arange(p.numel(), dtype=torch.float32)).view_as(p)
    return {r.quantity: r for r in sink.readings}, {f.quantity: f for f in sink.frames}


def linear(outputs=3):
    torch.manual_seed(0)
    return nn.Linear(4, outputs, bias=False)


def test_a_softmax_layer_has_the_trace_of_the_closed_form():
    model = linear()
    exact = softmax_fisher_trace(model(INPUTS).detach(), INPUTS).item()
    found, frames = step(model, FisherProbe(INPUTS, draws=400))
    for key in ("fisher/trace_mc", "fisher/trace_ggn"):
        assert 0 < found[key].error < 0.1 * exact
        assert abs(found[key].value - exact) < 4 * found[key].error
    assert frames["fisher/trace_mc"].values.sum() == pytest.approx(found["fisher/trace_mc"].value, rel=1e-5)


def test_a_model_that_is_sure_has_no_error_bar():
    # One label in a million is another one, with a gradient near 1: eight draws agree, and say nothing of it.
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[14.0], [0.0]]))
    inputs = torch.ones(4, 1)
    exact = softmax_fisher_trace(model(inputs).detach(), inputs).item()
    reading = step(model, FisherProbe(inputs))[0]["fisher/trace_mc"]
    assert reading.value < 0.01 * exact
    assert reading.error is None


def test_squared_error_has_the_trace_of_linear_regression():
    found, _ = step(linear(), FisherProbe(INPUTS, loss="squared_error", draws=400, lanczos=12, quantities=_POSSIBLE))
    exact = 2 * 3 * INPUTS.square().sum(1).mean().item()
    assert abs(found["fisher/trace_ggn"].value - exact) < 4 * found["fisher/trace_ggn"].error
    top = 2 * torch.linalg.eigvalsh(INPUTS.T @ INPUTS / 9)[-1].item()
    assert found["fisher/top_eigenvalue"].value == pytest.approx(top, rel=1e-4)
    for key in ("fisher/trace_mc", "fisher/output_speed"):
        assert found[key].reason == "unsupported_loss"


def test_the_top_eigenvalue_and_the_dimension_of_a_small_network():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    w = torch.cat([p.detach().flatten() for p in model.parameters()]).double()

    def network(w):
        return torch.tanh(INPUTS.double() @ w[:20].view(5, 4).T) @ w[20:].view(3, 5).T

    matrix = softmax_fisher(network, w, 9)
    probe = FisherProbe(INPUTS, draws=2000, damping=0.01, lanczos=12, quantities=_POSSIBLE)
    found, frames = step(model, probe, change=1e-3)
    assert found["fisher/top_eigenvalue"].value == pytest.approx(torch.linalg.eigvalsh(matrix)[-1].item(), rel=1e-3)
    d = matrix.diagonal()
    assert found["fisher/effective_dimension"].value == pytest.approx((d / (d + 0.01)).sum().item(), rel=0.02)
    assert found["fisher/diag_participation"].value == pytest.approx((d.sum() ** 2 / d.square().sum()).item(), rel=0.1)
    assert found["fisher/diag_mean"].value == pytest.approx(d.mean().item(), rel=0.05)
    assert found["fisher/diag_max"].value == pytest.approx(d.max().item(), rel=0.2)
    for key, expected in (
        ("fisher/diag_mean", lambda x: x.mean()),
        ("fisher/diag_max", lambda x: x.max()),
        ("fisher/diag_participation", lambda x: x.sum() ** 2 / x.square().sum()),
    ):  # of each layer by itself
        assert frames[key].layers == ("0", "2")
        layers = [expected(part).item() for part in (d[:20], d[20:])]
        assert frames[key].values[:, 0].tolist() == pytest.approx(layers, rel=0.2)
    change = torch.cat([1e-3 * torch.sin(torch.arange(p.numel())) for p in model.parameters()]).double()
    assert found["fisher/speed"].value == pytest.approx((d * change.square()).sum().sqrt().item(), rel=0.05)
    # The outputs know of the correlations, too.
    assert found["fisher/output_speed"].value == pytest.approx((change @ matrix @ change).sqrt().item(), rel=0.01)


def test_lengths_add_up_and_stand_for_the_steps_between():
    model, sink = build(), MemorySink()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    probe = FisherProbe(batches(1)[0])
    with Monitor(model, optimizer, every=3, preset=[probe], sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=7, optimizer=optimizer)
    for speed, length in (("fisher/speed", "fisher/length"), ("fisher/output_speed", "fisher/output_length")):
        ds, total = sink.series(speed)[1], sink.series(length)[1]
        assert total.tolist() == pytest.approx([ds[0], ds[0] + 3 * ds[1], ds[0] + 3 * ds[1] + 3 * ds[2]])
        assert (ds > 0).all()


class Forgetful(nn.Module):
    """Dropout, batch statistics, and a buffer that counts."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.seen += 1
        return self.second(F.dropout(self.norm(self.first(x)), 0.5, self.training))


def test_a_training_with_buffers_and_dropout_does_not_notice():
    def outcome(probes):
        torch.manual_seed(0)
        model = Forgetful()
        model.norm.eval()  # a part that the program has frozen stays so
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        seed_all()
        sink = MemorySink()
        before = installed(model)
        with Monitor(model, optimizer, every=1, preset=probes, sinks=[sink], strict=True) as monitor:
            for number in range(6):
                with monitor.step(number):
                    loss = F.cross_entropy(model(INPUTS), torch.arange(9) % 3)
                    monitor.loss(loss)
                    loss.backward()
                    grads = [p.grad.clone() for p in model.parameters()]
                    monitor.gradients()
                    assert all(torch.equal(g, p.grad) for g, p in zip(grads, model.parameters(), strict=True))
                    optimizer.step()
                    optimizer.zero_grad()
        assert installed(model) == before
        assert [m.training for m in (model, model.norm)] == [True, False]
        return digest([*model.state_dict().values(), torch.get_rng_state(), loss]), sink

    expected, _ = outcome([])
    probe = FisherProbe(INPUTS, lanczos=2, quantities=_POSSIBLE)
    found, sink = outcome([probe])
    assert found == expected
    assert {r.quantity for r in sink.readings if math.isfinite(r.value)} >= set(_POSSIBLE)


def test_attention_and_named_inputs_and_records():
    probe = FisherProbe({"tokens": batches(1)[0]}, lanczos=2, quantities=_POSSIBLE)
    found, _ = step(build(Transformer), probe, change=1e-3)
    assert all(math.isfinite(found[key].value) for key in _POSSIBLE)
    probe = FisherProbe((batches(1)[0],), forward=lambda model, inputs: model(*inputs)[:, -1])
    found, _ = step(build(Transformer), probe)
    assert found["fisher/trace_mc"].value > 0


def test_a_frozen_model_has_none():
    model = linear().requires_grad_(False)
    found, _ = step(model, FisherProbe(INPUTS))
    assert {found[key].reason for key in _POSSIBLE[:-1]} == {"no_gradient"}


def test_the_same_seed_draws_the_same():
    values = [step(linear(), FisherProbe(INPUTS))[0]["fisher/trace_mc"].value for _ in range(2)]
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "hinge"}, "'squared_error'"),
        ({"draws": 1}, "draws=1"),
        ({"damping": 0.0}, "damping"),
        ({"quantities": ("fisher/top_eigenvalue",)}, "lanczos=0"),
    ],
)
def test_wrong_options_are_refused_in_words(options, words):
    with pytest.raises(ValueError, match=words):
        FisherProbe(INPUTS, **options)
