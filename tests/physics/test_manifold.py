import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from thermo_monitor.physics import entropy, p_max, specific_heat
from thermo_monitor.physics.manifold import (
    Manifold,
    bounded_entropy,
    bounded_p_max,
    bounded_specific_heat,
    embed,
    logit_bound,
    pairing,
)

F64 = torch.float64
KINDS = (
    Manifold(flat=5), Manifold(spheres=(3,)), Manifold(circles=4), Manifold(flat=2, spheres=(2,)),
    Manifold(flat=2, circles=3), Manifold(flat=1, spheres=(1, 2), circles=2),
)  # fmt: skip


def points(rows, manifold):
    return torch.randn(rows, manifold.coordinates, dtype=F64)


@pytest.mark.parametrize("manifold", KINDS, ids=str)
def test_the_pairing_is_its_definition(manifold):
    x, h, kappa = points(7, manifold), points(4, manifold), torch.rand(manifold.scales, dtype=F64) * 3
    found = pairing(x, h, manifold, kappa)
    for s in range(4):
        for w in range(7):
            a, b, n = x[w].tolist(), h[s].tolist(), manifold.flat
            value = sum(p * q for p, q in zip(a[:n], b[:n], strict=True))
            at = n
            for i, m in enumerate(manifold.spheres):
                p, q = a[at : at + m + 1], b[at : at + m + 1]
                dot = sum(c * d for c, d in zip(p, q, strict=True))
                value += kappa[i].item() * dot / math.hypot(*p) / math.hypot(*q)
                at += m + 1
            for j in range(manifold.circles):
                value += kappa[len(manifold.spheres) + j].item() * math.cos(a[at + j] - b[at + j])
            assert found[s, w].item() == pytest.approx(value, abs=1e-12)
    assert embed(x, manifold).shape == (7, manifold.features)


@pytest.mark.parametrize("manifold", KINDS, ids=str)
def test_symmetric_and_without_kappa_flat(manifold):
    x, h, kappa = points(3, manifold), points(3, manifold), torch.rand(manifold.scales, dtype=F64)
    assert_close(pairing(x, h, manifold, kappa), pairing(h, x, manifold, kappa).T)
    flat = x[:, : manifold.flat], h[:, : manifold.flat]
    assert_close(pairing(x, h, manifold, torch.zeros_like(kappa)), flat[1] @ flat[0].T)


def test_what_changes_nothing():
    torus, sphere = Manifold(circles=4), Manifold(spheres=(3,))
    x, h = points(5, torus), points(2, torus)
    assert_close(pairing(x + 0.7, h + 0.7, torus), pairing(x, h, torus))
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=F64)).Q
    x, h = points(5, sphere), points(2, sphere)
    assert_close(pairing(9 * x @ turn, 0.1 * h @ turn, sphere), pairing(x, h, sphere))


def test_floors_of_the_entropy():
    values = {1.0: (6.433282, 206), 3.0: (3.687584, 12), 5.0: (0.478224, 1)}
    for kappa, (floor, k) in values.items():
        found = bounded_entropy(kappa, 1000)
        assert (round(found[0], 6), found[1]) == (floor, k)
        z = torch.full((1000,), -kappa, dtype=F64)
        z[:k] = kappa
        assert found[0] == pytest.approx(entropy(z).item(), abs=1e-10)
    assert bounded_entropy(0.0, 7) == (math.log(7), 7)
    assert bounded_entropy(2.0, 1) == (0.0, 1)


@given(bound=st.floats(0.1, 6), states=st.integers(2, 40), seed=st.integers(0, 99), corners=st.booleans())
def test_bounds_hold_for_all_logits_within_them(bound, states, seed, corners):
    z = torch.rand(30, states, dtype=F64, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    z = bound * (z.sign() if corners else z)
    assert (entropy(z) >= bounded_entropy(bound, states)[0] - 1e-9).all()
    assert (specific_heat(z) <= bounded_specific_heat(bound) + 1e-12).all()
    assert (p_max(z) <= bounded_p_max(bound, states) + 1e-12).all()


@pytest.mark.parametrize("manifold", KINDS[1:3], ids=str)
def test_logits_stay_within_their_bound(manifold):
    kappa = torch.rand(manifold.scales, dtype=F64) * 3
    z = pairing(100 * points(200, manifold), points(50, manifold), manifold, kappa)
    assert z.abs().max() <= logit_bound(manifold, kappa)
    assert logit_bound(Manifold(flat=1, circles=1), kappa[:1]).isinf()


@pytest.mark.parametrize("options", [{}, {"flat": -1, "circles": 3}, {"spheres": (0,)}, {"circles": -1, "flat": 2}])
def test_no_manifold(options):
    with pytest.raises(ValueError, match="at least one dimension"):
        Manifold(**options)


def test_wrong_sizes():
    with pytest.raises(ValueError, match=r"S\^2 has points of 3 coordinates, not 2"):
        embed(torch.zeros(2), Manifold(spheres=(2,)))
    with pytest.raises(ValueError, match="has 2 factors kappa, not"):
        embed(torch.zeros(2), Manifold(circles=2), torch.ones(1))
