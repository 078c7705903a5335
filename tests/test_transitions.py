"""The transitions benchmark: truth by written rules, recordings that replay the live run, scores that can fail."""

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from thermo_monitor.demo.show import MEASURED
from thermo_monitor.records import Event

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from transitions import (
    announcers,
    follow,
    generate,
    intervals,
    matching,
    ranking,
    recording,
    rule,
    run,
    show,
    suite,
    tables,
    truth,
)
from transitions.problem import Recipe
from transitions.record import OPTIONS, record
from transitions.tasks import induction, markov, parity, regression
from transitions.tasks.table import arithmetic, modular, permutations, split

STEPS = np.arange(0, 1000, 10)


def sigmoid(middle, width, steps=STEPS, top=1.0):
    return top / (1 + np.exp(-(steps - middle) / width))


def recorded(loss=None, **orders):
    loss = np.full(1000, 1.0) if loss is None else loss
    updates = [(step, {"loss/train": float(value)}) for step, value in enumerate(loss)]
    return recording.Recording(updates, [], {name: (STEPS, values) for name, values in orders.items()})


def recipe(**changes):
    return dataclasses.replace(Recipe("x", lambda seed: None, 1000), **changes)


def phases(found):
    return [(c.phase, c.rule) for c in found.changes]


def test_a_rise_of_the_training_set_alone_is_memorization_and_a_later_one_of_the_rest_generalization():
    found = truth.truth(recipe(), recorded(train=sigmoid(100, 5), held_out=sigmoid(600, 20)))
    assert found.outcome == "generalizes"
    assert phases(found) == [("memorization", "rise"), ("generalization", "rise")]
    change = found.rise("generalization")
    assert change.begin == pytest.approx(600 - 20 * math.log(9), abs=10)
    assert change.end == pytest.approx(600 + 20 * math.log(9), abs=10)
    assert change.half == 600
    width = change.end - change.begin
    assert (change.low, change.high) == (change.begin - width, change.end + width)


def test_both_at_once_is_generalization_and_neither_is_never():
    both = truth.truth(recipe(), recorded(train=sigmoid(100, 5), held_out=sigmoid(105, 5)))
    assert phases(both) == [("generalization", "rise")]
    alone = truth.truth(recipe(), recorded(train=sigmoid(100, 5), held_out=np.zeros(100)))
    assert (alone.outcome, phases(alone)) == ("never", [("memorization", "rise")])
    half = truth.truth(recipe(), recorded(train=sigmoid(100, 5), held_out=sigmoid(600, 20, top=0.6)))
    assert half.outcome == "partial"
    assert ("generalization", "climb") in phases(half)


def test_a_slow_climb_is_no_transition_and_a_height_that_does_not_last_neither():
    slow = truth.truth(recipe(), recorded(held_out=STEPS / 900))
    assert ("generalization", "rise") not in phases(slow)
    language = truth.truth(recipe(smooth=True), recorded(held_out=sigmoid(100, 5)))
    assert (language.outcome, phases(language)) == ("smooth", [("generalization", "start")])
    assert not language.changes[0].counted
    brief = np.zeros(100)
    brief[50:52] = 1.0
    assert truth.rise((STEPS, brief)) is None


def test_a_loss_that_is_thrown_up_tenfold_is_listed_until_it_is_back():
    loss = np.full(1000, 0.01)
    loss[500:530] = 1.0
    found = truth.truth(recipe(), recorded(loss))
    (change,) = found.changes
    assert (change.phase, change.begin, change.end) == ("instability", 500, 530)
    loss[500:530] = 0.09
    assert not truth.truth(recipe(), recorded(loss)).changes


def test_what_was_planned_is_listed_and_so_is_a_fall():
    held_out = np.where((STEPS > 500) & (STEPS < 700), 0.2, 1.0)
    found = truth.truth(recipe(declared=(300,), disturbed=((800, 810),)), recorded(held_out=held_out))
    assert {c.rule for c in found.changes} >= {"declared", "disturbed", "fall"}


def event(onset, step, phase="generalization", **changes):
    return Event("shift", step, onset, "down", "repr/spectral_entropy", 12.0, phase=phase, **changes)


def test_events_are_right_early_or_false():
    found = truth.truth(recipe(), recorded(train=sigmoid(100, 5), held_out=sigmoid(600, 20)))
    early, late = event(400, 450), event(610, 640)
    out = matching.match(found, [event(95, 120, "memorization"), early, late])
    assert [e.step for _, e in out.found] == [120, 640]
    assert (out.precursors, out.false) == ([early], [])
    assert (out.announced, out.half) == (450, 600)
    stray = event(850, 900, "reorganization")
    assert matching.match(found, [stray]).false == [stray]
    assert [e for _, e in matching.match(found, [stray]).found] == [None, None]


def test_one_event_finds_one_change():
    found = truth.truth(recipe(), recorded(train=sigmoid(60, 5), held_out=sigmoid(300, 60)))
    fit = event(55, 80, "memorization")
    assert found.rise("generalization").low < 55  # its wide window has the memorization in it
    assert [e is not None for _, e in matching.match(found, [fit]).found] == [True, False]
    assert [e for _, e in matching.match(found, [fit, event(280, 330, "reorganization")]).found][1].step == 330


def test_a_generalization_that_never_comes_is_wrong_and_quiet_events_are_nobodys():
    found = truth.truth(recipe(), recorded(train=sigmoid(100, 5), held_out=np.zeros(100)))
    out = matching.match(found, [event(400, 450)])
    assert len(out.wrong) == len(out.false) == 1
    quiet = [event(400, 450, level="info"), event(400, 450, details={"part_of": "run:0"})]
    assert matching.match(found, quiet).told == 0


def test_a_declared_change_has_to_be_called_scheduled():
    found = truth.truth(recipe(declared=(300,)), recorded())
    out = matching.match(found, [event(305, 400, "scheduled", level="info"), event(310, 400, "instability")])
    assert out.scheduled == [True]
    assert matching.match(found, [event(310, 400, "instability")]).scheduled == [False]
    assert matching.match(found, []).scheduled == []
    assert out.false == []


@pytest.fixture(scope="module")
def short():
    return record(Recipe("x", modular("add", 5, 0.8), 260, weight_decay=1.0), 0)


def test_a_replay_of_the_file_is_the_live_run_again(short, tmp_path):
    live, events = short
    live.save(tmp_path / "x.npz")
    again = recording.Recording.load(tmp_path / "x.npz")
    assert again.updates == live.updates
    assert again.notices == live.notices
    replayed = recording.replay(again, OPTIONS)
    assert len(replayed) == len(events) > 0
    for old, new in zip(events, replayed, strict=True):
        old = dataclasses.replace(Event.from_json(old), wall=0.0)
        assert old.to_json() == dataclasses.replace(new, wall=0.0).to_json()
    steps, values = again.curve("attn/specific_heat_pooled")
    assert len(steps) == 52
    assert np.isfinite(values).all()


def test_the_held_out_side_has_no_mirror_image_in_training():
    table = arithmetic("add", 11)
    tokens, answers, trained = split(table, 0.6, 3)
    pairs = {tuple(sorted(row)) for row in tokens[trained][:, :2].tolist()}
    assert not pairs & {tuple(sorted(row)) for row in tokens[~trained][:, :2].tolist()}
    assert (answers == (tokens[:, 0] + tokens[:, 1]) % 11).all()


def test_tables_are_those_of_their_operations():
    a, b, quotient, p = arithmetic("divide", 7)
    assert ((quotient * b) % p == a).all()
    a, b, product, size = permutations(3)
    assert size == 6
    table = np.zeros((6, 6), int)
    table[a, b] = product
    assert all(sorted(row) == list(range(6)) for row in [*table, *table.T])
    assert not (table == table.T).all()  # S3 does not commute


@pytest.mark.parametrize("make", [parity.problem, induction.problem, regression.problem, markov.problem])
def test_problems_begin_without_knowing_anything_and_give_a_loss(make):
    problem = make(0)
    inputs, targets = problem.batch(0)
    loss = problem.loss(problem.model(inputs), targets)
    assert math.isfinite(loss.item())
    assert abs(problem.orders(problem.model)["held_out"]) < 0.3


def test_every_control_of_a_task_is_in_the_table_and_there_are_enough():
    tasks = {r.name for r in suite.RECIPES if not r.control}
    controls = [r for r in suite.RECIPES if r.control]
    assert len(tasks) >= 12
    assert len(controls) >= 8
    assert {r.control_of for r in controls} - {None} <= tasks
    assert len({r.name for r in suite.RECIPES}) == len(suite.RECIPES)


def test_intervals_are_those_of_the_textbooks():
    assert intervals.share(10, 10) == pytest.approx((1.0, 0.6915, 1.0), abs=1e-4)
    assert intervals.rate(0, 2.0) == pytest.approx((0.0, 0.0, 3.6889 / 2), abs=1e-4)
    middle, low, high = intervals.bootstrap(list(range(101)))
    assert low < middle == 50 < high


def readings(length=800, **series):
    updates = [(step, {"loss/train": 4.0 * 0.9**step + 0.01}) for step in range(length)]
    for key, values in series.items():
        for step in range(0, length, 5):
            updates[step][1][key.replace("__", "/")] = float(values[step])
    return recording.Recording(updates)


def test_announcers_speak_when_their_rule_says_so():
    steps = np.arange(800)
    noise = 0.01 * np.random.default_rng(0).standard_normal(800)
    made = readings(repr__spectral_entropy=0.7 - 0.2 * (steps >= 500) + noise)
    fitted = announcers.fitted(made)
    assert 20 < fitted < 40  # 4 * .9^k + .01 is at a tenth of where it began
    curve = announcers.since(announcers.course(made, "repr/spectral_entropy"))
    assert curve[0][0] >= fitted
    assert announcers.threshold(curve, 0.1, 1.0) == []
    (said,) = announcers.threshold(curve, 0.1, -1.0)
    assert 500 < said <= 530
    assert announcers.entropy_below(made)[0] == 510
    assert any(500 <= step < 510 for step in announcers.deviations(made, "repr/spectral_entropy"))
    assert announcers.page_hinkley(made, "repr/spectral_entropy")[0] >= 500
    assert announcers.fitted(recorded()) is None
    assert announcers.crossings(np.arange(8), np.array([1, 1, 0, 1, 1, 1, 1, 0], bool)) == [5]


def test_a_threshold_is_learned_that_tells_runs_apart_and_infinite_where_none_does():
    steps = np.arange(0, 100, 5)
    falls, stays = (steps, -steps / 100.0), (steps, -steps / 1000.0)
    limit, sign = announcers.learn([falls, falls, stays], [60.0, 80.0, math.nan])
    assert sign == -1.0
    assert 0.095 < limit < 0.55
    assert announcers.threshold(falls, limit, sign)
    assert not announcers.threshold(stays, limit, sign)
    assert announcers.learn([falls, falls], [80.0, math.nan])[0] == math.inf


def test_scores_along_a_replay_change_no_event(short):
    live, events = short
    followed = follow.follow(live, OPTIONS, 5)
    assert [e.step for e in followed.events] == [Event.from_json(e).step for e in events]
    steps, values = followed.scores["detect/score"]
    assert len(steps) == 52
    assert np.nanmax(values) <= 1.0


def test_the_ranking_learns_its_sign_on_development_seeds_alone():
    samples = [
        ranking.Sample(generalizes, development, {"a": -1.0 if generalizes else 1.0, "b": 0.0})
        for generalizes in (True, False)
        for development in (True, False)
    ]
    rows = {name: (dev, reported) for name, dev, reported, *_ in ranking.table(samples)}
    assert rows == {"a": (1.0, 1.0), "b": (0.5, 0.5)}


def test_logits_that_are_a_function_of_the_rule_are_explained_in_full_and_a_table_in_part():
    _, _, answers, p = arithmetic("add", 11)
    offset = (torch.arange(p)[None] - answers[:, None]) % p
    found = torch.cos(2 * math.pi * offset / p)  # as a network that adds has them
    assert rule.explained(found, answers) == pytest.approx(1.0)
    noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    by_heart = 3.0 * (offset == 0) + noise
    # Variance of the right class: 9 (1/p - 1/p^2) against 1 of the rest, which no function of the offset explains.
    signal = 9.0 * (1 / p - 1 / p**2)
    assert rule.explained(by_heart, answers) == pytest.approx(signal / (signal + 1 - 1 / p), abs=0.05)
    assert abs(rule.explained(noise, answers)) < 0.02


RESULTS = json.loads((Path(suite.__file__).parent.parent / "results" / "transitions.json").read_text())


@pytest.mark.parametrize("name", ["add 31", "compose S4, perceptron", "batch size"])
def test_a_committed_recording_scores_to_the_committed_figures(name):
    kept = next(row for row in RESULTS["each"] if row["run"] == name)
    recipe = next(r for r in suite.RECIPES if r.name == name)
    loaded = run.load(recipe, kept["seed"], generate.FOLDER)
    digest = show.plain(tables.digest(loaded))
    assert digest == kept
    written = generate.path(generate.FOLDER, name, kept["seed"]).with_suffix(".json").read_text()
    assert json.loads(written) == json.loads(json.dumps(dataclasses.asdict(loaded.truth)))


def test_what_the_demo_says_of_the_detector_is_what_was_measured():
    arm = RESULTS["arms"]["all runs"]
    numbers = {row["what"]: row for row in arm["headline"]}
    right = numbers["told events that match something that happened"]["value"]
    found = numbers["generalization found"]["value"]
    announced = numbers["grokking runs announced before half of the held-out answers are right"]["value"]
    alarms = numbers["false alarms of the controls, in 100,000 steps"]
    for text in (
        f"{arm['runs']} small runs",
        f"{100 * right:.0f} % of what is told",
        f"{100 * found:.0f} % of the generalizations",
        f"{100 * announced:.0f} % of the runs that grok",
        f"{alarms['value']:.1f} false alarms in 100,000 steps of controls",
        f"({alarms['low']:.1f} to {alarms['high']:.1f};",
    ):
        assert text in MEASURED


def test_every_reported_run_is_in_the_figures():
    reported = {(r.name, seed) for r in suite.RECIPES for seed in suite.SEEDS if not suite.development(seed)}
    assert {(row["run"], row["seed"]) for row in RESULTS["each"]} == reported


def test_the_interval_of_an_area_holds_it_and_narrows_to_a_point_where_runs_part_entirely():
    low, high = ranking.spread([1.0, 2.0, 3.0, 4.0], [0.5, 1.5, 2.5, 3.5])
    assert 0.0 <= low < 0.625 < high <= 1.0
    assert ranking.spread([2.0, 3.0], [0.0, 1.0]) == (1.0, 1.0)
