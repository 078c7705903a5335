import math

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
