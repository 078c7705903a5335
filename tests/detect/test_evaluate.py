import math

import numpy as np
import pytest

from thermo_monitor.detect import evaluate


def test_one_alarm_finds_one_change():
    found = evaluate.match([100, 110], [105], horizon=50)
    assert len(found.hits) == 1
    assert len(found.missed) == 1
    assert evaluate.recall(found) == 0.5
    assert evaluate.precision(found) == 1.0


def test_an_alarm_before_the_onset_is_false():
    found = evaluate.match([100], [99], horizon=50)
    assert found.false == [99]
    assert evaluate.precision(found) == 0.0
    assert math.isnan(evaluate.delay(found))


def test_undefined_scores_are_nan():
    nothing = evaluate.match([], [], 10)
    assert math.isnan(evaluate.precision(nothing))
    assert math.isnan(evaluate.recall(nothing))
    assert math.isnan(evaluate.false_alarms(0, 0))
    assert math.isnan(evaluate.auroc([], [1.0]))


def test_the_greedy_pairing_is_the_largest():
    # Nearest first would pair 13 with 14 and leave one date over.
    assert evaluate.pairs([10, 14], [12, 13], margin=3) == 2
    assert evaluate.pairs([10, 12], [11], margin=5) == 1


def test_scores_of_a_perfect_and_of_an_empty_answer():
    annotations = [[30, 60], [30]]
    assert evaluate.f1([[30, 60]], [30, 60]) == 1.0
    assert evaluate.covering([[30, 60]], [30, 60], 90) == 1.0
    # Nothing found: precision 1 (the start), recall (1/3 + 1/2) / 2.
    share = (1 / 3 + 1 / 2) / 2
    assert math.isclose(evaluate.f1(annotations, []), 2 * share / (1 + share))
    assert math.isclose(evaluate.covering([[45]], [], 90), 0.5)


def test_auroc_is_a_probability_of_order():
    assert evaluate.auroc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert evaluate.auroc([1.0], [1.0]) == 0.5


def test_the_first_warning_in_reach_gives_the_lead():
    assert evaluate.lead([100, 300], [20, 60, 90, 100, 299], reach=50) == [40, 1]
    assert evaluate.lead([100], [100, 101], reach=50) == []


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    runs = np.random.default_rng(1).standard_normal(400).tolist()
    mean, low, high = evaluate.bootstrap(runs, lambda drawn: sum(drawn) / len(drawn))
    half = 1.645 * np.std(runs) / 20.0
    assert mean == sum(runs) / 400
    assert math.isclose(low, mean - half, abs_tol=0.1 * half)
    assert math.isclose(high, mean + half, abs_tol=0.1 * half)


def test_intervals_are_over_runs_and_nan_where_there_is_nothing():
    # Two runs with three changes each, all found or none: by events the interval would be far narrower.
    found = [evaluate.match([1, 11, 21], alarms, 5) for alarms in ([1, 11, 21], [])]
    assert evaluate.bootstrap(found, lambda runs: evaluate.recall(evaluate.pool(runs))) == (0.5, 0.0, 1.0)
    assert all(map(math.isnan, evaluate.bootstrap([], len)))
    nothing = [evaluate.match([10], [], 5)]
    assert all(map(math.isnan, evaluate.bootstrap(nothing, lambda runs: evaluate.delay(evaluate.pool(runs)))))
    with pytest.raises(ValueError, match="level"):
        evaluate.bootstrap([1.0], sum, level=1.0)
