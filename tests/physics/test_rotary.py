import math

import pytest
import torch
from torch.testing import assert_close

from tests.reference import information as reference
from thermo_monitor import physics

F64 = torch.float64
LAYOUTS = ("half", "interleaved")


def rows(heads=2, key_heads=1, queries=3, keys=5, width=8):
    q = torch.randn(2, heads, queries, width, dtype=F64)
    k = torch.randn(2, key_heads, keys, width, dtype=F64)
    repeated = k.repeat_interleave(heads // key_heads, 1)
    return q, k, physics.weights(0.4 * q @ repeated.mT)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rotary", [None, 6])
def test_a_common_rotation_is_an_exact_zero_mode(layout, rotary, dtype):
    q, k = torch.randn(2, 4, 7, 16, dtype=dtype), torch.randn(2, 2, 9, 16, dtype=dtype)
    angle = torch.randn((rotary or 16) // 2)
    residual = physics.rope_flat_residual(q, k, angle, scale=0.25, layout=layout, rotary=rotary)
    assert residual.shape == (2, 4, 7)
    assert bool((residual < (1e-6 if dtype == torch.float32 else 1e-14)).all())
    # Turning the queries alone, or the keys in the wrong planes, is no zero mode: the check can fail.
    turned = physics.rotate(q, angle, layout, rotary)
    assert not torch.allclose(turned @ k.repeat_interleave(2, 1).mT, q @ k.repeat_interleave(2, 1).mT, rtol=1e-3)


def test_known_masses():
    q = torch.tensor([[[[1.0, 0.0]]]], dtype=F64)
    for x in (0.3, 1.0, 2.0):
        for keys, expected in (
            ([[x, 0.0], [-x, 0.0]], x * math.tanh(x)),
            ([[0.0, x], [0.0, -x]], -x * x),
        ):
            k = torch.tensor([[keys]], dtype=F64)
            mass = physics.rope_mass(physics.weights(q @ k.mT), q, k, scale=1.0)
            assert mass.item() == pytest.approx(expected, abs=1e-12)
    assert math.tanh(1) == pytest.approx(0.761594156, abs=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mass_is_the_curvature_and_response_the_slope_of_the_free_energy(layout):
    q, k, p = rows()
    theta = torch.tensor([1.0, 0.5, 0.25, 0.125], dtype=F64)
    mass = physics.rope_mass(p, q, k, scale=0.4, layout=layout)
    response = physics.rope_shift_response(p, q, k, theta, scale=0.4, layout=layout)
    assert mass.shape == (2, 2, 3, 4)
    step = 1e-4
    keys = [row.tolist() for row in k[1, 0]]
    vector = q[1, 1, 2].tolist()
    for j, plane in enumerate(reference.pairs_of(8, layout)):
        low, middle, high = (
            reference.free_energy_of(reference.turned(vector, plane, angle), keys, 0.4) for angle in (-step, 0, step)
        )
        assert mass[1, 1, 2, j].item() == pytest.approx((high - 2 * middle + low) / step**2, abs=1e-6)
    shifted = []
    for sign in (-1, 1):
        x = vector
        for j, plane in enumerate(reference.pairs_of(8, layout)):
            x = reference.turned(x, plane, sign * step * theta[j].item())
        shifted.append(reference.free_energy_of(x, keys, 0.4))
    assert response[1, 1, 2].item() == pytest.approx((shifted[1] - shifted[0]) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masses_do_not_change_under_a_common_rotation_and_masked_keys_do_not_count(layout):
    q, k, p = rows()
    angle = torch.randn(4, dtype=F64)
    mass = physics.rope_mass(p, q, k, scale=0.4, layout=layout)
    turned = [physics.rotate(x, angle, layout) for x in (q, k)]
    assert_close(physics.rope_mass(p, *turned, scale=0.4, layout=layout), mass)
    more = torch.cat([k, torch.full((2, 1, 1, 8), 1e3, dtype=F64)], 2)
    padded = torch.cat([p, torch.zeros(2, 2, 3, 1, dtype=F64)], -1)
    assert_close(physics.rope_mass(padded, q, more, scale=0.4, layout=layout), mass, rtol=1e-8, atol=1e-8)


def test_planes_outside_the_rotated_part_do_not_enter():
    q, k, p = rows()
    mass = physics.rope_mass(p, q, k, scale=0.4, rotary=4)
    q[..., 4:], k[..., 4:] = 7, -3
    assert_close(physics.rope_mass(p, q, k, scale=0.4, rotary=4), mass)
    assert mass.shape[-1] == 2


@pytest.mark.parametrize(
    ("arguments", "message"), [(("quarter",), "interleaved"), (("half", 3), "even"), (("half", 10), "of 8")]
)
def test_a_wrong_layout_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        physics.planes(torch.zeros(8), *arguments)
