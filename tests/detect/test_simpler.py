"""Representations that become simpler after the fit: when it is told, and how far it is on its way."""

import json
import math

import numpy as np
import pytest

from thermo_monitor import quantities
from thermo_monitor.detect import simpler
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.records import Reading

FITTED = 50


def follow(slopes, weights=0.01, readings=100, state=None):
    """State after both entropies fall by a slope at each reading from twice the fit on; the events on the way."""
    state, events = {} if state is None else state, []
    for k in range(readings):
        step = 2 * FITTED + k
        for key, slope in zip(simpler.ENTROPIES, slopes, strict=True):
            events += simpler.update(state, Reading(step, key, 0.6 - slope * k), FITTED)
        events += simpler.update(state, Reading(step, simpler.WEIGHTS, 30.0 - weights * k), FITTED)
    return state, events


def test_progress_is_the_formula_and_one_when_both_are_told():
    k = 99 - 2 - 2  # of the last running median, against that of the first
    state, events = follow((0.0004, 0.0003))
    falls = (0.0004 * k, 0.0003 * k)
    expected = min(min(falls) / simpler.EFFECT, sum(falls) / simpler.TOGETHER)
    assert simpler.progress(state) == pytest.approx(expected, abs=1e-9)
    assert not events
    state, events = follow((0.001, 0.001))
    assert simpler.progress(state) == 1.0
    assert {e.quantity for e in events} == set(simpler.ENTROPIES)


def told(slopes, weights=0.01):
    events = follow(slopes, weights, 150)[1]
    return events[0].step - 2 * FITTED if events else None


def test_two_entropies_that_fall_together_say_it_earlier_than_one_alone():
    together = 2.5 * simpler.EFFECT / 0.002  # readings until both have fallen by two and a half minimum effects in all
    assert together <= told((0.001, 0.001)) <= together + 8
    assert 100 <= told((0.001, 0.0)) <= 110
    assert told((0.0009, 0.0001)) > 100  # one that hardly moves is no second witness
    assert told((0.001, 0.001), weights=-0.01) >= 100  # growing weights are none of it


def test_a_fall_that_takes_long_beside_the_memorization_is_no_announcement():
    slope = 0.0001  # .0375 of each take 375 readings: 7.5 times the 50 of the memorization
    state, events = follow((slope, slope), readings=500)
    assert not events
    assert 0.0 < simpler.progress(state) < 0.6
    quick, events = follow((4 * slope, 4 * slope), readings=150)
    assert events[0].details["shrinking"]
    assert simpler.progress(quick) == 1.0


def test_the_interval_of_the_onset_begins_where_the_fall_began():
    (first, *_) = follow((0.001, 0.001))[1]
    third = simpler.EFFECT / 3 / 0.001
    assert 2 * FITTED + third <= first.onset_low <= 2 * FITTED + third + 4
    assert first.onset_low < first.onset == first.onset_high < first.step


@pytest.mark.parametrize("weights", [0.0, -0.01])
def test_there_is_no_progress_while_the_weights_do_not_shrink(weights):
    assert simpler.progress(follow((0.001, 0.001), weights)[0]) == 0.0


def test_nothing_is_known_before_the_fit_or_without_one_of_the_entropies():
    assert simpler.progress({}) == 0.0
    assert simpler.update({}, Reading(99, simpler.ENTROPIES[0], 0.5), FITTED) == []
    assert simpler.update({}, Reading(99, simpler.ENTROPIES[0], 0.5), None) == []
    assert simpler.progress(follow((0.001, -0.001))[0]) == 0.0
    state, _ = follow((0.001, math.nan))
    assert simpler.progress(state) == 0.0


def test_after_a_planned_change_the_falls_begin_again_and_what_was_told_stays_told():
    state, events = follow((0.001, 0.001))
    simpler.restart(state)
    assert simpler.progress(state) == 0.0
    _, again = follow((0.001, 0.001), state=state)
    assert events
    assert not again


def readings(step, entropy):
    return [
        Reading(step, "loss/train", 4.0 * 0.9**step + 0.01),
        Reading(step, "opt/weight_norm", 30.0 - 0.01 * step),
        *(Reading(step, key, entropy) for key in simpler.ENTROPIES),
    ]


def test_the_run_gives_both_readings_within_their_bounds_and_says_when_it_knows_nothing():
    run, seen = RunDetector(), []
    for step in range(250):
        run.update(readings(step, 0.6 - 0.2 * max(0, step - 150) / 100))
        score, early = run.readings(step)
        assert (score.quantity, early.quantity) == ("detect/score", "detect/early_warning")
        if step < 39:
            assert score.reason == early.reason == "learning"
            assert math.isnan(score.value)
        else:
            assert 0.0 <= score.value <= 1.0
            assert 0.0 <= early.value <= 1.0
            seen.append(early.value)
    assert max(seen[:100]) == 0.0
    assert seen[-1] == 1.0
    again = RunDetector()
    again.load_state_dict(json.loads(json.dumps(run.state_dict())))
    assert again.readings(250) == run.readings(250)
    run.declare(250, "learning rate")
    assert run.readings(251)[1].value == 0.0


def test_the_score_reaches_one_exactly_when_an_alarm_is_raised():
    run, rng, quiet = RunDetector(OnlineDetector(burn_in=100)), np.random.default_rng(0), True
    for step in range(500):
        run.update([Reading(step, "repr/spectral_entropy", 0.5 + 0.1 * rng.standard_normal() - 0.2 * (step >= 300))])
        score = run.readings(step)[0].value
        mode = run.state_dict()["states"]["repr/spectral_entropy"]["mode"]
        if mode in ("burn_in", "watch") and quiet:
            assert not score >= 1.0
        elif quiet:
            assert mode == "follow"
            assert score == 1.0
            quiet = False
    assert not quiet


def test_the_readings_of_the_detection_are_never_watched():
    for key in ("detect/score", "detect/early_warning"):
        assert not quantities.REGISTRY[key].watched
