"""Whatever raises, wherever: nothing stays installed, and what is the monitor's fault does not reach the training."""

import pytest
import torch

from tests.culprits import Failing, FailingSink
from tests.fingerprint import installed, result, seed_all
from tests.fits import Module, ThermoMonitor, fit, loader, trainer
from tests.models import batches, build, cross_entropy, train
from thermo_monitor import Event, Monitor
from thermo_monitor.presets import default
from thermo_monitor.sinks import MemorySink


class RaisesBackward(torch.autograd.Function):
    """Passes on, and raises on the way back."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("planted in backward")


class Broken(torch.nn.Module):
    """A block that raises in one of the two directions once it is told to."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.where = inner, None

    def forward(self, x):
        if self.where == "forward":
            raise RuntimeError("planted in forward")
        if self.where == "keyboard":
            raise KeyboardInterrupt
        x = self.inner(x)
        return RaisesBackward.apply(x) if self.where == "backward" else x


def broken():
    model = build()
    model.blocks[1] = Broken(model.blocks[1])
    return model


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_users_error_passes_and_the_step_is_forgotten(where, spoken):
    model, sink, tokens = broken(), MemorySink(), batches(1)[0]
    before = installed(model)
    with Monitor(model, every=1, sinks=[sink], strict=True) as monitor:
        train(model, monitor)
        model.blocks[1].where = where
        with pytest.raises(RuntimeError, match=f"planted in {where}"):
            train(model, monitor, steps=1, data=[tokens])
        during = installed(model)
        assert during["modes"] == before["modes"]
        assert during["listening"] == before["listening"]
        model.blocks[1].where = None
        with monitor.step(7):
            monitor.loss(cross_entropy(model(tokens), tokens))
    assert installed(model) == before
    steps, losses = sink.series("loss/train")
    assert steps.tolist() == [0, 1, 2, 7]
    assert losses[-1] == pytest.approx(float(cross_entropy(model(tokens), tokens).detach()), rel=0.3)


def test_an_error_through_the_monitors_own_context_closes_it():
    model = broken()
    before = installed(model)

    def breaks():
        with Monitor(model, every=1, sinks=[]) as monitor:
            monitor.begin(0)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        breaks()
    assert installed(model) == before


WHERE = ["attention", "output", "on_loss", "before_step", "after_step", "collect", "read", "close"]


@pytest.mark.parametrize("where", WHERE)
def test_a_failing_probe_is_switched_off_and_nothing_else_changes(where, spoken):
    def run(probe, **options):
        model = build()
        optimizer = torch.optim.AdamW(model.parameters())
        sink = MemorySink()
        with Monitor(model, optimizer, every=1, preset=[*default(), *probe], sinks=[sink], **options) as monitor:
            seed_all()
            outcome = result(model, optimizer, train(model, monitor, steps=4, optimizer=optimizer))
        outcome |= installed(model)
        return outcome, sink

    probe = Failing(where)
    expected, quiet = run([])
    outcome, sink = run([probe])
    assert outcome == expected
    assert probe.calls == 1  # and was not asked again
    assert sum("planted" in text for text in spoken) == 1
    assert sink.series("loss/train")[1].tolist() == quiet.series("loss/train")[1].tolist()
    if where != "close":
        assert sink.series("monitor/disabled")[1][-1] == 1
        with pytest.raises(RuntimeError, match="planted"):
            run([Failing(where)], strict=True)


def test_strict_leaves_nothing_behind_either(spoken):
    for where in WHERE:
        model = build()
        before = installed(model)
        monitor = Monitor(model, every=1, preset=[Failing(where)], sinks=[], strict=where != "close")
        try:
            train(model, monitor)
        except RuntimeError as error:
            assert "planted" in str(error)  # noqa: PT017 - some of them raise only in close
        try:
            monitor.close()
        except RuntimeError as error:
            assert "planted" in str(error)  # noqa: PT017
        assert installed(model) == before, where


def test_what_a_route_no_longer_hears_has_its_reason(spoken):
    sink = MemorySink()
    with Monitor(build(), every=1, preset=[*default(), Failing("attention")], sinks=[sink]) as monitor:
        train(monitor._ear._model, monitor)
    absent = [r for r in sink.readings if r.quantity == "attn/entropy_fraction" and r.reason]
    assert {r.reason for r in absent} == {"probe_failed"}
    assert not any("no attention was heard" in text for text in spoken)


@pytest.mark.parametrize("options", [{"after": 2}, {"event": True}, {"closing": True}])
def test_a_failing_sink_keeps_what_it_had_and_the_others_go_on(options, spoken):
    model, failing, sink = build(), FailingSink(**options), MemorySink()
    with Monitor(model, every=1, sinks=[failing, sink]) as monitor:
        train(model, monitor, steps=5)
        monitor._reader._emit([Event("shift", 4, 4)])
    assert sink.series("loss/train")[0].tolist() == [0, 1, 2, 3, 4]
    assert len(sink.events) == 1
    assert failing.closed == 1  # also the one that was switched off
    assert len(failing.ticks) == (2 if "after" in options else 5 if "closing" in options else 4)
    assert len([text for text in spoken if "planted" in text]) == 1
    if "after" in options:
        assert sink.series("monitor/disabled")[1].tolist() == [0, 0, 0, 1, 1]


def test_a_failing_on_event_is_asked_once(spoken):
    asked = []

    def on_event(event):
        asked.append(event)
        raise ValueError("planted")

    with Monitor(build(), sinks=[sink := MemorySink()], on_event=on_event) as monitor:
        monitor._reader._emit([Event("shift", 4, 4), Event("shift", 5, 5)])
    assert len(asked) == 1
    assert len(sink.events) == 2
    with (
        pytest.raises(ValueError, match="planted"),
        Monitor(build(), sinks=[], on_event=on_event, strict=True) as monitor,
    ):
        monitor._reader._emit([Event("shift", 4, 4)])


@pytest.mark.parametrize("where", ["forward", "backward", "keyboard"])
def test_a_fit_that_breaks_is_left_clean(where, tmp_path):
    module, sink = Module(broken), MemorySink()
    before = installed(module)
    callback = ThermoMonitor(every=1, sinks=[sink], strict=True)

    def breaks(trainer, pl_module, batch, index):
        pl_module.model.blocks[1].where = where if index == 4 else None

    module.on_train_batch_start = lambda batch, index: breaks(None, module, batch, index)
    expected = SystemExit if where == "keyboard" else RuntimeError
    with pytest.raises(expected):
        fit(trainer(tmp_path, callback), module, loader(8))
    assert installed(module) == before
    assert sink.series("loss/train")[0].tolist() == [0, 1, 2, 3]
    module.model.blocks[1].where = None
    del module.on_train_batch_start
    fit(trainer(tmp_path, callback, max_steps=5), module)  # the same callback again
    assert installed(module) == before
    assert sink.series("loss/train")[0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4]


def test_a_failing_probe_does_not_stop_a_fit(tmp_path, spoken):
    outcomes = []
    for callbacks in ([], [ThermoMonitor(every=1, preset=[*default(), Failing("attention")], sinks=[])]):
        module, run = Module(), trainer(tmp_path, *callbacks, max_steps=4)
        seed_all()
        fit(run, module)
        outcomes.append(result(module, run.optimizers[0], module.losses) | installed(module))
    assert outcomes[0] == outcomes[1]
    with pytest.raises(RuntimeError, match="planted"):
        fit(trainer(tmp_path, ThermoMonitor(every=1, preset=[Failing("attention")], sinks=[], strict=True)), Module())
