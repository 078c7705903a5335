import json
import math

import pytest

from thermo_monitor.detect.interventions import explanation, fresh, update


def declared(values, name="learning rate"):
    """(step, reason) of every declaration; the state goes through JSON at each step."""
    state, found = fresh(), []
    for step, value in enumerate(values):
        found += [(step, reason) for reason in update(state, {name: value})]
        state = json.loads(json.dumps(state))
    return found


def cosine(steps, warmup, low=0.0):
    for t in range(steps):
        if t < warmup:
            yield 1e-3 * (t + 1) / warmup
        else:
            yield low + (1e-3 - low) * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) / 2


def test_the_end_of_a_warm_up_is_declared_once_and_the_cosine_after_it_never():
    found = declared(cosine(1000, 100))
    early = [step for step, _ in found if step < 950]  # near its end a cosine is flat, and bends
    assert early == pytest.approx([102], abs=1)


@pytest.mark.parametrize(
    "values",
    [
        [0.1] * 500,
        [0.1 * 0.999**t for t in range(2000)],
        [0.1 * (1 - t / 1000) for t in range(1000)],
        [0.1 * 0.99 ** (t // 50) for t in range(2000)],
        [1e-3 * (1 + math.cos(math.pi * t / 1000)) / 2 for t in range(900)],
    ],
    ids=["constant", "exponential", "linear", "staircase of one per cent", "cosine"],
)
def test_smooth_schedules_are_no_interventions(values):
    assert declared(values) == []


def test_a_drop_is_declared_at_its_step():
    assert [step for step, _ in declared([0.1] * 40 + [0.01] * 40 + [0.001] * 40)] == [40, 80]


def test_a_restart_is_declared():
    values = [*cosine(200, 0, 1e-5), *cosine(200, 0, 1e-5)]
    assert 200 in [step for step, _ in declared(values)]


def test_a_decay_that_begins_and_one_that_ends_are_bends():
    values = [1.0] * 50 + [1 - 0.01 * t for t in range(1, 51)] + [0.5] * 50
    steps = [step for step, _ in declared(values)]
    assert steps == [52, 102]


def test_a_new_batch_size_is_one_that_stays():
    values = [32.0] * 10 + [7.0] + [32.0] * 10 + [7.0, 32.0] + [64.0] * 10
    assert declared(values, "batch size") == [(25, "batch size from 32 to 64")]


def test_what_is_no_number_is_passed_over():
    assert declared([0.1, math.nan, 0.1, math.inf, 0.1]) == []


def test_a_setting_explains_what_begins_with_its_first_step_and_a_single_other_value_nothing():
    state = fresh()
    for step in range(0, 50, 5):
        update(state, {"batch size": 64}, step)
    assert explanation(state, 500, 0, 1000) is None
    update(state, {"batch size": 256}, 50)  # not yet known to stay
    assert explanation(state, 52, 45, 52) == "batch size from 64 to 256"
    assert explanation(state, 45, 40, 45) is None
    update(state, {"batch size": 64}, 55)
    assert explanation(state, 55, 45, 55) is None
    state = json.loads(json.dumps(state))
    assert [update(state, {"batch size": 256}, step) for step in (60, 65, 70)][-1] == ["batch size from 64 to 256"]
    for step in range(75, 200, 5):
        assert update(state, {"batch size": 256}, step) == []
    assert explanation(state, 65, 62, 68) == "batch size from 64 to 256"
    assert explanation(state, 80, 75, 80) is None
    assert explanation(state, 85, 58, 90) is not None  # may have begun then
