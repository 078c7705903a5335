import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from thermo_monitor.physics import information_gain, information_gains, information_gains_from_gram

F64 = torch.float64


def by_kernel(z, x, sigma):
    """The definition: variance of a Gaussian process at x, linear kernel."""
    k = z @ x
    s2 = x @ x - k @ torch.linalg.solve(z @ z.T + sigma**2 * torch.eye(len(z), dtype=F64), k)
    return math.log1p(s2.item() / sigma**2) / 2


@pytest.mark.parametrize(("x", "gain"), [((1.0, 1.0, 1.0), math.log(3) / 2), ((1.0, 1.0, 0.0), math.log(2) / 2)])
def test_vectors_of_two_axes(x, gain):
    z, x = torch.eye(3, dtype=F64)[:2], torch.tensor(x, dtype=F64)
    assert information_gain(z, x, 1.0).item() == pytest.approx(gain, rel=1e-14)
    assert information_gains(torch.cat([z, x[None]]), 1.0)[2].item() == pytest.approx(gain, rel=1e-14)


def test_in_the_span_only_the_coefficients_are_left():
    z, a = torch.randn(4, 9, dtype=F64), torch.randn(4, dtype=F64)
    assert information_gain(z, z.T @ a, 1e-5).item() == pytest.approx(math.log1p(a @ a) / 2, rel=1e-6)


@given(n=st.integers(1, 40), d=st.integers(1, 40), sigma=st.sampled_from([0.01, 0.1, 1.0]), seed=st.integers(0, 999))
def test_log_determinant_form_equals_ridge_form(n, d, sigma, seed):
    z = torch.randn(n, d, dtype=F64, generator=torch.Generator().manual_seed(seed))
    z = z / z.norm(dim=-1, keepdim=True)
    together = information_gains(z, sigma)
    one_by_one = torch.stack([information_gain(z[:t], z[t], sigma) for t in range(n)])
    assert_close(together, one_by_one, rtol=1e-12, atol=1e-12)
    identity = torch.eye(n, dtype=F64)
    total = torch.linalg.slogdet(identity + z @ z.T / sigma**2).logabsdet / 2
    assert_close(together.sum(), total, rtol=1e-11, atol=1e-11)
    # The Gram matrix holds the squares, so 1e-16 / sigma^2 of each is lost.
    assert_close(information_gains_from_gram(z @ z.T, sigma), together, rtol=0, atol=1e-13 / sigma**2)
    if n > 1:
        assert together[-1].item() == pytest.approx(by_kernel(z[:-1], z[-1], sigma), abs=1e-13 / sigma**2)


def test_more_knowledge_and_more_noise_leave_less_to_gain():
    z, x = torch.randn(6, 8, dtype=F64), torch.randn(8, dtype=F64)
    gains = [information_gain(z[:n], x).item() for n in range(7)]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] == pytest.approx(math.log1p((x @ x).item() / 1e-4) / 2)
    assert information_gain(z, x, 1.0) < information_gain(z, x, 0.1)


def test_order_changes_the_gains_and_not_their_sum():
    z = torch.randn(10, 4, dtype=F64)
    assert_close(information_gains(z).sum(), information_gains(z.flip(0)).sum(), rtol=1e-12, atol=0)


def test_batches_and_bad_input():
    z = torch.randn(3, 7, 5, dtype=F64)
    assert_close(information_gains(z), torch.stack([information_gains(one) for one in z]))
    assert_close(information_gain(z[:, :-1], z[:, -1]), information_gains(z)[:, -1], rtol=1e-12, atol=1e-12)
    z[1, 2, 3] = math.nan
    gains = information_gains(z)
    assert gains[1].isnan().all()
    assert gains[[0, 2]].isfinite().all()
    assert information_gain(z[:, :-1], z[:, -1]).isnan().tolist() == [False, True, False]
    assert information_gains_from_gram(torch.full((2, 2), math.inf)).isnan().all()
    assert information_gains_from_gram(-torch.eye(2)).isnan().all()
    assert information_gains(torch.zeros(4, 3)).tolist() == [0.0] * 4
    assert information_gains(torch.randn(1, 3, dtype=torch.bfloat16)).dtype == F64
    with pytest.raises(ValueError, match="sigma=0"):
        information_gains(z, 0.0)
