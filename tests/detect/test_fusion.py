import json
import math

import numpy as np
import pytest

from thermo_monitor.detect import alarm, fusion
from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.records import Reading

GROUPS = {"a": "one", "b": "two", "c": "two", "d": "three"}


def test_weights_are_equal_over_groups_then_inside_a_group_and_add_up_to_one():
    weight = fusion.weights(GROUPS)
    assert weight == {"a": pytest.approx(1 / 3), "b": pytest.approx(1 / 6), "c": pytest.approx(1 / 6), "d": weight["a"]}
    assert sum(weight.values()) == pytest.approx(1.0)


def test_a_newcomer_raises_nobodys_weight():
    keys = list(GROUPS)
    for count in range(1, len(keys)):
        before = fusion.weights({key: GROUPS[key] for key in keys[:count]})
        after = fusion.weights({key: GROUPS[key] for key in keys[: count + 1]})
        assert all(after[key] <= before[key] for key in before)


def test_the_average_is_that_of_the_levels_and_not_of_the_logarithms():
    rng = np.random.default_rng(0)
    logs = dict(zip(GROUPS, rng.uniform(-3, 8, 4).tolist(), strict=True))
    weight = fusion.weights(GROUPS)
    fused = fusion.combine(logs, weight)
    parts = {key: weight[key] * math.exp(logs[key]) for key in GROUPS}
    assert fused.log == pytest.approx(math.log(sum(parts.values())))
    assert fused.shares == {key: pytest.approx(part / sum(parts.values())) for key, part in parts.items()}
    assert fused.leader == max(parts, key=parts.get)


def test_evidence_beyond_the_largest_float_is_still_compared():
    fused = fusion.combine({"a": 2000.0, "b": 1999.0}, {"a": 0.5, "b": 0.5})
    assert fused.log == pytest.approx(2000.0 + math.log(0.5 * (1 + math.exp(-1))))


def test_no_evidence_has_no_leader_and_is_below_every_threshold():
    fused = fusion.combine({"a": -1e300}, {"a": 1.0})
    assert fused.shares == {}
    assert fused.log < -1e299


def test_one_series_over_its_own_threshold_is_enough_so_the_average_is_never_later():
    weight, threshold = fusion.weights(GROUPS), math.log(1000.0)
    for key in GROUPS:
        logs = {other: -50.0 for other in GROUPS} | {key: threshold - math.log(weight[key])}
        assert fusion.combine(logs, weight).log >= threshold - 1e-9


def test_a_mean_of_betting_factors_keeps_the_promise_whatever_the_dependence():
    # Exact e-detectors on nine copies of the same coin: the strongest dependence there is, and none.
    rng = np.random.default_rng(3)
    level, runs = 200.0, 300
    for together in (True, False):
        lengths = []
        for _ in range(runs):
            sr, t = np.zeros(9), 0
            while sr.mean() < level:
                up = rng.random(1 if together else 9) < 0.5
                sr = (1.0 + sr) * np.where(up, 1.4, 0.6)
                t += 1
            lengths.append(t)
        assert np.mean(lengths) > level * (1 - 3 / math.sqrt(runs))


def shifted(keys, seed=0, at=300, n=500, size=0.1):
    """Four readings of a step; those of ``keys`` move at step 300."""
    rng = np.random.default_rng(seed)
    names = ("attn/entropy_fraction", "attn/specific_heat_norm", "repr/representation_entropy", "repr/spectral_entropy")
    for step in range(n):
        yield [Reading(step, k, 0.5 - size * (k in keys and step >= at) + 0.05 * rng.standard_normal()) for k in names]


def play(run, detector=None):
    detector = detector or RunDetector(OnlineDetector(burn_in=100))
    return [event for readings in run for event in detector.update(readings)]


def test_the_leader_gives_quantity_onset_and_direction_and_the_event_shows_shares_and_weights():
    (event,) = play(shifted({"repr/spectral_entropy"}))
    assert (event.kind, event.quantity, event.direction) == ("shift", "repr/spectral_entropy", "down")
    assert event.onset == pytest.approx(300, abs=8)
    details = event.details
    assert details["shares"]["repr/spectral_entropy"] == max(details["shares"].values()) > 0.5
    assert all(share > fusion.MENTIONED for share in details["shares"].values())
    assert details["weights"] == dict.fromkeys(details["weights"], 0.25)
    assert len(details["weights"]) == 4
    assert event.evidence >= details["threshold"] == pytest.approx(math.log(10_000))
    json.loads(event.to_json())


def test_what_all_series_show_a_little_is_found_sooner_than_by_the_first_of_them():
    detector, threshold, weight = OnlineDetector(arl=4 * 10_000), math.log(10_000), dict.fromkeys(GROUPS, 0.25)
    together, first = [], []
    for seed in range(5):
        values = np.random.default_rng(seed).standard_normal((600, 4)) + 1.6 * (np.arange(600) >= 400)[:, None]
        states = {key: detector.init() for key in GROUPS}
        average, largest = [], []
        for step, row in enumerate(values.tolist()):
            for state, value in zip(states.values(), row, strict=True):
                detector.update(state, value, step, alone=False)
            logs = {key: fusion.evidence(state) for key, state in states.items()}
            average.append(fusion.combine(logs, weight).log)
            largest.append(max(logs.values()) - math.log(4))
        together.append(int(np.argmax(np.array(average) >= threshold)))
        first.append(int(np.argmax(np.array(largest) >= threshold)))
    assert min(together) > 400
    assert all(a <= b for a, b in zip(together, first, strict=True))
    assert np.mean(together) < np.mean(first)


def test_the_interval_is_the_hull_of_the_contributors_near_the_leader():
    assert fusion.hull((100, 110), [(100, 110), (95, 105), (108, 120)], step=150) == (95, 120)
    assert fusion.hull((100, 110), [(20, 30)], step=150) == (100, 110)
    assert fusion.hull((100, 110), [(20, 60)], step=150) == (20, 110)


def test_the_dates_of_a_contributor_widen_the_onset_and_those_of_a_bystander_do_not():
    detector = OnlineDetector(burn_in=50)
    rng, states = np.random.default_rng(1), {}
    for key, at in (("a", 100), ("b", 107), ("c", 1000)):
        states[key] = detector.init()
        for step in range(118):
            value = rng.standard_normal() + 3.0 * (step >= at)
            detector.update(states[key], value, step, alone=False)
    fused = fusion.combine({key: fusion.evidence(state) for key, state in states.items()}, dict.fromkeys("abc", 1 / 3))
    assert fused.leader == "a"
    assert fused.shares["c"] < fusion.CONTRIBUTES
    dates = {key: alarm.dated(state, 117)[2:] for key, state in states.items()}
    wide = fusion.Fused(fused.log, {"a": 0.6, "b": 0.3, "c": 0.1})
    assert fusion.interval(states, wide, 117) == (min(dates["a"][0], dates["b"][0]), max(dates["a"][1], dates["b"][1]))
    assert fusion.interval(states, fusion.Fused(fused.log, {"a": 0.95, "b": 0.05}), 117) == dates["a"]


def test_a_detector_that_is_not_alone_waits_to_be_told():
    values = np.random.default_rng(2).standard_normal(400) + 4.0 * (np.arange(400) >= 300)
    detector, kinds = OnlineDetector(burn_in=100), []
    state = detector.init()
    for step, value in enumerate(values.tolist()):
        state, decision = detector.update(state, value, step, alone=False)
        assert decision.event is None
        if step == 340:
            assert decision.statistic > decision.threshold
            state, decision = detector.sound(
                state, step, {"low": 290, "high": 305, "evidence": 42.0, "facts": {"x": 1}}
            )
            kinds.append(decision.event)
            assert detector.sound(state, step)[1].event is None  # it follows the change now: no second alarm
    (event,) = kinds
    assert (event.kind, event.onset_low, event.onset_high, event.evidence) == ("shift", 290, 305, 42.0)
    assert event.details["x"] == 1


def test_a_slow_series_keeps_its_evidence_between_its_readings():
    detector, values = RunDetector(OnlineDetector(burn_in=60)), np.random.default_rng(0).standard_normal(2000)
    found = []
    for step in range(2000):
        readings = [Reading(step, "loss/train", math.exp(0.3 * values[step]))]
        if step % 10 == 0:
            value = 0.5 + 0.01 * values[step - 5] - 0.2 * (step >= 1500)
            readings.append(Reading(step, "attn/entropy_fraction", value))
        found += detector.update(readings)
    (event,) = found
    assert event.quantity == "attn/entropy_fraction"
    assert event.onset == 1500
    assert event.step < 1500 + 10 * 45  # persistence of 36 readings, ten steps apart


def test_weights_are_published_as_heard_and_survive_a_checkpoint():
    first = RunDetector()
    first.update([Reading(0, "loss/train", 1.0), Reading(0, "attn/entropy_fraction", math.nan)])
    assert first.state_dict()["heard"] == ["loss/train"]  # what has never had a value has no weight
    second = RunDetector()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.update([Reading(1, "attn/entropy_fraction", 0.5)])
    assert second.state_dict()["heard"] == ["loss/train", "attn/entropy_fraction"]


def test_fused_alarms_are_the_same_in_a_run_resumed_from_json():
    def resumed():
        detector = RunDetector(OnlineDetector(burn_in=100))
        for step, readings in enumerate(shifted({"attn/entropy_fraction", "repr/spectral_entropy"})):
            if step % 7 == 0:
                state = json.loads(json.dumps(detector.state_dict()))
                detector = RunDetector(OnlineDetector(burn_in=100))
                detector.load_state_dict(state)
            yield from detector.update(readings)

    def facts(events):
        return [(e.id, e.kind, e.step, e.onset_low, e.onset, e.onset_high, e.quantity, dict(e.details)) for e in events]

    straight = facts(play(shifted({"attn/entropy_fraction", "repr/spectral_entropy"})))
    assert straight
    assert facts(resumed()) == straight
