import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.reference import parallel as reference
from thermo_monitor.physics import (
    conditional_entropy,
    ensemble_gap,
    jackknife_marginal_entropy,
    logit_variance,
    marginal_entropy,
    marginal_entropy_slope,
    specific_heat,
)

F64 = torch.float64


def logits(runs=6, words=9, seed=0, scale=2.0):
    return scale * torch.randn(runs, words, dtype=F64, generator=torch.Generator().manual_seed(seed))


@given(runs=st.integers(1, 12), words=st.integers(2, 20), scale=st.floats(0.1, 5), seed=st.integers(0, 99))
def test_equals_the_slow_version(runs, words, scale, seed):
    z = logits(runs, words, seed, scale)
    expected = reference.readings(z.softmax(-1).tolist())
    jackknife, error = jackknife_marginal_entropy(z)
    found = {
        "marginal": marginal_entropy(z), "conditional": conditional_entropy(z), "information": ensemble_gap(z),
        "jackknife": jackknife, "error": error,
    }  # fmt: skip
    assert {k: v.item() for k, v in found.items()} == pytest.approx(expected, abs=1e-10, nan_ok=True)
    assert 0 <= ensemble_gap(z) <= min(math.log(runs), math.log(words)) + 1e-12


def test_constructed_gaps():
    z = logits(1).expand(7, 9)
    assert_close(ensemble_gap(z).item(), 0.0, atol=1e-14, rtol=0)  # the run says nothing
    one_hot = torch.eye(7, dtype=F64).log()
    assert_close(ensemble_gap(one_hot).item(), math.log(7), atol=1e-14, rtol=0)  # the run says all
    assert conditional_entropy(one_hot).item() == 0.0
    halves = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], dtype=F64).log()
    assert_close(ensemble_gap(halves).item(), math.log(2), atol=1e-14, rtol=0)
    two = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=F64).log()
    assert [round(f(two).item(), 6) for f in (marginal_entropy, conditional_entropy, ensemble_gap)] == [
        0.562335, 0.346574, 0.215762,
    ]  # fmt: skip


def test_one_run():
    z = logits(1)
    assert ensemble_gap(z).item() == pytest.approx(0, abs=1e-15)
    assert all(x.isnan() for x in jackknife_marginal_entropy(z))
    assert_close(marginal_entropy_slope(z), specific_heat(z)[0], rtol=1e-12, atol=0)


@given(seed=st.integers(0, 200), scale=st.floats(0.2, 6))
def test_the_slope_is_a_difference_quotient(seed, scale):
    y = logits(5, 7, seed, scale)
    y[0, 3] = -math.inf
    h = 1e-5
    quotient = (marginal_entropy(y / math.exp(h)) - marginal_entropy(y / math.exp(-h))) / (2 * h)
    assert_close(marginal_entropy_slope(y), quotient, atol=1e-8, rtol=1e-7)


def test_the_bias_of_few_runs_and_what_the_jackknife_leaves():
    rng, words = np.random.default_rng(0), 50
    # E H(pbar) - H(E p) for Dirichlet(0.3): -0.147 and -0.0503 at B = 10 and 30.
    for runs, bias, left in ((10, -0.147, 0.006), (30, -0.0503, 0.0003)):
        p = torch.from_numpy(rng.dirichlet(np.full(words, 0.3), size=(1500, runs)))
        z = p.clamp(min=1e-300).log()
        raw, (jackknife, error) = marginal_entropy(z) - math.log(words), jackknife_marginal_entropy(z)
        assert raw.mean().item() == pytest.approx(bias, abs=4 * raw.std().item() / 1500**0.5 + 5e-4)
        assert abs((jackknife - math.log(words)).mean().item()) < left + 4 * jackknife.std().item() / 1500**0.5
        assert 0.9 < error.mean().item() / jackknife.std().item() < 1.6  # it errs on the large side


def test_logit_variance_leaves_out_what_is_no_state():
    y = torch.tensor([[1.0, 1.0, -1.0, -1.0, -math.inf]])
    assert logit_variance(y).item() == 1.0
    assert_close(logit_variance(logits()), logits().var(-1, correction=0).mean())


def test_shapes_and_single_precision():
    z = logits(6, 9).float().expand(2, 3, 6, 9)
    for f in (marginal_entropy, conditional_entropy, ensemble_gap, marginal_entropy_slope, logit_variance):
        assert f(z).shape == (2, 3)
        assert f(z).dtype == torch.float32
        assert_close(f(z)[0, 0].double(), f(z[0, 0].double()), rtol=1e-5, atol=1e-6)
