import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests.reference import ensemble as reference
from thermo_monitor.physics import (
    distance_from_equilibrium,
    next_token,
    output_sums,
    specific_heat_bound,
    token_statistics,
    training_temperature,
)

F64 = torch.float64
READINGS = ("mean_loss", "loss_variance", "predictive_entropy", "output_specific_heat", "calibration_gap")


def batch(n=40, v=30):
    y, labels = torch.randn(n, v, dtype=F64) * 3, torch.randint(0, v, (n,))
    labels[torch.rand(n) < 0.3] = -100
    return y, labels


def test_equals_the_slow_version():
    y, labels = batch()
    sums, expected = output_sums(y, labels), reference.readings(y, labels)
    assert sums.count.item() == expected["count"]
    for name in READINGS:
        assert getattr(sums, name)().item() == pytest.approx(expected[name], rel=1e-10), name


def test_loss_is_the_cross_entropy_of_torch():
    y, labels = batch()
    for ignore in (-100, 3):
        expected = (
            F.cross_entropy(y, labels.clamp(min=0), ignore_index=ignore) if ignore == 3 else F.cross_entropy(y, labels)
        )
        got = output_sums(y, labels.clamp(min=0) if ignore == 3 else labels, ignore)
        assert_close(got.mean_loss(), expected)


def test_ignored_tokens_do_not_matter_whatever_they_hold():
    y, labels = batch()
    kept = labels != -100
    for rubbish in (0.0, math.nan, math.inf):
        spoilt = output_sums(y.masked_fill(~kept.unsqueeze(-1), rubbish), labels)
        for name in READINGS:
            assert_close(
                getattr(spoilt, name)(), getattr(output_sums(y[kept], labels[kept]), name)(), rtol=1e-12, atol=0
            )


def test_micro_batches_merge_to_the_whole():
    y, labels = batch()
    labels[:7] = -100  # the first part has no label at all
    whole, parts = output_sums(y, labels), [output_sums(*x) for x in zip(y.split(7), labels.split(7), strict=True)]
    merged = parts[0]
    assert merged.mean_loss().isnan()
    for part in parts[1:]:
        merged = merged.merge(part)
    for name in READINGS:
        assert_close(getattr(merged, name)(), getattr(whole, name)(), rtol=1e-12, atol=1e-14)


def test_no_labels_is_nan_and_one_has_no_variance():
    y = torch.randn(3, 5)
    nothing = output_sums(y, torch.full((3,), -100))
    assert all(getattr(nothing, name)().isnan() for name in READINGS)
    one = output_sums(y, torch.tensor([-100, 2, -100]))
    assert one.mean_loss().isfinite()
    assert one.loss_variance().isnan()


def test_labels_drawn_from_the_prediction_leave_no_gap_on_average():
    y = torch.randn(6, dtype=F64)
    every_label = token_statistics(y.expand(6, 6), torch.arange(6))
    assert_close((torch.softmax(y, -1) * every_label.loss).sum(), every_label.entropy[0])


def test_limits():
    uniform, certain = torch.zeros(2, 50257), torch.zeros(2, 50257)
    certain[:, 7] = 1e4
    labels = torch.tensor([7, 7])
    assert output_sums(uniform, labels).predictive_entropy().item() == pytest.approx(math.log(50257), rel=1e-6)
    assert output_sums(uniform, labels).output_specific_heat().item() == 0
    assert output_sums(certain, labels).predictive_entropy().item() == 0
    assert output_sums(certain, labels).mean_loss().item() == 0
    certain[:, 7] = 11.1863  # the worst gap
    assert output_sums(certain, labels).output_specific_heat().item() == pytest.approx(30.28360, rel=1e-5)
    assert specific_heat_bound(torch.tensor(50257)).item() == pytest.approx(30.28360, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_float64_and_as_good_as_float32_moments(dtype):
    y, labels = batch(200, 1000)
    low = output_sums(y.to(dtype), labels)
    exact = output_sums(y.to(dtype).double(), labels)
    for name in READINGS:
        value = getattr(low, name)()
        assert value.dtype == F64
        assert_close(value, getattr(exact, name)(), rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_any_type_of_label(dtype):
    y, labels = torch.randn(4, 5, dtype=F64), torch.tensor([0, 1, 2, 3])
    assert_close(output_sums(y, labels.to(dtype), 3).mean_loss(), F.cross_entropy(y[:3], labels[:3]))


@pytest.mark.parametrize("tau", [0.3, 1.0, 4.0])
def test_state_functions_of_the_next_token(tau):
    y = 3 * torch.randn(5, 12, dtype=F64)
    state = next_token(y, tau)
    log_p = (y / tau).log_softmax(-1)
    p = log_p.exp()
    expected = (
        (y / tau).logsumexp(-1), -(p * y / tau).sum(-1), -(p * log_p).sum(-1), -(y / tau).logsumexp(-1),
        -math.log(12) - log_p.mean(-1), (p * (y / tau) ** 2).sum(-1) - (p * y / tau).sum(-1) ** 2,
    )  # fmt: skip
    for found, right in zip(state, expected, strict=True):
        assert_close(found, right, rtol=1e-10, atol=1e-10)
    assert_close(state.entropy, state.internal_energy - state.free_energy, rtol=1e-12, atol=1e-12)
    h = 1e-5
    slope = (next_token(y, tau * math.exp(h)).entropy - next_token(y, tau * math.exp(-h)).entropy) / (2 * h)
    assert_close(state.specific_heat, slope, rtol=1e-7, atol=1e-8)
    each = torch.tensor([tau] * 5)
    assert_close(next_token(y, each).entropy, state.entropy)


def test_distance_from_equilibrium_is_the_gap_token_by_token():
    y, labels = batch()
    distance = distance_from_equilibrium(y, labels)
    assert torch.equal(distance.isnan(), labels == -100)
    assert_close(distance.nanmean(), output_sums(y, labels).calibration_gap(), rtol=1e-12, atol=0)


def test_the_temperature_in_force():
    y, labels = batch()
    kept = labels != -100
    y, labels = y[kept], labels[kept]
    sums = output_sums(y, labels)
    assert_close(sums.training_free_energy(), sums.calibration_gap())  # bare: T = 1
    # Entropy bonus: F is the loss.
    log_p = y.log_softmax(-1)
    bonus = F.cross_entropy(y, labels) + 0.3 * (log_p.exp() * log_p).sum(-1).mean()
    assert_close(sums.training_free_energy(training_temperature(entropy_bonus=0.3)), bonus)
    # Label smoothing, near the uniform distribution: F is the loss over 1 - e, up to 2 T ln V, to third order.
    e, constant = 0.2, 2 * training_temperature(label_smoothing=0.2) * math.log(30)
    off = []
    for scale in (0.1, 0.05):
        small = output_sums(scale * y / 3, labels)
        smoothed = F.cross_entropy(scale * y / 3, labels, label_smoothing=e) / (1 - e)
        off.append(abs(smoothed - constant - small.training_free_energy(training_temperature(label_smoothing=e))))
    assert off[0] < 1e-4
    assert 6 < off[0] / off[1] < 20  # 2^3 or more
    assert training_temperature(0.1, 0.5) == 1.2


@pytest.mark.parametrize("options", [{"entropy_bonus": -1.0}, {"label_smoothing": 1.0}, {"entropy_bonus": math.inf}])
def test_no_temperature(options):
    with pytest.raises(ValueError, match="has to be >= 0"):
        training_temperature(**options)
