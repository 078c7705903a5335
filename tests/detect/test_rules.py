import json
import math

import pytest

from thermo_monitor.detect import rules, simpler
from thermo_monitor.records import Reading


def feed(state, quantity, values, first=0, every=1):
    """Events from a list of values of one quantity; the state goes through JSON at every reading."""
    found = []
    for k, value in enumerate(values):
        reading = Reading(first + k * every, quantity, value, reason=None if math.isfinite(value) else "non_finite")
        transformed = math.log(value) if quantity == rules.LOSS and math.isfinite(value) and value > 0 else value
        found += rules.update(state, reading, transformed)
        state.update(json.loads(json.dumps(state)))
    return found


def test_three_losses_in_a_row_that_are_no_numbers_are_one_divergence_dated_at_the_first():
    found = feed(rules.fresh(), rules.LOSS, [1.0, math.nan, math.inf, math.nan, math.nan, math.nan])
    assert [(e.kind, e.step, e.onset) for e in found] == [("divergence", 3, 1)]


def test_two_bad_losses_are_an_overflow_and_a_third_after_a_good_one_counts_anew():
    state = rules.fresh()
    assert feed(state, rules.LOSS, [1.0, math.nan, math.nan, 1.0, math.nan, math.nan, 1.0]) == []
    assert rules.finish(state) == []


def test_a_run_that_ends_in_a_single_bad_loss_has_diverged():
    state = rules.fresh()
    assert feed(state, rules.LOSS, [1.0, 1.0, math.nan]) == []
    assert [(e.kind, e.onset) for e in rules.finish(state)] == [("divergence", 2)]
    assert rules.finish(state) == []


def test_attention_that_stays_on_one_key_has_collapsed_once_until_it_recovers():
    values = [0.5, 0.04, 0.03, 0.5, 0.04, 0.04, 0.04, 0.01, 0.5, 0.01, 0.01, 0.01]
    found = feed(rules.fresh(), rules.ENTROPY, values, every=10)
    assert [(e.kind, e.onset, e.step) for e in found] == [("collapse", 40, 60), ("collapse", 90, 110)]


def test_a_missing_entropy_is_no_collapse():
    assert feed(rules.fresh(), rules.ENTROPY, [math.nan] * 10) == []


LOSSES = [4.0] * 20 + [4.0 * 0.8**k for k in range(40)]


def test_memorization_is_dated_between_half_and_a_tenth_of_the_first_loss():
    found = feed(rules.fresh(), rules.LOSS, LOSSES)
    (event,) = found
    half = next(k for k, v in enumerate(LOSSES) if v < 2.0)
    tenth = next(k for k, v in enumerate(LOSSES) if v < 0.4)
    assert (event.onset_low, event.onset_high) == (half - 1, tenth)
    assert event.step == tenth + rules.FITTED_IN_A_ROW - 1
    assert event.details["milestone"] == "memorization"


def test_a_loss_that_falls_to_a_fifth_is_not_memorized():
    assert feed(rules.fresh(), rules.LOSS, [4.0] * 10 + [0.8] * 100) == []


@pytest.mark.parametrize(("last", "expected"), [(3.0, 0), (0.1, 1)])
def test_memorization_needs_a_model_that_is_sure_of_its_answers(last, expected):
    state = rules.fresh()
    feed(state, rules.PREDICTIVE, [3.6])
    feed(state, rules.LOSS, LOSSES[:10])
    feed(state, rules.PREDICTIVE, [last])
    assert len(feed(state, rules.LOSS, LOSSES[10:], first=10)) == expected


def memorized():
    state = rules.fresh()
    (event,) = feed(state, rules.LOSS, LOSSES)
    return state, event.step


def test_a_slow_fall_of_representation_entropy_after_memorization_is_a_drift():
    state, fitted = memorized()
    values = [0.6 - 0.001 * k for k in range(200)]
    (event,) = feed(state, "repr/spectral_entropy", values, first=2 * fitted)
    assert event.kind == "drift"
    assert event.direction == "down"
    # 0.1 below the top takes 100 readings; the running median and three in a row add a few.
    assert 100 <= event.step - 2 * fitted <= 110
    assert event.details["before"] - event.details["after"] == pytest.approx(0.1, abs=0.004)


@pytest.mark.parametrize(("readings", "slow"), [(200, False), (2000, True)])
def test_a_fall_is_slow_beside_what_memorization_took(readings, slow):
    state, fitted = memorized()
    values = [0.6 - 0.2 * k / readings for k in range(readings)]
    (event,) = feed(state, "repr/spectral_entropy", values, first=2 * fitted)
    assert event.details.get("slow", False) is slow
    assert (event.step - event.onset > simpler.SLOW * fitted) is slow


def test_the_same_fall_is_nothing_before_memorization_or_right_after_it():
    values = [0.6 - 0.001 * k for k in range(200)]
    assert feed(rules.fresh(), "repr/spectral_entropy", values) == []
    state, fitted = memorized()
    assert feed(state, "repr/spectral_entropy", [0.6, 0.3, 0.3, 0.3, 0.3], first=fitted) == []


def test_single_dips_and_a_rise_are_no_simplification():
    state, fitted = memorized()
    values = [0.6 + 0.001 * k - (0.3 if k % 10 == 0 else 0.0) for k in range(200)]
    assert feed(state, "repr/spectral_entropy", values, first=2 * fitted) == []
