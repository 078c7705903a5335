import math

import pytest

from thermo_monitor.detect.phases import Context, Curve, name_phase
from thermo_monitor.detect.wording import level, sentence
from thermo_monitor.records import Event


def curve(points):
    out = Curve()
    for step, value in points:
        out.add(step, value)
    return out


def straight(low, high, steps=1000):
    return curve([(s, low + (high - low) * s / steps) for s in range(steps)])


MEMORIZED = Event("shift", 100, 60, "down", "loss/train", phase="memorization", details={"milestone": "memorization"})
SIMPLER = Event("shift", 700, 300, "down", "repr/spectral_entropy", onset_low=280, onset_high=320)


def settled(**changed):
    """Curves of a run that goes on shrinking its weights with an undisturbed loss."""
    curves = {
        "loss/train": straight(-2.0, -9.0),
        "opt/weight_norm": straight(3.4, 3.2),
        "opt/gradient_norm": straight(-2.0, -8.0),
    }
    return {**curves, **changed}


def phase(event, curves, events=(MEMORIZED,)):
    return name_phase(event, Context(curves, list(events)))[0]


def test_simpler_representations_and_smaller_weights_after_memorization_look_like_generalization():
    assert phase(SIMPLER, settled()) == "generalization"


def test_a_fall_that_took_very_long_is_the_work_of_weight_decay():
    slow = Event("drift", 700, 300, "down", "repr/spectral_entropy", details={"slow": True})
    assert phase(slow, settled()) == "reorganization"


def test_without_memorization_they_are_a_reorganization():
    assert phase(SIMPLER, settled(), events=()) == "reorganization"


@pytest.mark.parametrize("weights", [straight(3.2, 3.4), straight(3.4, 3.4), Curve()])
def test_weights_that_do_not_shrink_are_no_generalization(weights):
    assert phase(SIMPLER, settled(**{"opt/weight_norm": weights})) == "reorganization"


def test_a_gradient_that_builds_up_is_no_generalization():
    assert phase(SIMPLER, settled(**{"opt/gradient_norm": straight(-8.0, -2.0)})) == "reorganization"


def test_a_loss_that_is_thrown_up_in_between_makes_it_an_instability():
    spike = [(s, -5.0 + (3.0 if 500 <= s < 520 else 0.0)) for s in range(1000)]
    assert phase(SIMPLER, settled(**{"loss/train": curve(spike)})) == "instability"
    before = [(s, -5.0 + (3.0 if 100 <= s < 120 else 0.0)) for s in range(1000)]
    assert phase(SIMPLER, settled(**{"loss/train": curve(before)})) == "generalization"


def test_representations_that_become_richer_are_a_reorganization():
    assert phase(Event("shift", 700, 300, "up", "repr/spectral_entropy"), settled()) == "reorganization"


def test_what_began_before_the_training_set_was_fitted_belongs_to_memorization():
    assert phase(Event("shift", 300, 90, "down", "attn/entropy_fraction"), settled()) == "memorization"
    assert phase(Event("shift", 300, 110, "down", "attn/entropy_fraction"), settled()) == "reorganization"


def test_a_rising_loss_is_an_instability_whenever_it_began():
    assert phase(Event("shift", 300, 90, "up", "loss/train"), settled()) == "instability"


def test_what_was_declared_stays_scheduled():
    assert phase(Event("shift", 700, 300, "up", "loss/train", phase="scheduled"), settled()) == "scheduled"


def test_a_curve_keeps_its_course_and_never_grows():
    long = Curve(keep=16)
    for step in range(10_000):
        long.add(step, float(step))
    assert len(long.steps) < 2 * 16
    assert long.steps == [int(v) for v in long.values]
    assert long.at(5000) == pytest.approx(5000, abs=10_000 / 16)
    assert math.isnan(Curve().at(3))
    assert Curve.from_state(long.to_state()).to_state() == long.to_state()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Event("divergence", 3, 1), "error"),
        (Event("collapse", 3, 1), "error"),
        (Event("shift", 3, 1, phase="generalization"), "warning"),
        (Event("drift", 3, 1, phase="generalization"), "warning"),
        (Event("drift", 3, 1, phase="reorganization"), "info"),
        (Event("shift", 3, 1, phase="scheduled"), "info"),
        (Event("shift", 3, 1, phase="unexplained"), "info"),
        (Event("excursion", 3, 1, phase="instability"), "info"),
        (Event("shift", 3, 1, phase="reorganization", details={"late": True}), "info"),
    ],
)
def test_only_what_is_worth_a_look_is_more_than_information(event, expected):
    assert level(event) == expected


def test_a_sentence_has_levels_in_the_unit_of_the_quantity_and_the_interval():
    event = Event(
        "shift", 90, 50, "down", "loss/train", phase="memorization", onset_low=50, onset_high=70,
        details={"before": math.log(3.6), "after": math.log(0.1)},
    )  # fmt: skip
    assert sentence(event) == "training loss fell from 3.6 to 0.1 between steps 50 and 70; looks like memorization"
