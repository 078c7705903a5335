import math
from itertools import pairwise

import numpy as np
import pytest

from thermo_monitor.streaming import autoregression


def ar1(phi, n, seed=0):
    out, level = np.empty(n), 0.0
    for i, e in enumerate(np.random.default_rng(seed).standard_normal(n)):
        out[i] = level = phi * level + e
    return out


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_both_estimates_find_the_coefficient(phi):
    x = ar1(phi, 20_000)
    # Standard errors are sqrt((1 - phi^2) / n) <= .007 and about three times that; five of them, and the clipping.
    assert abs(autoregression.lag_one(x) - phi) < 0.045
    assert abs(autoregression.from_differences(x) - phi) < 0.1


def test_only_differences_survive_a_shift():
    x = ar1(0.5, 4000) + 8.0 * (np.arange(4000) >= 2000)
    assert abs(autoregression.from_differences(x) - 0.5) < 0.1
    assert autoregression.lag_one(x - x.mean()) > 0.8


def test_streaming_sums_equal_the_batch_estimate():
    x = ar1(0.7, 500)
    state = autoregression.init(0.0, 0.0, 0.0)
    for before, now in pairwise(x.tolist()):
        autoregression.update(state, before, now, 1e9)
    assert math.isclose(autoregression.value(state), np.dot(x[:-1], x[1:]) / np.dot(x[:-1], x[:-1]), rel_tol=1e-12)


def test_caution_fades_with_the_number_of_readings():
    assert (
        autoregression.cautious(0.5, 50) > autoregression.cautious(0.5, 500) > autoregression.cautious(0.5, 5e6) > 0.5
    )
    assert autoregression.cautious(0.99, 20) == autoregression.LARGEST


def test_nothing_to_estimate_is_no_correlation():
    for empty in ([], [1.0], [2.0, 2.0, 2.0, 2.0, 2.0]):
        assert autoregression.lag_one(np.array(empty)) in (0.0, autoregression.LARGEST)
        assert autoregression.from_differences(np.array(empty)) == 0.0
