import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from torch.testing import assert_close

from thermo_monitor.physics import covariance_distances as distances
from thermo_monitor.physics.covariance_distances import DISTANCES, sentence_distances

F64 = torch.float64
A, B = torch.tensor([1.0, 4.0], dtype=F64).diag(), torch.tensor([4.0, 1.0], dtype=F64).diag()


def all_of(a, b, ridge=0.0):
    return {
        name: getattr(distances, name)(a, b, *([ridge] if name in ("affine_invariant", "stein") else []))
        for name in DISTANCES
    }


def by_scipy(a, b):
    """Through dense matrix functions."""
    a, b = a.numpy(), b.numpy()
    root = linalg.sqrtm(a)
    entropy = lambda x: -sum(v * math.log(v) for v in linalg.eigvalsh(x) if v > 1e-300)  # noqa: E731
    p, q = a / a.trace(), b / b.trace()
    inverse = linalg.inv(root)
    return {
        "frobenius": linalg.norm(a - b),
        "bures": a.trace() + b.trace() - 2 * linalg.sqrtm(root @ b @ root).trace().real,
        "affine_invariant": linalg.norm(linalg.logm(inverse @ b @ inverse)),
        "stein": math.log(linalg.det((a + b) / 2)) - math.log(linalg.det(a @ b)) / 2,
        "jensen_shannon": entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2,
    }


def test_the_vectors():
    h = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    exact = {
        "frobenius": math.sqrt(18),
        "bures": 2.0,
        "affine_invariant": math.sqrt(2) * math.log(4),
        "stein": 2 * math.log(2.5) - math.log(4),
        "jensen_shannon": math.log(2) - h,
    }
    printed = dict(zip(DISTANCES, (4.242641, 2, 1.960516, 0.446287, 0.192745), strict=True))
    for name, value in all_of(A, B).items():
        assert value.item() == pytest.approx(exact[name], abs=1e-12), name
        assert value.item() == pytest.approx(printed[name], abs=6e-7), name


def random_covariance(d, n, seed):
    z = np.random.default_rng(seed).normal(size=(n, d))
    return torch.from_numpy(z.T @ z / n)


@given(d=st.integers(1, 8), seed=st.integers(0, 999))
def test_equal_the_matrix_functions_of_scipy(d, seed):
    a, b = random_covariance(d, 3 * d + 2, seed), random_covariance(d, 3 * d + 2, seed + 1000)
    for name, value in all_of(a, b).items():
        assert value.item() == pytest.approx(by_scipy(a, b)[name], rel=1e-8, abs=1e-10), name


@given(d=st.integers(2, 8), seed=st.integers(0, 999))
def test_zero_for_equal_ones_symmetric_and_blind_to_rotation(d, seed):
    a, b = random_covariance(d, 2 * d, seed), random_covariance(d, 2 * d, seed + 1000)
    q = torch.linalg.qr(random_covariance(d, d, seed + 2000)).Q
    forward, back = all_of(a, b), all_of(b, a)
    turned, same = all_of(q @ a @ q.T, q @ b @ q.T), all_of(a, a)
    for name, value in forward.items():
        assert_close(value, back[name], rtol=1e-8, atol=1e-10)
        assert_close(value, turned[name], rtol=1e-7, atol=1e-9)
        assert same[name].abs() < 1e-7, name
        assert value > 1e-6, name
    g = random_covariance(d, 2 * d, seed + 3000)
    moved = distances.affine_invariant(g @ a @ g.T, g @ b @ g.T, 0.0)
    assert_close(moved, forward["affine_invariant"], rtol=1e-5, atol=1e-6)


def test_the_span_of_the_tokens_is_enough():
    """Fewer tokens than dimensions: the same numbers as from the full covariances."""
    x, y = torch.randn(5, 30, dtype=F64), 2 * torch.randn(7, 30, dtype=F64)
    full = all_of(*(torch.cov(z.T, correction=0) for z in (x, y)), ridge=1e-6)
    for name, value in sentence_distances(x, y).items():
        assert_close(value, full[name], rtol=1e-7, atol=1e-9)


def test_low_rank_needs_a_ridge_where_the_formula_inverts():
    a, b = torch.diag(torch.tensor([1.0, 0.0], dtype=F64)), torch.diag(torch.tensor([0.0, 1.0], dtype=F64))
    bare, ridged = all_of(a, b, 0.0), all_of(a, b, 1e-6)
    assert {name for name, value in bare.items() if value.isnan()} == {"affine_invariant", "stein"}
    assert all(value.isfinite() for value in ridged.values())
    assert ridged["affine_invariant"].item() == pytest.approx(math.sqrt(2) * math.log1p(1e6), rel=1e-9)
    assert ridged["jensen_shannon"].item() == pytest.approx(math.log(2))


def test_one_token_a_constant_sentence_and_what_is_not_finite():
    x, y = torch.randn(6, 4, dtype=F64), torch.randn(1, 4, dtype=F64)
    for other in (y, y.expand(5, 4)):
        found = sentence_distances(x, other)
        assert {name for name, value in found.items() if value.isnan()} == {"jensen_shannon"}
        covariance = torch.cov(x.T, correction=0)
        assert_close(found["bures"], covariance.trace(), rtol=1e-10, atol=1e-12)
    for width in (4, 40):
        x, spoilt = torch.randn(6, width), torch.randn(5, width)
        spoilt[1, 1] = math.inf
        assert all(value.isnan() for value in sentence_distances(x, spoilt).values())


def test_batches_are_taken_one_by_one():
    x, y = torch.randn(3, 4, 10), torch.randn(3, 5, 10)
    together = sentence_distances(x, y)
    for name in DISTANCES:
        assert_close(together[name], torch.stack([sentence_distances(a, b)[name] for a, b in zip(x, y, strict=True)]))
