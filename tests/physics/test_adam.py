"""Fisher information from Adam's moments against exact expectations and against a training."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.adam import expected_moments
from thermo_monitor.physics import adam_fisher
from thermo_monitor.physics.adam import first_moment_noise


@given(
    mean=st.floats(-3, 3),
    deviation=st.floats(0.1, 5),
    examples=st.integers(1, 64),
    beta1=st.floats(0.1, 0.99),
    beta2=st.floats(0.5, 0.999),
    steps=st.integers(2, 300),
)
def test_the_noise_is_exact_in_expectation_at_every_step(mean, deviation, examples, beta1, beta2, steps):
    v, m2 = expected_moments(mean, deviation, examples, beta1, beta2, steps)
    fisher = adam_fisher(v, m2, step=steps, beta1=beta1, beta2=beta2, examples=examples)
    # v and m2 are close together at small steps: their difference has lost as many digits as they share.
    lost = examples * (mean**2 + deviation**2) / (1 - first_moment_noise(steps, beta1))
    assert fisher.noise == pytest.approx(deviation**2, rel=1e-9, abs=1e-11 * lost)
    # The squared first moment keeps some of the noise; the trace is too large by that and by no more.
    excess = first_moment_noise(steps, beta1) * deviation**2 / examples
    assert fisher.mean == pytest.approx(mean**2 + excess, rel=1e-9)


def test_the_worked_example():
    v, m2 = expected_moments(1.0, 2.0, 16, 0.9, 0.999, 20_000)
    assert (v, m2) == pytest.approx((1.25, 1.013157895), rel=1e-8)
    fisher = adam_fisher(v, m2, step=20_000, beta1=0.9, beta2=0.999, examples=16)
    assert fisher.trace == pytest.approx(5.013157895, rel=1e-8)
    assert 16 * v == pytest.approx(20)  # the shortcut, where the truth is 5


@pytest.mark.parametrize("broken", [{"step": 1}, {"step": 0}, {"beta1": 0.0}, {"examples": 0}])
def test_what_says_nothing_is_nan(broken):
    options = {"step": 100, "beta1": 0.9, "beta2": 0.999, "examples": 8} | broken
    assert math.isnan(adam_fisher(1.0, 0.5, **options).trace)
