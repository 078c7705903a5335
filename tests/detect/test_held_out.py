import json
import math

import pytest

from thermo_monitor.detect import held_out
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.records import Reading


def run(metrics, steps=600, every=50, fitted=60, simpler=None, resumed=False):
    """A made-up run that is fitted at ``fitted``; ``metrics`` gives the held-out metrics of a step."""
    detector, events = RunDetector(), []
    for step in range(steps):
        wobble = 0.01 * math.sin(2.3 * step)
        share = 1 / (1 + math.exp(-(step - fitted) / 6))
        readings = [
            Reading(step, "loss/train", math.exp(wobble) * (3.6 * (1 - share) + 0.05 * math.exp(-step / 100))),
            Reading(step, "opt/weight_norm", 30.0 - 0.01 * step),
            Reading(step, "opt/gradient_norm", math.exp(wobble - step / 100)),
        ]
        if simpler is not None and step % 5 == 0:
            late = 1 / (1 + math.exp(-(step - simpler) / 20))
            readings.append(Reading(step, "repr/representation_entropy", 0.6 - 0.3 * late))
        if step % every == 0:
            readings += [Reading(step, f"val/{name}", value) for name, value in metrics(step).items()]
        events += detector.update(readings)
        if resumed:
            state = json.loads(json.dumps(detector.state_dict()))
            detector = RunDetector()
            detector.load_state_dict(state)
    return events + detector.finish()


def late_rise(step):
    return 0.02 + 0.9 / (1 + math.exp(-(step - 300) / 20))


def of(events, key):
    return [e for e in events if e.quantity == key]


def test_an_accuracy_that_rises_after_memorization_is_a_generalization():
    events = run(lambda step: {"accuracy": late_rise(step)})
    (event,) = of(events, "val/accuracy")
    assert (event.kind, event.phase, event.direction) == ("shift", "generalization", "up")
    assert (event.onset_low, event.onset, event.step) == (200, 250, 300)
    assert event.details["validation"]["confirms"] is True
    assert "held-out accuracy rose" in event.message
    assert event.level == "warning"


def test_one_good_evaluation_alone_is_luck():
    assert not of(run(lambda step: {"accuracy": 0.2 if step == 300 else 0.02}), "val/accuracy")


def test_a_generalization_seen_in_the_readings_is_confirmed_or_not():
    seen = of(run(lambda step: {"accuracy": late_rise(step)}, simpler=300), "repr/representation_entropy")[0]
    assert seen.phase == "generalization"
    assert seen.details["validation"]["confirms"] is True
    assert "held-out metrics confirm" in seen.message
    unseen = of(run(lambda step: {"accuracy": 0.02}, simpler=300), "repr/representation_entropy")[0]
    assert unseen.phase == "generalization"
    assert unseen.details["validation"]["confirms"] is False
    assert "do not confirm" in unseen.message
    alone = of(run(lambda step: {}, simpler=300), "repr/representation_entropy")[0]
    assert alone.phase == "generalization"
    assert "validation" not in alone.details


def test_representations_that_become_simpler_while_held_out_data_suffer_are_no_generalization():
    events = of(run(lambda step: {"accuracy": 0.9 - late_rise(step) / 2}, simpler=300), "repr/representation_entropy")
    assert events
    assert {e.phase for e in events} == {"reorganization"}


def test_memorization_is_confirmed_by_metrics_that_stay_behind_and_refuted_by_those_that_follow():
    (behind,) = [e for e in run(lambda step: {"accuracy": 0.02}, every=10) if "milestone" in e.details]
    assert behind.phase == "memorization"
    assert behind.details["validation"]["confirms"] is True

    def follows(step):
        return {"accuracy": 0.9 / (1 + math.exp(-(step - 60) / 6)), "loss": 4.0 if step < 60 else 0.1}

    for names in (["accuracy"], ["loss"]):
        events = run(lambda step, names=names: {k: follows(step)[k] for k in names}, every=10)
        (event,) = [e for e in events if "milestone" in e.details]
        assert event.phase == "generalization"
        assert event.details["validation"]["confirms"] is True


def test_a_held_out_loss_that_rises_while_the_training_loss_falls_is_overfitting():
    events = run(lambda step: {"loss": 2.0 + max(step - 300, 0) / 100})
    (event,) = of(events, "val/loss")
    assert (event.kind, event.phase, event.direction, event.level) == ("drift", "memorization", "up", "warning")
    assert event.details["held_out"] == "overfitting"
    assert event.details["before"] == 2.0
    assert "looks like overfitting" in event.message


def test_a_metric_whose_direction_nobody_knows_is_recorded_only_until_it_is_declared():
    assert held_out.better("val/quality") is None
    assert not of(run(lambda step: {"quality": late_rise(step)}), "val/quality")
    detector = RunDetector()
    detector.metric("val/quality", "higher")
    curves = {"val/quality": held_out.Curve([0], [0.5])}
    assert [m.quantity for m in held_out.metrics(detector.state_dict()["held_out"], curves)] == ["val/quality"]
    with pytest.raises(ValueError, match="upwards"):
        detector.metric("val/quality", "upwards")


@pytest.mark.parametrize("values", [[-1.0, 2.0], [101.0], []])
def test_a_scale_on_which_nobody_knows_what_matters_is_left_alone(values):
    curve = held_out.Curve(list(range(len(values))), values)
    assert held_out.metrics(held_out.fresh(), {"val/score": curve}) == []


def test_per_cent_are_shares_of_a_hundred():
    curve = held_out.Curve([0, 1], [50.0, 60.0])
    (metric,) = held_out.metrics(held_out.fresh(), {"val/accuracy": curve})
    assert metric.merits == pytest.approx([10.0, 12.0])
    (metric,) = held_out.metrics(held_out.fresh(), {"val/error_rate": held_out.Curve([0, 1], [0.5, 0.4])})
    assert metric.merits == pytest.approx([-10.0, -8.0])
    assert metric.best == 0.0


def test_repeated_and_missing_evaluations_are_passed_over():
    detector = RunDetector()
    for step, value in ((0, 0.1), (0, 0.9), (10, math.nan), (20, 0.2), (10, 0.3)):
        detector.update([Reading(step, "val/accuracy", value)])
    assert detector.state_dict()["curves"]["val/accuracy"]["steps"] == [0, 20]


def test_a_run_resumed_from_json_at_every_step_says_the_same():
    def metrics(step):
        return {"accuracy": late_rise(step), "loss": 2.0 + max(step - 250, 0) / 80}

    straight, resumed = run(metrics, 500), run(metrics, 500, resumed=True)
    assert [e.message for e in straight] == [e.message for e in resumed]
    assert {"val/accuracy", "val/loss"} <= {e.quantity for e in straight}
