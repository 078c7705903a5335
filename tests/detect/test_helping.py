"""Examples that come to help each other: when it is told, and when it is not."""

import json
import math

import pytest

from thermo_monitor.detect import helping, rules
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.records import Reading

FITTED = 50


def follow(values, state=None, first=FITTED, fitted=FITTED):
    state = {} if state is None else state
    events = []
    for k, value in enumerate(values):
        events += helping.update(state, Reading(first + k, helping.QUANTITY, value), fitted)
    return state, events


def test_a_rise_through_one_is_told_once_with_its_date():
    _, events = follow([0.3 + 0.01 * k for k in range(200)])
    (event,) = events
    assert (event.kind, event.direction, event.quantity) == ("drift", "up", helping.QUANTITY)
    # 1.1 after 80 readings and 82 for the running median of five; that lasts for a twentieth of the steps.
    assert event.step == math.ceil((FITTED + 81) / (1 - helping.LASTING))
    assert event.onset == FITTED + 75  # the last median below 1 + .1 / 3
    assert event.details["after"] >= 1.1
    assert event.details["after"] >= helping.RISE * event.details["before"]


def test_what_stays_at_one_is_not_told():
    assert not follow([0.3 + 0.7 * (1 - math.exp(-k / 30)) for k in range(2000)])[1]


def test_a_slow_rise_is_the_work_of_weight_decay():
    # As the square root of the steps: 1.41 times as high as at half of them.
    assert not follow([0.02 * math.sqrt(step) for step in range(FITTED, 20_000)])[1]
    quick = [0.0002 * step**1.2 for step in range(FITTED, 20_000)]
    assert len(follow(quick)[1]) == 1


def test_a_long_plateau_before_takes_nothing_from_a_rise():
    (event,) = follow([0.3] * 5000 + [0.3 + 0.002 * k for k in range(2000)])[1]
    assert event.onset == pytest.approx(FITTED + 5000 + (1 + 0.1 / 3 - 0.3) / 0.002, abs=3)


def test_a_task_in_which_examples_always_help_each_other_has_no_transition():
    assert not follow([1.5 + 0.05 * k for k in range(300)])[1]


def test_swings_about_one_are_no_rise():
    # Every forty steps from .5 to 1.6 and back, which at step 900 is shorter than a twentieth of the steps.
    wave = [1.05 + 0.55 * math.sin(2 * math.pi * step / 40) for step in range(900, 2000)]
    assert not follow([0.3] * (900 - FITTED) + wave)[1]
    longer = [1.05 + 0.55 * math.sin(2 * math.pi * step / 400) for step in range(900, 2000)]
    assert follow([0.3] * (900 - FITTED) + longer)[1]


def test_single_outliers_are_no_rise():
    assert not follow([5.0 if k % 4 == 0 else 0.4 for k in range(400)])[1]


def test_nothing_is_said_before_the_fit_nor_twice_of_one_step_nor_of_what_is_no_number():
    rise = [0.3 + 0.01 * k for k in range(200)]
    assert not follow(rise, fitted=None)[1]
    assert helping.progress({}) is None
    state, _ = follow([0.4] * 10)
    kept = json.dumps(state)
    follow([9.0] * 5, state)  # steps that a resumed run reads again
    helping.update(state, Reading(1000, helping.QUANTITY, math.nan), FITTED)
    assert json.dumps(state) == kept


def test_progress_is_one_when_it_is_told():
    state = {}
    for k in range(200):
        _, events = follow([0.3 + 0.01 * k], state, first=FITTED + k)
        known = helping.progress(state)
        if known is not None:
            assert 0.0 < known <= 1.0
        if events:
            assert known == 1.0
            return
    pytest.fail("never told")


@pytest.mark.parametrize(("error", "told"), [(0.2, True), (0.4, False)])
def test_readings_that_are_hardly_known_do_not_count(error, told):
    state, events = {}, []
    for k in range(200):
        value = 0.3 + 0.01 * k
        events += helping.update(state, Reading(FITTED + k, helping.QUANTITY, value, error=error * value), FITTED)
    assert bool(events) is told


LOSSES = [4.0] * 10 + [max(4.0 * 0.8**k, 1e-3) for k in range(300)]


def run_with(coherence, losses=LOSSES):
    run, found = RunDetector(), []
    for step, loss in enumerate(losses):
        readings = [Reading(step, "loss/train", loss), Reading(step, helping.QUANTITY, coherence(step))]
        found += run.update(readings)
    return run, found


def test_the_run_calls_it_generalization_and_warns():
    run, found = run_with(lambda step: 0.3 + 0.01 * max(step - 60, 0))
    (event,) = [e for e in found if e.quantity == helping.QUANTITY]
    assert (event.phase, event.level) == ("generalization", "warning")
    assert "gradient coherence above 1" in event.details["why"]
    assert run.readings(400)[1].value == 1.0
    again = RunDetector()
    again.load_state_dict(json.loads(json.dumps(run.state_dict())))
    assert again.readings(400) == run.readings(400)


def test_gradients_that_agree_while_the_loss_is_thrown_up_say_nothing():
    thrown = list(LOSSES)
    thrown[200:] = [0.05] * len(thrown[200:])  # small beside the first loss, fifty times what it was
    _, found = run_with(lambda step: 0.3 if step < 200 else 3.0, thrown)
    assert not [e for e in found if e.quantity == helping.QUANTITY]


def test_a_declared_change_makes_it_begin_again():
    run, _ = run_with(lambda step: 0.9, LOSSES[:150])
    assert run.readings(150)[1].value > 0.5
    run.declare(150, "learning rate")
    assert run.readings(150)[1].value == 0.0
    assert rules.fresh()["helping"] == {}
