import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tests.reference import ensemble as reference
from thermo_monitor.physics import output_sums, specific_heat_bound, token_statistics

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
