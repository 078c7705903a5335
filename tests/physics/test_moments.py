import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from thermo_monitor.physics import moments_of

F64 = torch.float64


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.floats(-1e8, 1e8))
def test_parts_merge_to_the_whole_in_any_order(sizes, offset):
    generator = torch.Generator().manual_seed(sum(sizes))
    parts = [torch.randn(size, dtype=F64, generator=generator) + offset for size in sizes]
    for order in (parts, parts[::-1]):
        total = moments_of(order[0])
        for part in order[1:]:
            total = total.merge(moments_of(part))
        whole = torch.cat(order)
        assert total.count.item() == len(whole)
        if len(whole) >= 2:  # 1e8 keeps half of the digits of a variance of 1
            assert_close(total.variance(), whole.var(), rtol=1e-6, atol=1e-12)
        else:
            assert total.variance().isnan()


def test_dropped_elements_do_not_matter_whatever_they_hold():
    x = torch.tensor([1.0, math.nan, 3.0, math.inf])
    m = moments_of(x, torch.tensor([True, False, True, False]))
    assert (m.count.item(), m.mean.item(), m.variance().item()) == (2, 2, 2)
    assert m.variance().dtype == F64


def test_empty_and_single_sets():
    assert moments_of(torch.zeros(0)).variance().isnan()
    assert moments_of(torch.tensor(4.0)).mean.item() == 4
    assert moments_of(torch.zeros(0)).merge(moments_of(torch.tensor([5.0]))).mean.item() == 5


def test_pooling_over_several_dimensions():
    x = torch.randn(2, 3, 4, 5, dtype=F64)
    last = moments_of(x[0, 0, 0])
    assert_close(last.variance(), x[0, 0, 0].var())
    stacked = type(last)(torch.ones_like(x), x, torch.zeros_like(x))
    assert_close(stacked.pooled((0, -1)).variance(), x.movedim(0, -1).flatten(2).var(-1))
    assert_close(stacked.pooled(-1).pooled((0, 2)).variance(), x.movedim(1, 0).flatten(1).var(-1))
