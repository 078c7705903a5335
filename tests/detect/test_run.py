import json
import math

import numpy as np
import pytest

from thermo_monitor.detect.online import OnlineDetector
from thermo_monitor.detect.run import RunDetector
from thermo_monitor.records import Reading


def grokking(steps=900, every=5, generalizes=True):
    """Readings by step of a made-up run: fitted by step 80; then, maybe, simpler and smaller between 300 and 500."""
    rng = np.random.default_rng(0)
    for step in range(steps):
        late = 1 / (1 + math.exp(-(step - 400) / 30)) if generalizes else 0.0
        fitted = 1 / (1 + math.exp(-(step - 60) / 6))
        noise = math.exp(0.02 * rng.standard_normal())
        out = [
            Reading(step, "loss/train", noise * (3.6 * (1 - fitted) + 0.05 * math.exp(-step / 200))),
            Reading(step, "opt/weight_norm", 30.0 - 5.0 * late),
            Reading(step, "opt/gradient_norm", noise * 0.1 * math.exp(-step / 100)),
        ]
        if step % every == 0:
            out += [
                Reading(step, "out/predictive_entropy", 3.6 * (1 - fitted) + 0.01),
                Reading(step, "repr/representation_entropy", 0.6 - 0.3 * late + 0.002 * rng.standard_normal()),
                Reading(step, "repr/spectral_entropy", 0.7 - 0.2 * late + 0.002 * rng.standard_normal()),
                Reading(step, "repr/spectral_entropy", 0.7 + 0.1 * rng.standard_normal(), layer=3),
            ]
        yield step, out


def play(detector, run, resumed_every=None):
    events = []
    for step, readings in run:
        events += detector.update(readings)
        if resumed_every and step % resumed_every == 0:
            state = json.loads(json.dumps(detector.state_dict()))
            detector = RunDetector(run="other")
            detector.load_state_dict(state)
    return events + detector.finish()


def primary(events):
    return [e for e in events if "part_of" not in e.details and e.level != "info"]


def test_memorization_then_generalization_and_each_is_told_once():
    events = play(RunDetector(), grokking())
    assert [e.phase for e in primary(events)] == ["memorization", "generalization"]
    memorized, generalized = primary(events)
    assert 50 <= memorized.onset <= 80
    assert 300 <= generalized.onset <= 450
    assert [e.id for e in events] == [f"run:{k}" for k in range(len(events))]


def test_a_run_that_only_memorizes_is_not_said_to_generalize():
    events = play(RunDetector(), grokking(generalizes=False))
    assert [e.phase for e in primary(events)] == ["memorization"]
    assert not [e for e in events if e.phase == "generalization"]


def test_a_run_resumed_from_json_again_and_again_finds_the_same():
    def facts(events):
        return [(e.id, e.kind, e.step, e.onset, e.quantity, e.phase) for e in events]

    assert facts(play(RunDetector(), grokking(), resumed_every=37)) == facts(play(RunDetector(), grokking()))


def test_steps_that_are_seen_again_count_nowhere():
    once, again = RunDetector(), RunDetector()
    seen = []
    for step, readings in grokking():
        seen.append(readings)
        once.update(readings)
        again.update(readings)
        if step in (70, 500):  # within memorization and after generalization
            repeated = [event for old in seen[-60:] for event in again.update(old)]
            assert repeated == []
    first, second = once.state_dict(), again.state_dict()
    overlaps = [state.pop("overlap") for state in second["states"].values()]
    assert min(overlaps) > 0
    assert sum(state.pop("overlap") for state in first["states"].values()) == 0
    for part in ("states", "curves", "rules"):
        assert second[part] == first[part]


def test_the_state_is_plain_json_at_every_step():
    detector = RunDetector()
    for step, readings in grokking(400):
        bad = Reading(step, "attn/entropy_fraction", math.nan if step % 50 else 0.5)
        detector.update([*readings, bad])
        if step % 10 == 0:
            assert json.loads(json.dumps(detector.state_dict(), allow_nan=False)) == detector.state_dict()


def test_what_was_declared_is_explained():
    detector = RunDetector(OnlineDetector(arl=10_000, burn_in=40))
    rng = np.random.default_rng(1)
    events = []
    for step in range(400):
        if step == 200:
            detector.declare(step, "new data")
        value = (0.8 if step >= 200 else 0.4) + 0.01 * rng.standard_normal()
        events += detector.update([Reading(step, "attn/entropy_fraction", value)])
    assert {e.phase for e in events} == {"scheduled"}
    assert {e.level for e in events} == {"info"}


def test_a_larger_batch_explains_what_begins_with_it_and_the_fit_of_the_training_set_stays_what_it_is():
    detector = RunDetector(OnlineDetector(arl=10_000, burn_in=40))
    rng = np.random.default_rng(2)
    events = []
    for step in range(0, 2000, 5):
        detector.notice(step, {"batch size": 256 if step >= 1000 else 64})
        noise = np.exp(0.05 * rng.standard_normal(2))
        fitted = 0.01 if step >= 1000 else 1.0
        norm = Reading(step, "opt/gradient_norm", (0.5 if step >= 1000 else 1.0) * noise[0])
        events += detector.update([norm, Reading(step, "loss/train", fitted * noise[1])])
    assert {e.phase for e in events if e.quantity == "opt/gradient_norm"} == {"scheduled"}
    assert events[0].onset >= 990
    assert "batch size from 64 to 256" in {e.details.get("reason") for e in events}
    assert "memorization" in {e.phase for e in events if e.quantity == "loss/train"}


def test_quantities_that_are_not_watched_and_single_layers_are_left_alone():
    detector = RunDetector()
    for step in range(200):
        assert detector.update([Reading(step, "attn/max_logit", float(step > 100) * 50)]) == []
        assert detector.update([Reading(step, "attn/entropy_fraction", float(step > 100), layer=0)]) == []
    assert detector.state_dict()["states"] == {}


def test_readings_that_are_not_finite_do_no_harm():
    detector = RunDetector()
    for step in range(100):
        bad = [math.nan, math.inf, -1.0, 0.0][step % 4]  # a loss below zero has no logarithm
        detector.update([Reading(step, "opt/weight_norm", bad), Reading(step, "attn/entropy_fraction", bad)])
    json.dumps(detector.state_dict(), allow_nan=False)


def test_a_run_shorter_than_the_burn_in_is_dated_at_its_end():
    detector = RunDetector()
    for step in range(36):
        assert detector.update([Reading(step, "attn/entropy_fraction", 0.9 if step < 18 else 0.3)]) == []
    (event,) = detector.finish()
    assert event.details["late"] is True
    assert event.onset == pytest.approx(18, abs=1)
