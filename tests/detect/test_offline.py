import itertools
import math

import numpy as np
import pytest

from thermo_monitor.detect import offline, segment
from thermo_monitor.detect.bocpd import most_probable
from thermo_monitor.detect.synthetic import noise, sigmoid, spike
from thermo_monitor.detect.voting import vote


def cost(y, cuts):
    edges = [0, *cuts, len(y)]
    return sum(((y[a:b] - y[a:b].mean(axis=0)) ** 2).sum() for a, b in itertools.pairwise(edges))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("penalty", [0.5, 2.0, 6.0])
def test_least_squares_equals_trying_every_segmentation(seed, penalty):
    n = 11
    y = np.random.default_rng(seed).standard_normal((n, 1)) + 3.0 * (np.arange(n) >= 6)[:, None]
    every = (
        cuts
        for size in range(5)
        for cuts in itertools.combinations(range(2, n - 1), size)
        if all(b - a >= 2 for a, b in itertools.pairwise([0, *cuts, n]))
    )
    best = min(cost(y, cuts) + penalty * len(cuts) for cuts in every)
    found = offline.least_squares(y, penalty)
    assert cost(y, found) + penalty * len(found) == pytest.approx(best, rel=1e-9)


def log_evidence(x):
    """Marginal likelihood of one segment under the normal-inverse-gamma prior (0, 1, 1, 1), by its closed form."""
    n = len(x)
    k, a = 1.0 + n, 1.0 + n / 2.0
    b = 1.0 + 0.5 * ((x - x.mean()) ** 2).sum() + 0.5 * n * x.mean() ** 2 / k
    return math.lgamma(a) - math.lgamma(1.0) - a * math.log(b) - 0.5 * math.log(k) - 0.5 * n * math.log(2.0 * math.pi)


@pytest.mark.parametrize("seed", range(6))
def test_the_bayesian_path_equals_enumeration(seed):
    n, hazard = 10, 0.2
    levels = np.repeat([0.0, 9.0, -9.0], [2 + seed % 3, 4, 4 - seed % 3])
    x = 0.3 * np.random.default_rng(seed).standard_normal(n) + levels

    def score(cuts):
        edges = [0, *cuts, n]
        evidence = sum(log_evidence(x[a:b]) for a, b in itertools.pairwise(edges))
        return evidence + len(cuts) * math.log(hazard) + (n - 1 - len(cuts)) * math.log(1.0 - hazard)

    every = [cuts for size in range(n) for cuts in itertools.combinations(range(1, n), size)]
    found = most_probable(x[:, None], hazard)
    assert found == list(max(every, key=score))
    assert len(found) == 2


def test_the_vote_takes_each_proposal_once():
    (change,) = vote({"a": [50], "b": [48, 52], "c": [51]}, needed=2)
    assert change.votes == ("a", "b", "c")
    assert (change.low, change.index, change.high) == (50, 51, 52)
    assert vote({"a": [10], "b": [20]}, needed=2) == []


@pytest.mark.parametrize("n", [300, 3000, 30_000])
def test_steps_are_found_and_dated(n):
    x = noise(n, 1) + 3.0 * sigmoid(n, n // 3) - 2.0 * sigmoid(n, n // 2)
    found = segment(x)
    assert len(found) == 2
    assert np.abs(np.array(found) - [n // 3, n // 2]).max() <= 3
    assert all(type(t) is int for t in found)


@pytest.mark.parametrize(
    ("name", "curve"),
    [
        ("independent", lambda n, s: noise(n, s)),
        ("correlated", lambda n, s: noise(n, s, phi=0.9)),
        ("heavy tails", lambda n, s: noise(n, s, tail="t3")),
        ("exponential decay", lambda n, s: noise(n, s, 0.9, "t3") + 20.0 * np.exp(-np.arange(n) * 8.0 / n)),
        ("power decay", lambda n, s: noise(n, s, 0.9, "t3") + 40.0 * (np.arange(n) + 50.0) ** -0.3),
        ("spikes", lambda n, s: noise(n, s, 0.9) + sum(30.0 * spike(n, at, 4.0) for at in range(300, n, 500))),
    ],
)
def test_a_long_series_without_a_change_has_at_most_one_in_ten_thousand(name, curve):
    found = [segment(curve(4000, seed)) for seed in range(5)]
    assert sum(map(len, found)) <= 2, name


@pytest.mark.parametrize("n", [300, 900, 3000, 20_000])
@pytest.mark.parametrize("size", [20.0, 1e6])
@pytest.mark.parametrize("curve", [lambda t: np.exp(-8.0 * t), lambda t: (1.0 + 50.0 * t) ** -0.5, lambda t: -t])
def test_a_decay_in_little_noise_is_not_a_staircase(curve, size, n):
    x = size * curve(np.arange(n) / n) + noise(n, 7)
    assert segment(x) == []
    assert segment(x - noise(n, 7)) == []  # none at all


@pytest.mark.parametrize("n", [1000, 4000])
def test_what_is_thrown_up_and_comes_back_slowly_is_no_change(n):
    x = [noise(n, s, 0.5) + sum(12.0 * spike(n, at, 40.0) for at in range(300 + 9 * s, n, 800)) for s in range(6)]
    assert sum(len(segment(values)) for values in x) <= (3 if n > 1000 else 1)  # one in 10,000 readings


@pytest.mark.parametrize(("n", "phi", "tail"), [(300, 0.9, "normal"), (300, 0.9, "t3"), (900, 0.97, "normal")])
def test_a_short_series_of_correlated_noise_has_no_changes(n, phi, tail):
    assert sum(len(segment(noise(n, seed, phi, tail))) for seed in range(8)) <= 1


def test_a_large_transition_on_a_steep_decay_is_found():
    for n in (300, 900, 3000):
        x = 100.0 * np.exp(-np.arange(n) * 8.0 / n) + noise(n, 2) - 30.0 * sigmoid(n, 6 * n // 10, n // 30)
        (found,) = segment(x)
        assert abs(found - 6 * n // 10) <= n // 30


def test_a_transition_on_a_decay_is_not_lost_among_its_steps():
    n = 6000
    x = noise(n, 3, 0.9, "t3") + 40.0 * (np.arange(n) + 50.0) ** -0.3 - 5.0 * sigmoid(n, 3500, 100)
    (found,) = segment(x)
    assert abs(found - 3500) < 60


@pytest.mark.parametrize("n", [300, 3000])
def test_missing_readings_keep_the_dates(n):
    x = noise(n, 4) + 4.0 * sigmoid(n, n // 2)
    x[10:40] = np.nan
    x[n // 2 + 20] = np.inf
    (found,) = segment(x)
    assert abs(found - n // 2) <= 2


@pytest.mark.parametrize("n", [300, 3000])
def test_columns_that_change_together_are_found_together(n):
    x = np.stack([noise(n, seed) for seed in range(4)], axis=1)
    x[n // 2 :] += 1.2
    (found,) = segment(x)
    assert abs(found - n // 2) <= 6


@pytest.mark.parametrize("n", [300, 3000])
def test_scale_shift_and_sign_change_nothing(n):
    x = noise(n, 5) + 4.0 * sigmoid(n, n // 2)
    found = segment(x)
    assert found
    for other in (-x, 2.0**-40 * x, 2.0**40 * x, x + 100.0):
        assert segment(other) == found


@pytest.mark.parametrize("n", [300, 5000])
def test_confidence_names_the_voters_and_an_interval(n):
    (change,) = segment(noise(n, 6) + 4.0 * sigmoid(n, n // 2), confidence=True)
    assert change.low <= change.index <= change.high
    assert change.high - change.low <= 10
    assert {"binary", "kernel", "seeded"} <= set(change.votes)


@pytest.mark.parametrize(
    "values",
    [
        [],
        [1.0],
        [1.0, 2.0],
        [1.0] * 50,
        [1.0] * 3000,
        [math.nan] * 50,
        [1e308, -1e308] * 20,
        [0.0] * 1200 + [5e-324] * 10,
        np.zeros((20, 0)),
        np.full((30, 2), math.nan),
    ],
)
def test_series_with_nothing_to_find(values):
    assert segment(np.asarray(values, dtype=float)) == []


def test_integers_are_welcome():
    assert segment(np.repeat([0, 9], 40)) == [40]


def test_a_cube_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\)"):
        segment(np.zeros((2, 2, 2)))


def test_levels_that_a_random_walk_explains_as_well_stand_in_doubt_and_a_jump_out_of_it_does_not():
    walks = [np.cumsum(noise(200, seed)) for seed in range(8)]
    levels = [change for x in walks for change in segment(x, confidence=True)]
    assert len(levels) >= 3
    assert all("random walk" in change.doubt for change in levels)
    (change,) = segment(noise(300, 0, 0.9) + 12.0 * sigmoid(300, 200), confidence=True)
    assert (change.index, change.doubt) == (pytest.approx(200, abs=2), "")


def test_a_short_spike_is_no_pair_of_changes():
    x = [noise(300, s, 0.9) + 25.0 * spike(300, 120 + 9 * s, 3.0) for s in range(8)]
    assert sum(len(segment(values)) for values in x) <= 1


@pytest.mark.parametrize(("seed", "middle"), [(4, 1265), (5, 1284)])
def test_a_step_of_one_deviation_in_many_readings_is_not_taken_for_a_curve(seed, middle):
    values = noise(2000, seed) - (np.arange(2000) >= middle)
    assert segment(values) == [pytest.approx(middle, abs=25)]
