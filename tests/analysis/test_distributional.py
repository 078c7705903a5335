import math

import numpy as np
import pytest
import torch
from scipy import stats

from tests.analysis.decoders import Decoder, sentences
from thermo_monitor.analysis.distributional import distributional_hypothesis, rank_correlation


def apart(x):
    return np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))


def test_equal_orderings_and_reversed_ones():
    d = apart(np.random.default_rng(0).normal(size=(12, 3)))
    assert rank_correlation(d, np.expm1(d)).correlation.value == pytest.approx(1.0, abs=1e-12)
    found = rank_correlation(d, 10 - d)
    assert found.correlation.value == pytest.approx(-1.0, abs=1e-12)
    assert found.correlation.high == pytest.approx(-1.0, abs=1e-12)
    assert found.by_chance < 1


def test_the_value_is_that_of_scipy():
    rng = np.random.default_rng(1)
    a, b = apart(rng.normal(size=(9, 2))), apart(rng.integers(0, 2, size=(9, 2)).astype(float))  # with ties
    above = np.triu_indices(9, 1)
    expected = stats.spearmanr(a[above], b[above]).statistic
    assert rank_correlation(a, b, resamples=10).correlation.value == pytest.approx(expected, abs=1e-12)


def test_unrelated_distances_stay_within_chance_and_related_ones_do_not():
    rng, outside, covered = np.random.default_rng(2), 0, 0
    for seed in range(20):
        x = rng.normal(size=(16, 2))
        found = rank_correlation(apart(x), apart(rng.normal(size=(16, 2))), resamples=100, seed=seed)
        outside += abs(found.correlation.value) > found.by_chance
        covered += found.correlation.low <= 0 <= found.correlation.high
    assert outside <= 4  # 1 expected
    assert covered >= 15
    near = rank_correlation(apart(x), apart(x + 0.2 * rng.normal(size=x.shape)), resamples=100)
    assert near.correlation.low > near.by_chance


def test_through_a_model():
    model, ids = Decoder(), sentences(10)
    found = distributional_hypothesis(model, torch.cat([ids, ids[:3]]), pool="last", resamples=20)
    assert [one.layer for one in found] == ["input", "blocks.0", "blocks.1"]
    assert {one.correlation.count for one in found} == {10}  # repeated prompts count once
    model.eval()
    with torch.no_grad():
        p = model(ids)[:, -1].double().softmax(-1).numpy()
        z = (model.embed(ids) + model.position)[:, -1].double().numpy()
    above = np.triu_indices(10, 1)
    arc = 2 * np.arccos((np.sqrt(p) @ np.sqrt(p).T).clip(max=1))
    assert found[0].correlation.value == pytest.approx(stats.spearmanr(apart(z)[above], arc[above]).statistic, abs=1e-9)


def test_what_has_no_correlation():
    assert math.isnan(rank_correlation(np.zeros((5, 5)), apart(np.arange(5.0)[:, None])).correlation.value)
    with pytest.raises(ValueError, match="N at least 4"):
        rank_correlation(np.zeros((3, 3)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="1 different prompts"):
        distributional_hypothesis(Decoder(), sentences(1).repeat(6, 1))
    with pytest.raises(ValueError, match="pool='max'"):
        distributional_hypothesis(Decoder(), sentences(), pool="max")
