import json
import math

import numpy as np
import pytest

from thermo_monitor.detect import ManyDetectors, OnlineDetector
from thermo_monitor.detect.synthetic import noise, sigmoid, spike

N = 900


def eventful(count=24):
    """Series of every kind: quiet, shifts, spikes, slingshots, more noise, missing readings, little noise, constant."""
    out = []
    for seed in range(count):
        x = noise(N, seed, (0.0, 0.5, 0.9)[seed % 3], ("normal", "t3")[seed % 2])
        kind = seed % 8
        x = x + (
            0.0, 5.0 * sigmoid(N, 400, 1), -6.0 * sigmoid(N, 500, 60), 30.0 * spike(N, 350, 5.0),
            12.0 * spike(N, 450, 40.0), 2.0 * x * (np.arange(N) >= 500), 0.0, -1000.0 * np.log1p(np.arange(N)),
        )[kind]  # fmt: skip
        if kind == 6:
            x[300:330], x[600] = np.nan, np.inf
        out.append(x * 10.0 ** (seed - 12))
    out[-1] = np.full(N, 0.25)
    return np.stack(out, axis=1)


def said(decision):
    return repr(decision.event), repr(decision.completed)


@pytest.mark.parametrize(
    "options", [{}, {"minimum_effect": 0.5, "burn_in": 40}, {"burn_in": 60, "announce_late": True}]
)
@pytest.mark.parametrize("resumed", [False, True])
def test_the_decisions_are_those_of_each_series_alone(options, resumed):
    values = eventful()
    detector = OnlineDetector(arl=2000, **options)
    many = ManyDetectors(detector, values.shape[1])
    states = [detector.init() for _ in range(values.shape[1])]
    events, together = 0, 0
    for step, row in enumerate(values):
        if step == 700:
            many.declare(step, "x")
            states = [detector.declare(state, step, "x") for state in states]
        found = many.update(row, step)
        for index, value in enumerate(row.tolist()):
            states[index], decision = detector.update(states[index], value, step)
            expected = decision.event is not None or decision.completed is not None
            assert (index in found) == expected
            if expected:
                assert said(found[index])[0].split("evidence")[0] == said(decision)[0].split("evidence")[0]
                events += 1
            assert many.statistics[index] == pytest.approx(decision.statistic, rel=1e-6, abs=1e-6)
        if step == 720:  # seen again: left out
            assert many.update(row, step) == {}
            states = [detector.update(state, 0.0, step)[0] for state in states]
        together += many.together
        if resumed and step % 37 == 0:
            saved = json.loads(json.dumps(many.states(), allow_nan=False))
            many = ManyDetectors(detector, values.shape[1])
            many.load_states(saved)
    assert events > 10
    assert together > 0.4 * values.size  # or this tests nothing


def test_a_state_goes_from_many_to_one_and_back_without_a_trace():
    detector, values = OnlineDetector(burn_in=40), eventful()[:, :3]
    many = ManyDetectors(detector, 3)
    alone = [detector.init() for _ in range(3)]
    for step, row in enumerate(values[:300]):
        many.update(row, step)
        alone = [detector.update(s, v, step)[0] for s, v in zip(alone, row.tolist(), strict=True)]
    for state, expected in zip(many.states(), alone, strict=True):
        assert state.keys() == expected.keys()
        assert state["steps"] == expected["steps"]
        assert state["values"] == expected["values"]
        for stack, other in zip(state["stat"]["starts"], expected["stat"]["starts"], strict=True):
            assert [(c, t) for c, _, t in stack] == [(c, t) for c, _, t in other]
        for key in ("phi", "sigma", "log_mean", "square"):
            assert state["base"][key] == pytest.approx(expected["base"][key], rel=1e-9)


@pytest.mark.parametrize("count", [0, -1, 2.0, True])
def test_a_number_of_series_that_makes_no_sense_is_named(count):
    with pytest.raises(ValueError, match="count is a whole number of series"):
        ManyDetectors(OnlineDetector(), count)


def test_values_and_states_have_to_be_as_many_as_the_series():
    many = ManyDetectors(OnlineDetector(), 3)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        many.update([1.0, 2.0], 0)
    with pytest.raises(ValueError, match="got 2"):
        many.load_states(many.states()[:2])
    many.update([math.nan] * 3, 0)
    assert [state["missing"] for state in many.states()] == [1, 1, 1]
