"""Wrong options are refused at once and in words; trouble of a run changes readings, never the training."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.fingerprint import installed
from tests.models import LENGTH, Plain, batches, build, cross_entropy, train
from thermo_monitor import Monitor
from thermo_monitor.lightning import ThermoMonitor
from thermo_monitor.probes import AttentionProbe, RepresentationProbe
from thermo_monitor.sinks import MemorySink

OPTIONS = {
    "every 0": ({"every": 0}, "every=0 is no cadence"),
    "every -1": ({"every": -1}, "every=-1"),
    "every 1.5": ({"every": 1.5}, "1 or more"),
    "every True": ({"every": True}, "every=True"),
    "every x": ({"every": "x"}, "every='x'"),
    "every None": ({"every": None}, "every=None"),
    "fast_every 0": ({"fast_every": 0}, "0 is no cadence"),
    "preset": ({"preset": "studi"}, "did you mean 'study'"),
    "probe": ({"preset": [AttentionProbe]}, "is not a probe"),
    "detector": ({"detector": 10_000}, r"detector=10000.*OnlineDetector\(arl"),
    "sinks": ({"sinks": MemorySink()}, "give a list of sinks"),
    "sink class": ({"sinks": [MemorySink]}, "it is a class"),
    "no sink": ({"sinks": [3]}, "3 is not a sink.*no write"),
    "on_event": ({"on_event": 3}, "on_event=3 cannot be called"),
    "layers": ({"layers": "all"}, "layers='all'"),
    "layer": ({"layers": (0, -1)}, "give indices"),
    "one layer": ({"layers": 3}, "layers=3"),
    "seed": ({"seed": 0.5}, "seed=0.5"),
    "strict": ({"strict": "yes"}, "strict='yes'"),
}
ONLY_LIGHTNING = {
    "word": ({"save_checkpoint_on": "shift"}, r"give a list, such as \('shift',\)"),
    "unknown": ({"save_checkpoint_on": ["shft"]}, "holds 'shft'; kinds: shift, .*; phases: memorization"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_wrong_option_is_refused_and_nothing_stays_installed(case):
    options, words = OPTIONS[case]
    model = build()
    before = installed(model)
    with pytest.raises(ValueError, match=words):
        Monitor(model, **{"sinks": []} | options)
    assert installed(model) == before
    with pytest.raises(ValueError, match=words):
        ThermoMonitor(**options)


@pytest.mark.parametrize("case", ONLY_LIGHTNING)
def test_a_wrong_option_of_the_callback_is_refused(case):
    options, words = ONLY_LIGHTNING[case]
    with pytest.raises(ValueError, match=words):
        ThermoMonitor(**options)


@pytest.mark.parametrize(("model", "optimizer"), [(3, None), (nn.Linear, None), (nn.Linear(1, 1), "adam")])
def test_what_is_no_model_or_optimizer_is_refused(model, optimizer):
    with pytest.raises(ValueError, match=r"is no (model|optimizer): give"):
        Monitor(model, optimizer, sinks=[])


def test_a_construction_that_fails_half_way_leaves_nothing(tmp_path):
    model = build()
    before = installed(model)
    with pytest.raises(ValueError, match=r"no module 'blocks.7'; it has embed, blocks"):
        Monitor(model, preset=[AttentionProbe(), RepresentationProbe(module="blocks.7")], log_dir=tmp_path / "x")
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write to .*file/below/thermo.jsonl: Not a directory; give a path"):
        Monitor(model, log_dir=tmp_path / "file" / "below")
    assert installed(model) == before


def test_a_broken_loss_is_a_divergence_and_changes_nothing(spoken):
    def run(monitored):
        model, sink = build(Plain), MemorySink()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        monitor = Monitor(model, optimizer, every=1, sinks=[sink], strict=True) if monitored else None
        for step, tokens in enumerate(batches(6)):
            if monitor:
                monitor.begin(step)
            loss = cross_entropy(model(tokens), tokens) * (math.nan if step > 1 else 1)
            loss.backward()
            if monitor:
                monitor.loss(loss)
                monitor.gradients()
            optimizer.step()
            optimizer.zero_grad()
            if monitor:
                monitor.end()
        if monitor:
            monitor.close()
        return [p.detach() for p in model.parameters()], sink

    parameters, sink = run(True)
    expected, _ = run(False)
    assert all(torch.equal(a, b) or (a.isnan() == b.isnan()).all() for a, b in zip(parameters, expected, strict=True))
    divergence = [e for e in sink.events if e.kind == "divergence"]
    assert [(e.onset, e.quantity, e.level) for e in divergence] == [(2, "loss/train", "error")]
    reasons = {r.quantity: r.reason for r in sink.readings if r.step == 5}
    assert reasons["loss/train"] == reasons["out/predictive_entropy"] == reasons["opt/weight_norm"] == "non_finite"


def test_a_model_without_attention_never_diverges_for_it(spoken):
    model, sink = build(Plain), MemorySink()
    with Monitor(model, every=1, sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=80)
    assert [text for text in spoken if "no attention was heard; the other probes go on" in text]
    assert len(spoken) == 2  # and no block, for the representations
    assert not [e for e in sink.events if e.kind == "divergence"]
    assert len(sink.series("out/predictive_entropy")[0]) == 80


BATCHES = {
    "empty": torch.zeros(0, LENGTH, dtype=torch.int64),
    "one sequence": torch.ones(1, LENGTH, dtype=torch.int64),
    "one token": torch.ones(1, 1, dtype=torch.int64),
    "single-token sequences": torch.ones(5, 1, dtype=torch.int64),
    "no tokens": torch.zeros(3, 0, dtype=torch.int64),
}


@pytest.mark.parametrize("case", BATCHES)
@pytest.mark.parametrize("preset", ["study", "grokking"])
def test_odd_batches_give_reasons(case, preset, spoken):
    model, sink, tokens = build(), MemorySink(), BATCHES[case]
    with Monitor(model, every=1, preset=preset, sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=2, data=[tokens])
    assert all(r.reason for r in sink.readings if math.isnan(r.value))
    assert sink.series("monitor/disabled")[1].tolist() == [0, 0]
    assert all("no gradient" not in text for text in spoken)


def test_logits_that_are_not_finite_have_that_reason(spoken):
    model, sink = build(), MemorySink()
    model.head.bias.data[0] = math.inf
    with Monitor(model, every=1, sinks=[sink], strict=True) as monitor:
        train(model, monitor, steps=1)
    reasons = {r.quantity: r.reason for r in sink.readings}
    assert reasons["out/predictive_entropy"] == "non_finite"
    assert reasons["attn/entropy_fraction"] is None  # attention came before


def test_gradients_that_are_frozen_missing_or_sparse(spoken):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(11, 4, sparse=True)
            self.frozen, self.unused = nn.Linear(4, 4).requires_grad_(False), nn.Linear(3, 3)
            self.empty = nn.Parameter(torch.zeros(0))
            self.head = nn.Linear(4, 11)

        def forward(self, tokens):
            return self.head(self.frozen(self.embed(tokens)))

    model, sink, norms = build(Odd), MemorySink(), []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Monitor(model, optimizer, every=1, sinks=[sink], strict=True) as monitor:
        for step, tokens in enumerate(batches(2)):
            before = [p.detach().clone() for p in model.parameters()]
            with monitor.step(step):
                F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
                monitor.gradients()
                given = [p.grad.to_dense() for p in model.parameters() if p.grad is not None]
                norms.append((torch.nn.utils.get_total_norm(given), *_norms(model, before, optimizer)))
    for column, quantity in enumerate(("opt/gradient_norm", "opt/weight_norm", "opt/update_norm")):
        expected = [float(row[column]) for row in norms]
        assert sink.series(quantity)[1].tolist() == pytest.approx(expected, rel=1e-5)


def _norms(model, before, optimizer):
    trained = [p for p in model.parameters() if p.requires_grad]
    weights = torch.nn.utils.get_total_norm([p.detach() for p in trained])
    optimizer.step()
    optimizer.zero_grad()
    moved = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
    return weights, torch.nn.utils.get_total_norm(moved)


def test_a_frozen_model_says_that_there_is_no_gradient(spoken):
    model, sink = build(Plain).requires_grad_(False), MemorySink()
    with Monitor(model, every=1, sinks=[sink], strict=True) as monitor, monitor.step(0):
        monitor.loss(1.0)
        monitor.gradients()
    assert {r.reason for r in sink.readings if r.quantity == "opt/gradient_norm"} == {"no_gradient"}
    assert len([text for text in spoken if "no gradient" in text]) == 1
