"""What is read in the plain loop, and what the monitor makes of odd uses of it."""

import numpy as np
import pytest
import torch

from tests.models import batches, build, cross_entropy, train
from thermo_monitor import Event, Monitor
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.presets import default, study
from thermo_monitor.probes import hub
from thermo_monitor.sinks import MemorySink, read_jsonl


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_loss_of_a_step_is_the_mean_of_its_micro_batches(accumulate, spoken):
    model, sink = build(), MemorySink()
    with Monitor(model, every=1, sinks=[sink], strict=True) as monitor:
        losses = torch.stack(train(model, monitor, steps=5, accumulate=accumulate)).double()
    steps, values = sink.series("loss/train")
    assert steps.tolist() == list(range(5))
    torch.testing.assert_close(torch.from_numpy(values), losses.reshape(5, accumulate).mean(1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [0.5, np.float32(0.5), torch.tensor([0.25, 0.75]), torch.tensor(0.5).half()])
def test_a_loss_may_be_any_number(loss, spoken):
    with Monitor(build(), preset=[default()[0]], sinks=[], strict=True) as monitor:
        with monitor.step(0):
            monitor.loss(loss)
        monitor.flush()
        assert monitor.latest["loss/train"] == 0.5


@pytest.mark.parametrize("loss", [None, "half", object()])
def test_what_is_no_loss_switches_the_loss_off(loss, spoken):
    with Monitor(build(), sinks=[]) as monitor:
        for step in range(2):
            with monitor.step(step):
                monitor.loss(loss)
    assert list(monitor.guard.disabled) == ["loss"]
    assert len([text for text in spoken if "loss raised an error" in text]) == 1


def test_a_schedule_that_fails_stops_no_training(spoken):
    def schedule(step):
        raise KeyError("planted")

    with Monitor(build(), every=schedule, sinks=[]) as monitor:
        train(monitor._ear._model, monitor)
    assert list(monitor.guard.disabled) == ["schedule"]
    assert len(spoken) == 1


@pytest.mark.parametrize("step", ["3", 1.0, None, torch.tensor([1, 2])])
def test_a_step_that_is_no_number_stops_no_training(step, spoken):
    with Monitor(build(), sinks=[sink := MemorySink()]) as monitor, monitor.step(step):
        pass
    assert list(monitor.guard.disabled) == ["schedule"]
    assert sink.readings == []


def test_a_step_may_be_a_numpy_number(tmp_path, spoken):
    model = build()
    with Monitor(model, log_dir=tmp_path, every=1, strict=True) as monitor, monitor.step(np.int64(3)):
        cross_entropy(model(batches(1)[0]), batches(1)[0])
    assert {r.step for r in read_jsonl(tmp_path / "thermo.jsonl").readings} == {3}


def test_steps_that_fall_after_a_resume_are_written_and_not_learned_twice(tmp_path, spoken):
    model = build()
    for _ in range(2):
        with Monitor(model, log_dir=tmp_path, strict=True) as monitor:
            train(model, monitor, steps=4)
    assert [r.step for r in read_jsonl(tmp_path / "thermo.jsonl").readings if r.quantity == "loss/train"] == [
        0,
        1,
        2,
        3,
    ]
    with Monitor(model, sinks=[sink := MemorySink()], strict=True) as monitor:
        train(model, monitor, steps=4)
        train(model, monitor, steps=3)
    assert sink.series("loss/train")[0].tolist() == [0, 1, 2, 3, 0, 1, 2]
    state = monitor.state_dict()["detector"]["states"]["loss/train"]
    assert (state["last_step"], state["overlap"], len(state["values"])) == (3, 3, 4)


def test_a_step_that_was_not_ended_is_forgotten(spoken):
    with Monitor(build(), sinks=[sink := MemorySink()], strict=True) as monitor:
        monitor.begin(0)
        monitor.loss(100.0)
        with monitor.step(1):
            monitor.loss(2.0)
    steps, values = sink.series("loss/train")
    assert (steps.tolist(), values.tolist()) == ([1], [2.0])


def test_nothing_listens_from_the_gradients_on(spoken):
    model, tokens = build(), batches(1)[0]
    with Monitor(model, every=1, sinks=[sink := MemorySink()], strict=True) as monitor, monitor.step(0):
        assert hub.ACTIVE
        cross_entropy(model(tokens), tokens).backward()
        monitor.gradients()
        assert not hub.ACTIVE
        monitor.micro_batch()
        monitor.pause()
        assert not hub.ACTIVE
    assert sink.series("attn/entropy_fraction")[0].tolist() == [0]


def test_closing_twice_is_harmless_and_a_closed_monitor_says_so_once(spoken):
    model, sink = build(), MemorySink()
    monitor = Monitor(model, every=1, sinks=[sink])
    train(model, monitor)
    monitor.close()
    count = len(sink.readings)
    monitor.close()
    train(model, monitor)
    monitor.close()
    assert len(sink.readings) == count
    assert spoken == ["this monitor is closed and measures nothing any more."]
    assert monitor.state_dict()["detector"]["states"]["loss/train"]["last_step"] == 2


def test_what_is_forgotten_is_said(spoken):
    model = build()
    with Monitor(model, every=1, sinks=[], strict=True) as monitor, monitor.step(0):
        cross_entropy(model(batches(1)[0]), batches(1)[0]).backward()
    assert any("call monitor.gradients() after backward" in text for text in spoken)
    assert any("monitor.loss(loss) reports one" in text for text in spoken)


def test_two_monitors_hear_the_same_and_leave_in_any_order(spoken):
    model, sinks = build(), [MemorySink(), MemorySink()]
    first, second = (Monitor(model, every=1, sinks=[sink], preset=study(), strict=True) for sink in sinks)
    tokens = batches(1)[0]
    first.begin(0)
    second.begin(0)
    cross_entropy(model(tokens), tokens).backward()
    for monitor in (first, second):
        monitor.gradients()
        monitor.end()
        monitor.close()
    one, other = ({r.quantity: r.value for r in s.readings if r.quantity[:3] in ("att", "out", "rep")} for s in sinks)
    assert one == other
    assert len(one) > 20


def test_a_resumed_monitor_continues_events_and_detectors(spoken):
    detector = OnlineDetector(burn_in=20)

    def feed(monitor, steps):
        for step in steps:
            with monitor.step(step):
                monitor.loss(2.0 + 0.01 * (step * 7919 % 13) + (5.0 if step > 40 else 0.0))

    def make():
        return Monitor(build(), sinks=[], preset=[default()[0]], detector=detector, strict=True)

    whole, first, second = make(), make(), make()
    feed(whole, range(120))
    feed(first, range(100))
    second.load_state_dict(first.state_dict())
    feed(second, range(100, 120))
    for monitor in (whole, second):
        monitor.close()
    assert [(e.id, e.kind, e.onset, e.step) for e in second.events] == [
        (e.id, e.kind, e.onset, e.step) for e in whole.events
    ]
    assert whole.events
    with pytest.raises(ValueError, match="no state of a Monitor"):
        second.load_state_dict({"some": "thing"})


def test_declare_and_describe(spoken):
    with Monitor(build(), sinks=[], strict=True) as monitor:
        monitor.declare("before the first step")
        train(monitor._ear._model, monitor)
        monitor.declare("a new learning rate")
        text = monitor.describe()
    assert "AttentionProbe: slow cadence" in text
    assert "LossProbe: fast cadence" in text


def test_events_reach_everybody_in_order(spoken):
    heard, sink = [], MemorySink()
    with Monitor(build(), sinks=[sink], on_event=heard.append, strict=True) as monitor:
        monitor._reader._emit([Event("shift", 1, 0), Event("drift", 2, 0)])
    assert (
        [e.kind for e in heard]
        == [e.kind for e in sink.events]
        == [e.kind for e in monitor.events]
        == ["shift", "drift"]
    )


def test_a_held_out_metric_is_read_once_for_each_evaluation_and_without_waiting(spoken):
    model, sink = build(), MemorySink()
    with Monitor(model, every=1, sinks=[sink], strict=True) as monitor:
        for step in range(4):
            with monitor.step(step):
                monitor.loss(1.0)
            if step % 2:
                monitor.validation("val_accuracy", torch.tensor(0.1 * step))
                monitor.validation("quality", 0.5, step=step, better="higher")
                assert not any(r.step == step for r in sink.readings)  # not before the next arrival
    steps, values = sink.series("val/accuracy")
    assert steps.tolist() == [1, 3]
    np.testing.assert_allclose(values, [0.1, 0.3], rtol=1e-6)
    assert sink.series("val/quality")[0].tolist() == [1, 3]
    state = monitor.state_dict()["detector"]
    assert state["held_out"]["better"] == {"val/quality": "higher"}
    assert "val/accuracy" not in state["states"]
    monitor.validation("val_accuracy", 0.9)  # closed: nothing happens


def test_a_held_out_metric_that_makes_no_sense_stops_no_training(spoken):
    with Monitor(build(), every=1, sinks=[sink := MemorySink()]) as monitor:
        with monitor.step(0):
            monitor.loss(1.0)
        monitor.validation("accuracy", 0.5, better="upwards")
        monitor.validation("accuracy", 0.5)
    assert list(monitor.guard.disabled) == ["validation"]
    assert len(sink.series("loss/train")[0]) == 1
    assert "better is 'higher', 'lower' or None" in spoken[0]


@pytest.mark.parametrize("unscale", [False, True])
def test_gradients_under_a_scaler_are_read_as_if_unscaled(unscale, spoken):
    def norms(scaler):
        model, sink, tokens = build().eval(), MemorySink(), batches(1)[0]
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with Monitor(model, optimizer, sinks=[sink], strict=True) as monitor:
            for step in range(3):
                with monitor.step(step):
                    loss = cross_entropy(model(tokens), tokens)
                    monitor.loss(loss)
                    scaler.scale(loss).backward()
                    if unscale:
                        scaler.unscale_(optimizer)
                    monitor.gradients(scaler)
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
        return sink.series("opt/gradient_norm")[1]

    scaled, plain = (norms(torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=e)) for e in (True, False))
    assert scaled == pytest.approx(plain, rel=1e-6)
