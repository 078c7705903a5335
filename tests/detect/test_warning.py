import math

import numpy as np
import pytest

from thermo_monitor.detect import warning
from thermo_monitor.detect.synthetic import noise


def slowing_down(n, seed, last=0.98):
    """AR(1) noise whose recovery becomes slower and slower, as before a fold."""
    rng, level, out = np.random.default_rng(seed), 0.0, []
    for t in range(n + 50):
        phi = 0.2 + (last - 0.2) * max(0, t - 50) / n
        level = phi * level + rng.standard_normal()
        out.append(level)
    return np.array(out[50:])


def rate(p_values, level):
    return float(np.mean(np.array(p_values) <= level))


@pytest.mark.parametrize(
    ("n", "phi", "tail"), [(64, 0.5, "normal"), (256, 0.0, "normal"), (256, 0.9, "normal"), (256, 0.5, "t3")]
)
def test_false_positives_on_stationary_noise_are_as_rare_as_the_p_value_says(n, phi, tail):
    p = [warning.p_value(noise(n, seed, phi, tail)) for seed in range(400)]
    for level in (0.05, 0.1, 0.2):
        assert rate(p, level) <= level + 3 * math.sqrt(level * (1 - level) / 400)
    if tail == "normal":  # and not rarer: heavy tails make the test a little shy
        assert rate(p, 0.2) >= 0.2 - 3 * math.sqrt(0.16 / 400)
        assert 0.4 < rate(p, 0.5) < 0.6


def test_the_plain_recipe_is_wrong_far_more_often():
    rows = np.array([noise(256, seed, 0.9) for seed in range(200)])
    correlation, _ = warning.indicators(warning.detrended(rows))
    assert float(np.mean(warning.kendall(correlation) > 0.5)) > 0.1


def test_critical_slowing_down_is_found():
    p = [warning.p_value(slowing_down(256, seed)) for seed in range(60)]
    assert rate(p, 0.05) > 0.6
    assert float(np.median(p)) < 0.05


def test_a_spread_that_grows_without_correlation_is_not_slowing_down():
    p = [warning.p_value(noise(256, seed, 0.5) * np.linspace(1, 4, 256)) for seed in range(100)]
    assert rate(p, 0.05) < 0.25  # the correlation says no; both have to rise


def test_the_p_value_does_not_depend_on_scale_level_or_a_parabola():
    x, t = slowing_down(256, 1), np.linspace(0, 1, 256)
    assert warning.p_value(1e6 * x - 3e7) == warning.p_value(x) == warning.p_value(x + 40 * t**2 - 7 * t)


def test_indicators_agree_with_the_obvious_computation():
    rows = np.random.default_rng(0).standard_normal((3, 64))
    correlation, variance = warning.indicators(rows)
    assert correlation.shape == (3, warning.POSITIONS + 1)
    for position in (0, 5, 16):
        part = rows[1, 2 * position : 2 * position + 32]
        part = part - part.mean()
        assert variance[1, position] == pytest.approx(part.var())
        assert correlation[1, position] == pytest.approx(np.dot(part[1:], part[:-1]) / np.dot(part, part))


def test_kendall_agrees_with_the_obvious_count():
    row = np.random.default_rng(1).standard_normal(9)
    signs = [np.sign(row[j] - row[i]) for i in range(9) for j in range(i + 1, 9)]
    assert warning.kendall(row[None])[0] == pytest.approx(np.mean(signs))


@pytest.mark.parametrize("values", [np.zeros(256), np.ones(63), np.arange(128.0)])
def test_what_cannot_be_tested_has_no_p_value(values):
    assert math.isnan(warning.p_value(values))
