import json
import math

import numpy as np
import pytest

from thermo_monitor.detect import OnlineDetector, late
from thermo_monitor.detect.synthetic import noise, sigmoid, spike
from thermo_monitor.detect.voting import Change
from thermo_monitor.records import Event

N = 1500


def run(detector, values, declared=(), steps=None):
    state, events = detector.init(), []
    for step, value in zip(range(len(values)) if steps is None else steps, np.asarray(values).tolist(), strict=True):
        if step in declared:
            state = detector.declare(state, step, "learning rate")
        state, decision = detector.update(state, value, step)
        if decision.event is not None:
            events.append(decision.event)
    return state, events


def shape(events):
    return [(e.kind, e.onset, e.step, e.direction) for e in events]


# ------------------------------------------------------------------------------------------------ every kind of event
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_step_in_noise_is_one_dated_shift(sign):
    _, events = run(OnlineDetector(), noise(N, 1, phi=0.5) + sign * 4.0 * sigmoid(N, 900))
    (event,) = events
    assert event.kind == "shift"
    assert event.direction == ("up" if sign > 0 else "down")
    assert abs(event.onset - 900) <= 5
    assert event.onset_low <= event.onset <= event.onset_high <= event.step <= 900 + 150
    assert event.phase == "unexplained"
    assert event.evidence >= event.details["threshold"] == math.log(10_000)


def test_a_gradual_shift_is_completed_once_its_level_has_settled():
    detector, completed = OnlineDetector(), []
    state = detector.init()
    for step, value in enumerate(noise(N, 2) + 3.0 * sigmoid(N, 900, 100)):
        state, decision = detector.update(state, value, step)
        completed += [decision.completed] if decision.completed else []
    (event,) = completed
    assert abs(event.details["after"] - 3.0) < 0.6
    assert event.details["width"] > 10


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_sigmoid_in_little_noise_is_announced_by_its_foot_and_only_once(seed):
    detector, announced, completed = OnlineDetector(), [], []
    state = detector.init()
    for step, value in enumerate(noise(5000, seed) + 200.0 * sigmoid(5000, 2500, 1000)):
        state, decision = detector.update(state, value, step)
        announced += [decision.event] if decision.event and decision.event.kind in ("shift", "variance") else []
        completed += [decision.completed] if decision.completed else []
    (event,) = announced
    assert event.step < 2500 - 700  # the level has moved by a deviation at 2500 - 900
    foot, whole = completed
    assert foot.details["after"] < 20.0
    assert "grown" not in foot.details
    assert whole.details["grown"]
    assert whole.onset == event.onset
    assert whole.details["after"] > 180.0
    assert abs(whole.details["width"] - 1000) < 200


def test_a_second_shift_of_the_same_size_is_a_second_shift():
    _, events = run(OnlineDetector(), noise(N, 5) + 4.0 * sigmoid(N, 700, 30) + 4.0 * sigmoid(N, 1000, 30))
    assert [e.kind for e in events] == ["shift", "shift"]


def test_a_level_that_is_still_bending_when_it_is_learned_is_not_taken_for_noise():
    _, events = run(OnlineDetector(), noise(2500, 0) + 200.0 * sigmoid(2500, 900, 200))
    assert [e.kind for e in events] == ["shift"]


def test_a_spike_that_comes_back_is_an_excursion():
    _, events = run(OnlineDetector(), noise(N, 3, phi=0.5) + 30.0 * spike(N, 800, 6.0))
    assert shape(events)[0][0] == "excursion"
    assert len(events) == 1
    assert abs(events[0].onset - 800) <= 3
    assert events[0].direction == "up"


def test_more_noise_is_a_variance_event():
    x = noise(N, 4, phi=0.5)
    x[900:] *= 3.0
    _, events = run(OnlineDetector(), x)
    assert [e.kind for e in events] == ["variance"]
    assert events[0].direction == "up"
    assert abs(events[0].onset - 900) < 30
    assert events[0].details["spread_ratio"] > 1.5


def test_a_long_run_of_missing_readings_is_one_divergence():
    x = noise(N, 5)
    x[700:] = np.nan
    state, events = run(OnlineDetector(patience=30), x)
    assert shape(events) == [("divergence", 700, 729, "none")]
    assert state["missing"] == N - 700


@pytest.mark.parametrize("declared", [(), (640,)])
def test_each_long_gap_is_one_divergence_dated_at_its_first_reading_and_a_short_one_is_none(declared):
    x = noise(N, 5)
    for start, end in ((300, 329), (640, 700), (1000, 1031)):
        x[start:end] = np.nan
    _, events = run(OnlineDetector(patience=30), x, {10 * step for step in declared}, range(0, 10 * N, 10))
    assert shape(events) == [("divergence", 6400, 6690, "none"), ("divergence", 10_000, 10_290, "none")]


def test_a_trend_without_an_end_is_at_most_a_drift():
    time = np.arange(4000.0)
    bend = np.where(time < 1000, 0.0, (time - 1000) * 0.002)
    _, events = run(OnlineDetector(minimum_effect=0.05, burn_in=100), bend)
    assert [e.kind for e in events] == ["drift"]


# ------------------------------------------------------------------------------------------ hardly any noise, an effect
QUIET = 1e-4


def test_a_smooth_slow_trend_is_nothing():
    time = np.arange(3000.0)
    for curve in (np.exp(-time / 600), -np.log1p(time / 50), 1e-4 * time, np.sqrt(time) / 30):
        _, events = run(OnlineDetector(minimum_effect=0.05), curve + QUIET * noise(3000, 6))
        assert [e for e in events if e.kind != "drift"] == []


@pytest.mark.parametrize("width", [1, 30, 200])
def test_a_sigmoid_between_two_levels_is_one_shift_with_its_width(width):
    _, events = run(OnlineDetector(minimum_effect=0.05), 0.3 + 0.6 * sigmoid(N, 700, width) + QUIET * noise(N, 7))
    (event,) = events
    assert event.kind == "shift"
    assert event.direction == "up"
    assert event.details["before"] == pytest.approx(0.3, abs=0.05)
    assert event.details["after"] == pytest.approx(0.9, abs=0.05)
    assert event.details["width"] == pytest.approx(width, rel=0.5, abs=4)
    assert abs(event.onset - (700 - width / 2)) <= 0.7 * width + 3
    assert event.details["excursion"] is False


def test_a_change_below_the_minimum_effect_is_nothing():
    _, events = run(OnlineDetector(minimum_effect=0.05), 0.03 * sigmoid(N, 700, 20) + QUIET * noise(N, 8))
    assert events == []


def test_a_slingshot_that_leaves_another_level_is_a_shift_with_the_excursion_noted():
    curve = 2.0 * spike(N, 700, 8.0) + 0.3 * sigmoid(N, 700) + QUIET * noise(N, 9)
    _, events = run(OnlineDetector(minimum_effect=0.1), curve)
    (event,) = events
    assert event.kind == "shift"
    assert event.details["excursion"] is True
    assert event.details["after"] == pytest.approx(0.3, abs=0.05)


def test_a_slingshot_that_comes_back_is_an_excursion():
    _, events = run(OnlineDetector(minimum_effect=0.1), 2.0 * spike(N, 700, 8.0) + QUIET * noise(N, 10))
    assert [e.kind for e in events] == ["excursion"]


def test_the_level_is_learned_again_after_a_shift():
    curve = 0.5 * sigmoid(2000, 600, 20) - 0.5 * sigmoid(2000, 1300, 20) + QUIET * noise(2000, 11)
    _, events = run(OnlineDetector(minimum_effect=0.05), curve)
    assert [(e.kind, e.direction) for e in events] == [("shift", "up"), ("shift", "down")]


# ----------------------------------------------------------------------------------------------- conduct of the state
def eventful():
    x = noise(600, 12, phi=0.3) + 5.0 * sigmoid(600, 200, 20) + 25.0 * spike(600, 400, 4.0)
    x[300:320] = np.nan
    return x


def test_resuming_from_json_at_every_index_changes_nothing():
    detector = OnlineDetector(burn_in=60)
    values = eventful().tolist()
    straight, resumed = detector.init(), detector.init()
    found = 0
    for step, value in enumerate(values):
        if step == 520:
            straight, resumed = detector.declare(straight, step, "x"), detector.declare(resumed, step, "x")
        straight, a = detector.update(straight, value, step)
        resumed, b = detector.update(json.loads(json.dumps(resumed, allow_nan=False)), value, step)
        assert repr(a) == repr(b)
        found += a.event is not None
    assert found >= 2
    assert straight == resumed


def test_the_state_is_small():
    x = noise(3000, 13) + 3.0 * sigmoid(3000, 1500, 400)
    for detector in (OnlineDetector(), OnlineDetector(minimum_effect=0.5, burn_in=1000)):
        state = detector.init()
        for step, value in enumerate(x.tolist()):
            state, _ = detector.update(state, value, 1_000_000 + 10 * step)
            if step > detector.burn_in and step % 40 == 0:
                assert len(json.dumps(state)) <= 16 * 1024


@pytest.mark.parametrize(
    ("factor", "offset"), [(2.0**-30, 0.0), (2.0**30, 0.0), (1e-8, 0.0), (1.0, 1000.0), (1e6, -1e8)]
)
@pytest.mark.parametrize("effect", [0.0, 0.5])
def test_scale_and_shift_change_nothing(factor, offset, effect):
    x = eventful()
    _, plain = run(OnlineDetector(burn_in=60, minimum_effect=effect), x)
    _, other = run(OnlineDetector(burn_in=60, minimum_effect=effect * factor), factor * x + offset)
    assert len(plain) >= 2
    assert shape(other) == shape(plain)


@pytest.mark.parametrize("effect", [0.0, 0.5])
def test_negation_swaps_up_and_down_only(effect):
    swap = {"up": "down", "down": "up", "none": "none"}
    detector = OnlineDetector(burn_in=60, minimum_effect=effect)
    _, plain = run(detector, eventful())
    _, other = run(detector, -eventful())
    flip = [(k, o, s, d if k in ("variance", "drift") else swap[d]) for k, o, s, d in shape(plain)]
    assert shape(other) == flip


# --------------------------------------------------------------------------------------------------- steps and values
def test_a_declared_change_is_scheduled_and_a_later_one_is_not():
    x = noise(N, 14, phi=0.5) - 5.0 * sigmoid(N, 600) - 5.0 * sigmoid(N, 1000)
    _, surprised = run(OnlineDetector(), x)
    assert [e.phase for e in surprised] == ["unexplained", "unexplained"]
    _, events = run(OnlineDetector(), x, declared={600})
    assert [(e.kind, e.phase) for e in events] == [("shift", "scheduled"), ("shift", "unexplained")]
    assert events[0].details["reason"] == "learning rate"
    assert events[0].onset == 600


def test_a_change_that_was_followed_when_an_intervention_came_is_named_in_its_event():
    x = noise(N, 14, phi=0.5) - 12.0 * sigmoid(N, 600)  # sharp, so that its alarm waits
    _, events = run(OnlineDetector(), x, declared={640})
    (event,) = events
    assert (event.phase, event.onset) == ("scheduled", 640)
    assert abs(event.details["pending"] - 600) <= 2
    _, events = run(OnlineDetector(), x, declared={600})
    assert "pending" not in events[0].details


def test_numbers_of_numpy_leave_a_state_that_json_holds():
    detector = OnlineDetector(burn_in=20)
    state = detector.init()
    for step in range(40):
        state, _ = detector.update(state, np.float32(step % 3), np.int64(step))
    json.dumps(detector.declare(state, np.int64(40), "x"), allow_nan=False)


def test_repeated_steps_are_dropped_and_counted():
    x = noise(N, 15) + 4.0 * sigmoid(N, 1000)
    steps = [*range(800), *range(600, N)]
    state, events = run(OnlineDetector(), np.concatenate([x[:800], x[600:] + 0.0]), steps=steps)
    _, once = run(OnlineDetector(), x)
    assert state["overlap"] == 200
    assert shape(events) == shape(once)


def test_readings_with_gaps_between_their_steps_are_dated_in_steps():
    x = noise(N, 16) + 4.0 * sigmoid(N, 1000)
    _, dense = run(OnlineDetector(), x)
    _, sparse = run(OnlineDetector(), x, steps=range(0, 10 * N, 10))
    assert shape(sparse) == [(k, 10 * o, 10 * s, d) for k, o, s, d in shape(dense)]


def test_missing_readings_are_skipped():
    x = noise(N, 17, phi=0.9) - 5.0 * sigmoid(N, 900)
    rng = np.random.default_rng(0)
    x[rng.random(N) < 0.1] = np.nan
    x[500:530] = np.inf
    state, events = run(OnlineDetector(patience=100), x)
    assert [e.kind for e in events] == ["shift"]
    assert abs(events[0].onset - 900) < 30
    assert state["missing"] == np.count_nonzero(~np.isfinite(x))


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [1.0, 2.0],
        [3.0] * 300,
        [0] * 300,
        [math.nan] * 300,
        [math.inf, -math.inf] * 100,
        list(range(300)),
        [1e308, -1e308] * 150,
        [5e-324] * 100 + [1e-320] * 200,
        [0.0] * 150 + [1e300] * 150,
        [0.25] * 150 + [1e-200, 1e200] * 75,
        [0, 1] * 150,
    ],
)
@pytest.mark.parametrize("effect", [0.0, 0.05])
@pytest.mark.parametrize("options", [{"burn_in": 40}, {"burn_in": 10, "persistence": 4, "patience": 2, "arl": 2.0}])
def test_any_series_gets_an_answer(values, effect, options):
    detector = OnlineDetector(minimum_effect=effect, **options)
    state = detector.init()
    for step, value in enumerate(values):
        state, decision = detector.update(state, value, step)
        assert not math.isnan(decision.statistic)
        assert decision.threshold == math.log(detector.arl)
    json.dumps(state, allow_nan=False)
    assert all(isinstance(e, Event) for e in detector.late(state))


def test_rounding_noise_on_a_constant_is_nothing():
    x = np.full(N, 0.25)
    x[700:] += np.round(np.random.default_rng(0).standard_normal(N - 700)) * 1e-15
    assert run(OnlineDetector(), x)[1] == []


@pytest.mark.parametrize(
    "options",
    [
        {"arl": 1.0},
        {"arl": math.nan},
        {"arl": math.inf},
        {"minimum_effect": -0.1},
        {"minimum_effect": math.nan},
        {"burn_in": 5},
        {"burn_in": 20.5},
        {"persistence": 1},
        {"patience": 0},
    ],
)
def test_a_wrong_option_is_named_with_its_value(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=name) as caught:
        OnlineDetector(**options)
    assert repr(value) in str(caught.value)


# ------------------------------------------------------------------------------------------------------- false alarms
@pytest.mark.parametrize(("phi", "tail"), [(0.0, "normal"), (0.9, "normal"), (0.0, "t3")])
def test_noise_alone_alarms_no_more_often_than_promised(phi, tail):
    alarms = sum(
        sum(e.kind in ("shift", "variance") for e in run(OnlineDetector(arl=1000), noise(4000, seed, phi, tail))[1])
        for seed in range(5)
    )
    # 20,000 readings at one alarm in 1,000: 20 expected at most; five standard deviations above are not needed.
    assert alarms <= 20


def test_whitening_is_what_keeps_the_promise():
    # The same noise, its correlation hidden from the detector by a burn-in of independent readings.
    alarms = sum(
        len(run(OnlineDetector(arl=1000), np.concatenate([noise(200, seed), noise(400, seed + 50, 0.97)]))[1]) > 0
        for seed in range(8)
    )
    assert alarms >= 4


# -------------------------------------------------------------------------------------------------------- the burn-in
def test_a_change_inside_the_burn_in_is_found_late():
    curve = 0.2 + 0.5 * sigmoid(300, 80, 10) + QUIET * noise(300, 18)
    detector = OnlineDetector(minimum_effect=0.05)
    state, events = run(detector, curve)
    (event,) = detector.late(state)
    assert events == []
    assert event.details["late"] is True
    assert (event.kind, event.direction) == ("shift", "up")
    assert abs(event.onset - 80) <= 6
    assert event.details["after"] == pytest.approx(0.7, abs=0.01)


def test_a_run_shorter_than_the_burn_in_has_late_events_too():
    detector = OnlineDetector(minimum_effect=0.05)
    state, _ = run(detector, (np.arange(60) >= 30) * 1.0)
    assert [e.onset for e in detector.late(state)] == [30]


def test_a_late_event_carries_the_doubt_of_its_change(monkeypatch):
    found = [Change(30, 28, 32, ("a", "b", "c"), "a walk")]
    monkeypatch.setattr(late, "segment", lambda values, confidence: found)
    detector = OnlineDetector(minimum_effect=0.05)
    state, _ = run(detector, (np.arange(60) >= 30) * 1.0)
    assert [event.details["doubt"] for event in detector.late(state)] == ["a walk"]
    found[0] = Change(30, 28, 32, ("a", "b", "c"))
    assert "doubt" not in detector.late(state)[0].details


def test_a_smooth_trend_or_a_small_change_is_not_a_late_event():
    time = np.arange(200.0)
    for curve in (0.01 * time, np.exp(-time / 60), 0.02 * sigmoid(200, 100), noise(200, 19) * QUIET):
        detector = OnlineDetector(minimum_effect=0.05)
        assert detector.late(run(detector, curve)[0]) == []


def test_late_events_come_through_update_only_when_asked_for():
    curve = 0.2 + 0.5 * sigmoid(300, 80, 10) + QUIET * noise(300, 20)
    _, events = run(OnlineDetector(minimum_effect=0.05, announce_late=True), curve)
    assert [e.details["late"] for e in events] == [True]


@pytest.mark.parametrize("arl", [10_000, 90_000, 1_000_000])
def test_a_large_shift_soon_after_a_short_burn_in_is_not_taken_for_correlation(arl):
    # Its residuals would raise the lag-one coefficient to its limit, and whitening would then remove the shift.
    detector = OnlineDetector(arl=arl, burn_in=20, minimum_effect=math.log(1.25))
    values = [math.log(2.0 + 0.01 * (t * 7919 % 13) + (5.0 if t > 40 else 0.0)) for t in range(120)]
    state, found = detector.init(), []
    for step, value in enumerate(values):
        state, decision = detector.update(state, value, step)
        found += [decision.event] if decision.event else []
    assert [(e.kind, e.onset, e.direction) for e in found] == [("shift", 41, "up")]
