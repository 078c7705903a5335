"""A loss that is thrown up, told while it is up, and told when it is down again."""

import json
import math

import numpy as np
import pytest

from thermo_monitor.detect import throws
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.records import Reading

LOSS = "loss/train"


def follow(losses, state=None):
    state = {} if state is None else state
    return [
        event
        for step, loss in enumerate(losses)
        for event in throws.update(state, LOSS, step, math.log(loss) if loss > 0 else math.nan)
    ]


def test_it_is_told_at_the_third_reading_and_again_when_it_is_back():
    shift, back = follow([1e-3] * 50 + [1.0] * 10 + [0.09] * 10)
    assert (shift.kind, shift.onset, shift.step, shift.direction) == ("shift", 50, 52, "up")
    assert shift.details["before"] == pytest.approx(math.log(1e-3))
    assert (back.kind, back.onset, back.step) == ("excursion", 50, 60)
    assert back.details["peak"] == pytest.approx(0.0)


def test_a_single_bad_batch_is_an_excursion_and_no_more():
    (event,) = follow([1e-3] * 50 + [1.0] + [1e-3] * 50)
    assert (event.kind, event.onset, event.step) == ("excursion", 50, 51)


def test_one_that_stays_up_is_never_back():
    assert [e.kind for e in follow([1e-3] * 50 + [1.0] * 500)] == ["shift"]


@pytest.mark.parametrize("factor", [9.0, 11.0])
def test_tenfold_is_tenfold(factor):
    assert bool(follow([1e-3] * 50 + [factor * 1e-3] * 10)) == (factor > 10)


def test_a_slow_rise_is_no_throw():
    assert not follow([1e-3 * 1.1**k for k in range(100)])  # 6.7 in twenty steps


def test_what_is_below_rounding_is_no_throw():
    assert not follow([1e-11] * 50 + [5e-8] * 50)


def test_noise_of_a_factor_of_two_is_quiet():
    noise = np.exp(0.4 * np.random.default_rng(0).standard_normal(20_000))
    assert not follow(noise)


def test_a_loss_that_scatters_by_a_factor_of_a_hundred_is_told_three_times_and_no_more():
    rng = np.random.default_rng(0)
    hard = rng.random(20_000) < 0.05  # a batch in twenty holds an example that is still wrong
    assert len(follow(np.where(hard, 0.1, 1e-3) * np.exp(0.2 * rng.standard_normal(20_000)))) == 3
    rare = ([1e-3] * 1500 + [1.0] * 5) * 6
    assert len([e for e in follow(rare) if e.kind == "shift"]) == 6


def test_two_throws_are_four_events_and_the_state_is_plain_json():
    once = [1e-3] * 50 + [1.0] * 10 + [1e-3] * 40
    assert [e.kind for e in follow(once + once)] == ["shift", "excursion"] * 2
    state = {}
    follow(once[:55], state)
    state = json.loads(json.dumps(state))
    assert [e.kind for e in follow([0.0, 0.05], state)] == ["excursion"]


def test_in_a_run_it_is_an_instability_that_warns_and_coming_back_is_for_the_record():
    run, found = RunDetector(), []
    losses = [4.0 * 0.9**k + 1e-3 for k in range(200)] + [1.0] * 10 + [1e-3] * 90
    for step, loss in enumerate(losses):
        found += run.update([Reading(step, LOSS, loss)])
    up, back = [e for e in found if "tenfold" in e.details.get("rule", "") or "ten times" in e.details.get("rule", "")]
    assert (up.phase, up.level, up.step) == ("instability", "warning", 202)
    assert (back.kind, back.phase, back.level) == ("excursion", "instability", "info")
    assert "part_of" not in back.details
    assert all("part_of" in e.details for e in found if e.phase == "instability" and e.kind == "shift" and e is not up)
