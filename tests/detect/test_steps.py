import itertools
import math

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp
from scipy.stats import multivariate_t

from thermo_monitor.detect import segment, steps
from thermo_monitor.detect.synthetic import noise, sigmoid, spike

PHIS = np.array([0.0, 0.5, 0.9])


def correlation(n, phi):
    """Of AR(1) noise with innovations of unit variance."""
    return phi ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / (1.0 - phi * phi)


def reference(y, columns, phi):
    """The integrated likelihood from the full covariance, without whitening and without elimination."""
    n, k = columns.shape
    inverse = np.linalg.inv(correlation(n, phi))
    gram = columns.T @ inverse @ columns
    rest = y - columns @ np.linalg.solve(gram, columns.T @ inverse @ y)
    left = rest @ inverse @ rest
    log = 0.5 * np.linalg.slogdet(inverse)[1] - 0.5 * np.linalg.slogdet(gram)[1] + gammaln(0.5 * (n - k))
    log -= 0.5 * (n - k) * np.log(0.5 * left)
    return log - 0.5 * k * np.log(n * left / (n - k) / (1.0 - phi * phi))


@pytest.mark.parametrize("seed", range(3))
def test_the_elimination_equals_the_full_covariance(seed):
    n = 40
    basis = np.linalg.qr(np.linspace(-1, 1, n)[:, None] ** np.arange(4))[0]
    shapes = np.stack([sigmoid(n, 12), sigmoid(n, 20, 8.0), spike(n, 5, 4.0)], axis=1)
    y = noise(n, seed, 0.6) + 3.0 * shapes[:, 0] + basis @ [9.0, -5.0, 2.0, 1.0]
    plain, shaped, _ = steps.likelihoods(y, basis, shapes, PHIS)
    for j in range(4):
        each = [reference(y, basis[:, : j + 1], phi) for phi in PHIS]
        assert plain[j] == pytest.approx(logsumexp(each) - math.log(3), abs=1e-8)
        for s in range(3):
            # A shape is not scaled to unit length, and its prior is as wide as a deviation, not sqrt(n) of them.
            columns = np.column_stack([basis[:, : j + 1], shapes[:, s]])
            each = [reference(y, columns, phi) + 0.5 * math.log(n) for phi in PHIS]
            assert shaped[j, s] == pytest.approx(logsumexp(each) - math.log(3), abs=1e-8)


def test_rows_that_are_left_out_do_not_matter():
    n = 60
    basis = np.linalg.qr(np.linspace(-1, 1, n)[:, None] ** np.arange(3))[0]
    shapes = np.zeros((n, 0))
    y, other = noise(n, 1), noise(n, 1)
    other[-1] += 1e3
    keep = np.arange(n) < n - 1
    first, second = (steps.likelihoods(values, basis, shapes, PHIS, keep)[0] for values in (y, other))
    np.testing.assert_allclose(first, second, rtol=1e-12)
    assert steps.likelihoods(other, basis, shapes, PHIS)[0][0] < first[0] - 50.0


def test_a_level_alone_has_the_likelihood_of_a_t_distribution():
    # With phi known and the level at a fixed value, integrating the size of the noise out leaves a multivariate t up to
    # its degrees of freedom; the ratio of two series tells, as constants cancel.
    n, phi = 12, 0.5
    basis = np.full((n, 1), n**-0.5)
    a, b = noise(n, 3, phi), 1.7 * noise(n, 4, phi)
    ones = np.eye(n)[:, 1:] - np.eye(n)[:, :-1]  # contrasts, which a level does not touch
    law = multivariate_t(np.zeros(n - 1), ones.T @ correlation(n, phi) @ ones, df=1)
    # The density of the contrasts with the prior 1 / sigma is proportional to (x' S^-1 x)^(-(n - 1) / 2).
    form = [x @ np.linalg.solve(law.shape, x) for x in (ones.T @ a, ones.T @ b)]
    expected = -0.5 * (n - 1) * (math.log(form[0]) - math.log(form[1]))
    expected -= 0.5 * (math.log(form[0]) - math.log(form[1]))  # the prior of the level is as wide as the noise
    found = [steps.likelihoods(x, basis, np.zeros((n, 0)), np.array([phi]))[0][0] for x in (a, b)]
    assert found[0] - found[1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("n", [600, 1000])
def test_middling_series_without_a_change_have_none_and_a_transition_on_a_decay_is_found(n):
    t = np.arange(n)
    curves = [40.0 * (t + 50.0) ** -0.3, 20.0 * np.exp(-8.0 * t / n), 6.0 * t / n]
    quiet = [segment(c + noise(n, s, 0.9)) for c, s in itertools.product(curves, range(4))]
    assert sum(map(len, quiet)) <= 1
    moved = [segment(curves[0] + noise(n, s, 0.9) - 8.0 * sigmoid(n, n // 2, n // 30)) for s in range(6)]
    assert sum(len(cuts) == 1 and abs(cuts[0] - n // 2) < n // 30 for cuts in moved) >= 5


def test_an_excursion_is_no_step_and_a_step_no_excursion():
    n, phis = 400, np.array([0.0, 0.5])
    thrown, stays = 8.0 * spike(n, 200, 30.0), 8.0 * sigmoid(n, 200)
    odds = [steps.log_odds((noise(n, 2, 0.3) + x)[:, None], 200, phis) for x in (thrown, stays)]
    assert odds[0] < 0.0 < odds[1]


def test_a_series_too_short_for_any_model_has_no_step():
    assert steps.log_odds(np.arange(6.0)[:, None], 3, PHIS) == -math.inf
