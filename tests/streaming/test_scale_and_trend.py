import math

import numpy as np
import pytest

from thermo_monitor.streaming import scale, trend


def test_the_median_deviation_of_normal_values_is_their_standard_deviation():
    x = 3.0 * np.random.default_rng(0).standard_normal(40_000)
    # Relative standard error 1.17 / sqrt(2 n) = .004; five of them.
    assert abs(scale.mad(x) / 3.0 - 1.0) < 0.02


def test_a_third_of_outliers_does_not_break_it():
    x = np.random.default_rng(0).standard_normal(3000)
    x[::3] = 1e9
    assert scale.mad(x) < 3.0
    assert math.isnan(scale.mad(np.array([])))


def test_the_tracked_scale_is_equivariant_and_arrives():
    x = np.random.default_rng(1).standard_normal(6000)
    small, large = 1.0, 8.0
    for value in x:
        small, large = scale.track(small, value, 300.0), scale.track(large, 8.0 * value, 300.0)
    assert math.isclose(large, 8.0 * small, rel_tol=1e-12)
    # Asymptotic relative error sqrt(1.36 / (2 * 300)) = .05; four of them.
    assert abs(small - 1.0) < 0.2


@pytest.mark.parametrize("memory", [1e15, 25.0])
def test_the_line_equals_weighted_least_squares_at_every_prefix(memory):
    x = np.random.default_rng(2).standard_normal(80).cumsum()
    state = trend.init()
    for n, value in enumerate(x.tolist(), start=1):
        trend.update(state, value, memory)
        if n < 4:
            continue
        weights = (1.0 - 1.0 / memory) ** np.arange(n - 1, -1, -1.0)
        slope, height = np.polyfit(np.arange(n) - n + 1.0, x[:n], 1, w=np.sqrt(weights))
        band = trend.value(state)
        np.testing.assert_allclose([band.slope, band.ahead], [slope, height + slope], rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(band.level, np.average(x[:n], weights=weights), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(band.weight, weights.sum() ** 2 / (weights**2).sum(), rtol=1e-9)


def test_time_without_readings_moves_the_line_along_its_slope():
    state = trend.init()
    for t in range(10):
        trend.update(state, 2.0 * t, 1e12)
    trend.skip(state, 5.0)
    band = trend.value(state)
    np.testing.assert_allclose([band.ahead, band.slope], [30.0, 2.0], rtol=1e-6)
