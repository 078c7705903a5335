"""A fixed batch beside the training: read on the same inputs every time, and nothing remembers that it was."""

import random

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from torch import nn

from tests.fingerprint import installed, result, seed_all
from tests.models import Encoder, Plain, Transformer, batches, build, train
from tests.silent import Silent
from thermo_monitor import Monitor
from thermo_monitor.probes import AttentionProbe, GeometryProbe
from thermo_monitor.probes.geometry_readings import ALL_GEOMETRY
from thermo_monitor.sinks import MemorySink

FIXED = batches(1, seed=9)[0]


class Restless(nn.Module):
    """Draws from every generator and counts its calls, also in evaluation mode; one buffer it replaces."""

    def __init__(self):
        super().__init__()
        self.inner = Transformer()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, tokens):
        self.calls += 1
        self.seen = torch.full((1,), float(tokens.sum()))
        noise = random.random() + np.random.rand() + torch.rand(1)  # noqa: NPY002
        return self.inner(tokens) * (1 + 1e-6 * noise)


def outcome(kind, make, autocast=False):
    model = build(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    seed_all()
    monitor = make(model, optimizer)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        losses = train(model, monitor, optimizer=optimizer, steps=8, accumulate=2)
    found = result(model, optimizer, losses)
    if not isinstance(monitor, Silent):
        monitor.close()
    return found | installed(model) | {"modes": [m.training for m in model.modules()]}


def watching(model, optimizer, every=1, batch=FIXED):
    probes = [GeometryProbe(quantities=ALL_GEOMETRY)]
    return Monitor(model, optimizer, every=every, preset=probes, probe_batch=batch, sinks=[], strict=True)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", [Transformer, Encoder, Plain, Restless])
def test_a_training_comes_to_the_same(kind, autocast, spoken):
    expected = outcome(kind, lambda *_: Silent(), autocast)
    for every in (1, 3):
        assert outcome(kind, lambda *a, every=every: watching(*a, every), autocast) == expected


CULPRITS = {
    "torch": lambda model: torch.rand(1),
    "numpy": lambda model: np.random.rand(),  # noqa: NPY002
    "python": lambda model: random.random(),
    "buffers": lambda model: model.calls.add_(1),
    "modes": lambda model: model.eval(),
    "parameters": lambda model: next(model.parameters()).data.mul_(1 + 1e-6),
}


@pytest.mark.parametrize("what", CULPRITS)
def test_the_comparison_can_fail(what, spoken):
    class Guilty(Silent):
        def __init__(self, model):
            self.model = model

        def gradients(self):
            CULPRITS[what](self.model)

    expected = outcome(Restless, lambda *_: Silent())
    assert outcome(Restless, lambda model, _: Guilty(model))[what] != expected[what]


def test_modes_of_single_modules_come_back(spoken):
    model = build()
    model.blocks[1].eval()
    before = [m.training for m in model.modules()]
    with watching(model, None) as monitor:
        train(model, monitor)
        assert [m.training for m in model.modules()] == before
        assert monitor.latest["geom/thermo_length"] > 0


def test_probes_of_the_training_do_not_hear_it(spoken):
    def readings(**options):
        model, sink = build(), MemorySink()
        with Monitor(
            model, every=1, preset=[AttentionProbe(), *options.pop("more", ())], sinks=[sink], strict=True, **options
        ) as monitor:
            seed_all()
            train(model, monitor)
        return [(r.step, r.value) for r in sink.readings if r.quantity.startswith("attn/")]

    assert readings() == readings(probe_batch=FIXED, more=[GeometryProbe()])


def test_attention_of_the_fixed_batch_does_not_depend_on_the_data(spoken):
    def readings(data, on):
        model, sink = build(), MemorySink()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # weights stay, data change
        probes = [AttentionProbe(on=on)]
        options = {"probe_batch": FIXED} if on == "probe_batch" else {}
        with Monitor(model, optimizer, every=1, preset=probes, sinks=[sink], strict=True, **options) as monitor:
            train(model, monitor, data=data, optimizer=optimizer)
        return [r.value for r in sink.readings if r.quantity == "attn/entropy_fraction"]

    fixed = readings(batches(3, seed=1), "probe_batch")
    assert fixed == readings(batches(3, seed=2), "probe_batch")
    assert len(set(fixed)) == 1
    assert readings(batches(3, seed=1), "training") != readings(batches(3, seed=2), "training")


@pytest.mark.parametrize("batch", [(FIXED,), [FIXED], {"tokens": FIXED}, lambda model: model(FIXED)])
def test_a_batch_may_be_given_as_the_model_is_called(batch, spoken):
    model = build()
    with watching(model, None, batch=batch) as monitor:
        train(model, monitor)
        monitor.flush()
        assert monitor.latest["geom/fisher_rao_distance"] > 0


def test_what_makes_no_sense_is_refused_at_once():
    model = build()
    with pytest.raises(ValueError, match="a tensor, a tuple"):
        Monitor(model, probe_batch="tokens", sinks=[])
    with pytest.raises(ValueError, match="probe_batch="):
        Monitor(model, preset=[GeometryProbe()], sinks=[])
    with pytest.raises(ValueError, match="probe_batch="):
        Monitor(model, preset=[AttentionProbe(on="probe_batch")], sinks=[])
    with pytest.raises(ValueError, match="add GeometryProbe"):
        Monitor(model, preset=[AttentionProbe()], probe_batch=FIXED, sinks=[])
    with pytest.raises(ValueError, match="on="):
        AttentionProbe(on="validation")
    assert installed(model)["_forward_pre_hooks"] == 0


def test_a_batch_that_does_not_fit_stops_no_training(spoken):
    model = build()
    with Monitor(model, every=1, probe_batch=torch.zeros(2, 2), sinks=[]) as monitor:
        assert len(train(model, monitor)) == 3
        assert any("probe batch raised" in line for line in spoken)
        assert "probe batch" in monitor.describe()
    assert [m.training for m in model.modules()] == [True] * len(list(model.modules()))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler's own look
def test_a_compiled_model_is_not_compiled_again(spoken):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    model = build()
    compiled = torch.compile(model, backend=counter)
    with watching(compiled, None) as monitor:
        train(compiled, monitor, steps=2)
        after = counter.frame_count
        train(compiled, monitor, steps=4)
        assert counter.frame_count == after
        monitor.flush()
        assert monitor.latest["geom/thermo_length"] > 0
    torch._dynamo.reset()


def test_a_preset_with_a_fixed_batch_reads_geometry(spoken):
    model = build()
    with Monitor(model, every=1, probe_batch=FIXED, sinks=[], strict=True) as monitor:
        train(model, monitor)
        monitor.flush()
        assert "geom/kinetic_time" in monitor.latest
        assert "geom/kappa_specific_heat" not in monitor.latest
