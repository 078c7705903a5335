import numpy as np
import pytest

from thermo_monitor.streaming import moments


def series():
    return 1e8 + np.random.default_rng(0).standard_normal(60)


def test_every_prefix_equals_numpy():
    state, x = moments.init(), series()
    for n, value in enumerate(x, start=1):
        moments.update(state, value)
        mean, variance = moments.value(state)
        # Rounding of numbers near 1e8: a few units in the last place.
        np.testing.assert_allclose(mean, x[:n].mean(), rtol=1e-15)
        if n > 1:
            np.testing.assert_allclose(variance, x[:n].var(ddof=1), rtol=1e-6)


def test_sums_of_squares_would_have_lost_the_variance():
    x = series()
    naive = (np.sum(x**2) - np.sum(x) ** 2 / x.size) / (x.size - 1)
    assert abs(naive - x.var(ddof=1)) > 0.1
    assert abs(moments.value(moments.fold(x.tolist()))[1] - x.var(ddof=1)) < 1e-6


@pytest.mark.parametrize("cut", [0, 1, 17, 59, 60])
def test_merging_parts_in_either_order_equals_the_whole(cut):
    x = series().tolist()
    whole = moments.value(moments.fold(x))
    first, second = moments.fold(x[:cut]), moments.fold(x[cut:])
    np.testing.assert_allclose(moments.value(moments.merge(first, second)), whole, rtol=1e-7)  # readings near 1e8
    np.testing.assert_allclose(moments.value(moments.merge(second, first)), whole, rtol=1e-7)  # readings near 1e8


def test_undefined_is_nan():
    assert np.isnan(moments.value(moments.init())).all()
    assert np.isnan(moments.value(moments.fold([3.0]))[1])
