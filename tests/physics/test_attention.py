import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from tests.reference import attention as reference
from thermo_monitor.physics import (
    ROW_QUANTITIES,
    EvenRows,
    attention_logits,
    attention_rows,
    head_sums,
    pooled_moments,
    random_rows,
    reduced_temperature,
    row_statistics,
    row_sums,
    specific_heat_pooled,
    valid_rows,
)

F64 = torch.float64
B, H, Q, K, D = 2, 4, 6, 6, 5


def weights_of(z, allowed):
    return torch.softmax(z if allowed is None else z.masked_fill(~allowed, -math.inf), -1)


def torch_weights(q, k, **options):
    """The weights that torch attends with: values that are unit vectors come out as the weights."""
    values = torch.eye(k.shape[2], dtype=q.dtype).expand(q.shape[0], k.shape[1], -1, -1)
    return F.scaled_dot_product_attention(q, k, values, **options)


def padding(fill_first=0):
    """True: a real key. The last two keys of the second example are padding."""
    mask = torch.ones(B, 1, 1, K, dtype=torch.bool)
    mask[1, ..., -2:] = False
    return mask


def additive(keep, lowest):
    return torch.zeros(keep.shape, dtype=F64).masked_fill(~keep, lowest)


MASKS = {
    "none": lambda: None,
    "bool padding": padding,
    "additive padding, -inf": lambda: additive(padding(), -math.inf),
    "additive padding, lowest": lambda: additive(padding(), torch.finfo(F64).min),
    "additive padding, lowest of float32": lambda: (
        additive(padding(), -math.inf).float().clamp(min=torch.finfo(torch.float32).min)
    ),
    "additive slopes": lambda: -0.3 * (torch.arange(Q)[:, None] - torch.arange(K)).abs().to(F64),
    "additive slopes and padding": lambda: additive(padding(), -math.inf) - 0.3 * torch.arange(K).to(F64),
    "bool, per head and query": lambda: (torch.rand(B, H, Q, K) > 0.3) | torch.eye(Q, dtype=torch.bool),
}


@pytest.mark.parametrize("rows", [None, [0], [1, 4], [5, 2]])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("mask", MASKS)
def test_logits_give_the_weights_of_torch_attention(mask, key_heads, causal, rows):
    mask = MASKS[mask]()
    q, k = torch.randn(B, H, Q, D, dtype=F64), torch.randn(B, key_heads, K, D, dtype=F64)
    index = None if rows is None else torch.tensor(rows)
    z, allowed = attention_logits(q, k, scale=0.4, mask=mask, causal=causal, rows=index)
    assert z.shape == (B, H, Q if rows is None else len(rows), K)
    assert (allowed is None) == (mask is None and not causal)

    keys = k.repeat_interleave(H // key_heads, dim=1)
    options = {"attn_mask": None if mask is None else mask.to(F64) if mask.dtype != torch.bool else mask}
    if causal and mask is not None:  # torch takes one of the two
        lower = torch.ones(Q, K, dtype=torch.bool).tril()
        options = {
            "attn_mask": mask & lower
            if mask.dtype == torch.bool
            else options["attn_mask"].masked_fill(~lower, -math.inf)
        }
    elif causal:
        options = {"is_causal": True}
    expected = torch_weights(q, keys, scale=0.4, **options)
    assert_close(weights_of(z, allowed), expected if index is None else expected[:, :, index], rtol=1e-12, atol=1e-14)


def test_heads_share_keys_as_in_torch():
    q, k = torch.randn(B, H, Q, D, dtype=F64), torch.randn(B, 2, K, D, dtype=F64)
    z, allowed = attention_logits(q, k, scale=0.4)
    assert_close(weights_of(z, allowed), torch_weights(q, k, scale=0.4, enable_gqa=True), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("queries", [Q, 3])
def test_equals_the_slow_version(queries):
    q, k = torch.randn(B, H, queries, D, dtype=F64), torch.randn(B, 2, K, D, dtype=F64)
    bias, mask = torch.randn(1, H, queries, K, dtype=F64), torch.rand(B, 1, queries, K) > 0.3
    z, allowed = attention_logits(q, k, scale=0.7, mask=mask, bias=bias, causal=True)
    full_bias, full_mask = bias.expand(B, -1, -1, -1).numpy(), mask.expand(-1, H, -1, -1).numpy()
    expected, states = reference.logits(q.numpy(), k.numpy(), 0.7, full_bias, True, full_mask)
    assert_close(z, torch.tensor(expected), rtol=1e-10, atol=1e-12)
    assert torch.equal(allowed.expand(z.shape), torch.tensor(states))


def test_selected_rows_are_the_same_rows_of_the_whole():
    q, k = torch.randn(B, H, Q, D), torch.randn(B, 2, K, D)
    options = {"scale": 0.4, "mask": torch.rand(B, 1, Q, K) > 0.2, "bias": torch.randn(H, Q, K), "causal": True}
    rows = torch.tensor([1, 3, 5])
    z, allowed = attention_logits(q, k, **options)
    z_rows, allowed_rows = attention_logits(q, k, rows=rows, **options)
    assert_close(z_rows, z[:, :, rows], rtol=1e-6, atol=1e-6)
    assert torch.equal(allowed_rows, allowed[:, :, rows])
    whole, part = (row_statistics(a, b) for a, b in ((z, allowed), (z_rows, allowed_rows)))
    assert_close(part.specific_heat, whole.specific_heat[:, :, rows], equal_nan=True, rtol=1e-5, atol=1e-6)


class LargestStorage(TorchDispatchMode):
    """The largest memory that any operation asked for."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.bytes = max(self.bytes, out.untyped_storage().nbytes())
        return out


def test_shared_keys_are_not_repeated_in_memory():
    q, k = torch.randn(1, 16, 1, 64), torch.randn(1, 1, 512, 64)
    with LargestStorage() as seen:
        attention_logits(q, k, scale=1.0)
    assert seen.bytes == k.nbytes  # the keys themselves; repeated they would be 16 times that
    with LargestStorage() as seen:
        k.repeat_interleave(16, dim=1)
    assert seen.bytes == 16 * k.nbytes


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (F64, F64)]
)
def test_logits_are_at_least_float32_even_under_autocast(dtype, expected):
    q, k = torch.randn(1, 2, 3, 4).to(dtype), torch.randn(1, 2, 3, 4).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z, _ = attention_logits(q, k, scale=0.3)
    assert z.dtype == expected
    assert_close(z.double(), q.double() @ k.double().mT * 0.3, rtol=1e-5, atol=1e-6)


def test_an_additive_mask_of_half_precision_masks_with_its_own_lowest():
    q = k = torch.randn(1, 1, 2, 4)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        mask = torch.tensor([0.0, torch.finfo(dtype).min], dtype=dtype)
        _, allowed = attention_logits(q, k, scale=1.0, mask=mask)
        assert allowed.tolist() == [True, False]


def test_a_sum_of_two_masks_is_still_a_mask_and_a_large_bias_is_not():
    lowest = torch.finfo(torch.float32).min
    q = torch.zeros(1, 1, 1, 4)
    mask = torch.tensor([0.75 * lowest, -1e4, -8e3, 2.0])
    z, allowed = attention_logits(q, torch.zeros(1, 1, 4, 4), scale=1.0, mask=mask)
    assert allowed.tolist() == [False, False, True, True]
    assert z[0, 0, 0, 2:].tolist() == mask[2:].tolist()


def test_wrong_use_says_what_is_right():
    q = torch.zeros(1, 3, 2, 4)
    with pytest.raises(ValueError, match="3 query heads cannot share 2 key heads"):
        attention_logits(q, torch.zeros(1, 2, 2, 4), scale=1.0)
    with pytest.raises(ValueError, match="give bool"):
        attention_logits(q, q, scale=1.0, mask=torch.ones(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="no quantities of a row"):
        head_sums(row_statistics(q), names=("heat",))


@pytest.mark.parametrize("rows", [None, [0, 4, 5], [5]])
@pytest.mark.parametrize("form", ["bool", "additive", "function"])
def test_padded_queries_are_not_valid(rows, form):
    mask = {"bool": padding(), "additive": additive(padding(), -1e4), "function": padding()}[form]
    if form == "function":
        rows = rows or list(range(Q))
        mask = lambda rows, keys: padding().expand(-1, -1, len(rows), -1)  # noqa: E731
    index = None if rows is None else torch.tensor(rows)
    valid = valid_rows(index, Q, K, mask=mask).expand(B, H, -1)
    chosen = range(Q) if rows is None else rows
    assert valid[0].all()
    assert valid[1, 0].tolist() == [i < 4 for i in chosen]


def test_a_mask_without_diagonal_says_nothing_about_padding():
    others = ~torch.eye(4, dtype=torch.bool)
    assert valid_rows(None, 4, 4, mask=others).all()
    assert valid_rows(torch.tensor([1, 2]), 4, 4, mask=others).all()


def test_cross_attention_and_unmasked_attention_have_no_padded_queries():
    assert valid_rows(None, 3, 5, mask=torch.ones(3, 5, dtype=torch.bool)) is None
    assert valid_rows(None, 4, 4) is None


@pytest.mark.parametrize(("length", "count"), list(itertools.product((1, 2, 7, 64, 1000), (1, 2, 6, 16, 64))))
def test_chosen_rows_are_sorted_and_different(length, count):
    state = torch.get_rng_state()
    even, random = EvenRows(length, count).index(), random_rows(length, count, torch.Generator().manual_seed(1))
    for rows in (even, random):
        assert rows.dtype == torch.int64
        assert rows.tolist() == sorted(set(rows.tolist()))
        assert len(rows) == min(length, count)
        assert rows[0] >= 0
        assert rows[-1] < length
    assert torch.equal(even, EvenRows(length, count).index())
    assert torch.equal(state, torch.get_rng_state())
    if count < length:  # the same from both ends, to the rounding of an index
        assert abs(even[0] - (length - 1 - even[-1])) <= 1
    if 1 < count < length:  # each row stands for an equal share
        assert (even.diff() - length / count).abs().max() < 1


def test_random_rows_are_all_equally_likely():
    generator = torch.Generator().manual_seed(3)
    counts = sum(torch.bincount(random_rows(6, 2, generator), minlength=6) for _ in range(3000))
    # 3000 draws with probability 1/3: standard deviation 25.8
    assert ((counts - 1000).abs() < 5 * 25.8).all()


def setting():
    z = torch.randn(3, H, Q, K, dtype=F64) * 2
    allowed = torch.ones(Q, K, dtype=torch.bool).tril()
    valid = torch.rand(3, 1, Q) > 0.3
    return z, allowed, valid


@pytest.mark.parametrize("with_valid", [False, True])
def test_sums_of_heads_equal_the_slow_version(with_valid):
    z, allowed, valid = setting()
    sums = head_sums(row_statistics(z, allowed), valid if with_valid else None)
    heads = reference.rows_of_heads(
        z.numpy(), allowed.expand(z.shape).numpy(), valid[:, 0].numpy() if with_valid else None
    )
    assert sums.names == tuple(ROW_QUANTITIES)
    for h, rows in enumerate(heads):
        assert sums.count[h].item() == len(rows)
        for name in sums.names:
            values = np.array([row[name] for row in rows])
            assert_close(sums.mean(name)[h].item(), values.mean(), rtol=1e-10, atol=1e-10)


def test_rows_with_one_key_are_dropped():
    z = torch.randn(1, 1, 3, 3)
    sums = head_sums(row_statistics(z, torch.ones(3, 3, dtype=torch.bool).tril()))
    assert sums.count.tolist() == [2]  # of three causal rows
    assert sums.total.isfinite().all()
    empty = head_sums(row_statistics(z, torch.eye(3, dtype=torch.bool)))
    assert empty.count.tolist() == [0]
    assert empty.mean("log_partition").isnan().all()


def test_a_row_that_is_not_finite_shows():
    z = torch.zeros(1, 2, 3, 4)
    z[0, 1, 2, 3] = math.nan
    assert head_sums(row_statistics(z), names=("entropy",)).mean("entropy").isnan().tolist() == [False, True]


def test_only_the_quantities_asked_for_are_formed(monkeypatch):
    def never(row):
        raise AssertionError("not asked for")

    for name in ROW_QUANTITIES:
        if name not in ("entropy", "logit_std"):
            monkeypatch.setitem(ROW_QUANTITIES, name, never)
    sums = head_sums(row_statistics(torch.randn(1, 2, 3, 4)), names=["entropy", "logit_std"])
    assert sums.names == ("entropy", "logit_std")
    assert sums.total.shape == (2, 2)
    assert sums.squared_error is None
    with pytest.raises(AssertionError, match="not asked for"):
        head_sums(row_statistics(torch.randn(1, 2, 3, 4)), names=["p_max"])
    assert head_sums(row_statistics(torch.randn(1, 2, 3, 4)), names=()).count.tolist() == [3, 3]


def test_sums_merge_to_those_of_the_whole():
    z, allowed, valid = setting()
    whole = head_sums(row_statistics(z, allowed), valid)
    by_row = [row_sums(row_statistics(z[i], allowed), valid[i]) for i in (slice(0, 1), slice(1, 3))]
    for merged in (by_row[0].heads().merge(by_row[1].heads()), (by_row[0] + by_row[1]).heads()):
        for name in ("count", "total"):
            assert_close(getattr(merged, name), getattr(whole, name), rtol=1e-12, atol=1e-12)
    known, unknown = by_row[0].heads(10), by_row[0].heads()
    assert known.merge(unknown).squared_error is None
    assert_close(known.merge(known).squared_error, 2 * known.squared_error)
    with pytest.raises(ValueError, match="cannot be added"):
        whole.merge(head_sums(row_statistics(z), names=("entropy",)))
    with pytest.raises(ValueError, match="sampled_from"):
        whole.standard_error("entropy")


def test_standard_error_of_a_sample_without_replacement_is_exact_on_average():
    # Over all samples of 3 of 5 rows, the mean of se^2 is the variance of the sample mean.
    z = torch.randn(2, 3, 5, 4, dtype=F64)
    errors, means = [], []
    for rows in itertools.combinations(range(5), 3):
        sums = head_sums(row_statistics(z[:, :, list(rows)]), names=("specific_heat",), sampled_from=5)
        mean = sums.mean("specific_heat")
        errors.append([*sums.standard_error("specific_heat").tolist(), sums.standard_error_of_all("specific_heat")])
        means.append([*mean.tolist(), mean.mean().item()])
    assert np.mean(np.square(errors), 0) == pytest.approx(np.var(means, 0), rel=1e-9)


def test_reduced_temperature_averages_first_and_inverts_then():
    z = torch.tensor([[1.0, 1, -1, -1], [3.0, 3, -3, -3]], dtype=F64).expand(1, 2, 2, 4).clone()
    z[0, 1] = 0
    sums = head_sums(row_statistics(z), names=("logit_std",))
    assert_close(sums.reduced_temperature(), torch.tensor([0.5, math.nan], dtype=F64), equal_nan=True)
    assert reduced_temperature(torch.tensor(math.nan)).isnan()


def test_pooled_variance_counts_what_the_specific_heat_does_not():
    z = torch.tensor([[[[1.0, 0], [11.0, 10.0]]]], dtype=F64)
    assert_close(specific_heat_pooled(z), torch.tensor([33.666666667], dtype=F64), rtol=0, atol=6e-10)
    sums = head_sums(row_statistics(z), names=("specific_heat", "specific_heat_row"))
    assert sums.mean("specific_heat").item() == pytest.approx(0.196611933, abs=6e-10)
    assert sums.mean("specific_heat_row").item() == pytest.approx(0.25)
    shifted = z + torch.tensor([[0.0], [5.0]], dtype=F64)  # each row by its own constant
    assert specific_heat_pooled(shifted).item() == pytest.approx(np.var([1, 0, 16, 15], ddof=1))


def test_pooled_variance_equals_the_variance_of_the_flattened_logits():
    z, allowed, valid = setting()
    z = z + torch.randn(3, H, Q, 1, dtype=F64) * 4
    keep = (allowed & valid.unsqueeze(-1)).expand(z.shape)  # the first causal row has one key and counts
    pooled = pooled_moments(row_statistics(z, allowed), valid)
    for h in range(H):
        assert_close(pooled.variance()[h], z[:, h][keep[:, h]].var(), rtol=1e-10, atol=0)
    assert_close(pooled.pooled(0).variance(), z[keep].var(), rtol=1e-10, atol=0)
    assert specific_heat_pooled(z[:1, :, :1, :1]).isnan().all()


# ------------------------------------------------------------------------------------------------ statistics of rows
@pytest.mark.parametrize("together", [1, 4, 16])
@pytest.mark.parametrize("keys", [40, 23, 57])
@pytest.mark.parametrize("options", ["causal", "causal, sinks", "causal, bias", "causal, mask", "mask", "plain"])
@pytest.mark.parametrize("rows", [EvenRows(40, 9), EvenRows(40, 40), None, torch.tensor([3, 17, 39])], ids=str)
def test_rows_worked_on_together_have_the_statistics_of_their_logits(rows, options, keys, together, monkeypatch):
    monkeypatch.setattr("thermo_monitor.physics.attention._TOGETHER", together)
    q, k = torch.randn(2, 4, 40, 8, dtype=F64), torch.randn(2, 2, keys, 8, dtype=F64)
    given = {"scale": 0.5, "causal": "causal" in options}
    if "sinks" in options:
        given["sinks"] = torch.randn(4)
    if "mask" in options:
        given["mask"] = torch.rand(2, 1, 40, keys) > 0.4
    if "bias" in options:
        given["bias"] = torch.where(torch.rand(4, 1, keys) > 0.4, torch.randn(4, 1, keys), -1e9)
    index = rows.index() if isinstance(rows, EvenRows) else rows
    expected = row_statistics(*attention_logits(q, k, rows=index, **given))
    got = attention_rows(q, k, rows=rows, **given)
    for name in ("n", "log_partition", "mean_logit", "entropy", "specific_heat", "plain_variance", "max_logit"):
        assert_close(getattr(got, name), getattr(expected, name), rtol=1e-11, atol=1e-11, equal_nan=True, msg=name)


def test_a_causal_attention_does_not_form_most_of_what_it_masks(monkeypatch):
    q = torch.randn(1, 2, 256, 8)
    formed = []
    original = row_statistics
    monkeypatch.setattr(
        "thermo_monitor.physics.attention.row_statistics",
        lambda z, *args, **kwargs: formed.append(z.numel()) or original(z, *args, **kwargs),
    )
    attention_rows(q, q, scale=1.0, causal=True, rows=EvenRows(256, 64))
    assert sum(formed) < 0.65 * 2 * 64 * 256


def test_a_score_function_and_a_mask_function_see_the_chosen_rows():
    q, k = torch.randn(1, 2, 6, 4, dtype=F64), torch.randn(1, 2, 6, 4, dtype=F64)

    def score(z, rows):
        return 3 * torch.tanh(z / 3) - 0.1 * (rows[:, None] - torch.arange(6)).abs()

    def mask(rows, keys):
        return torch.arange(keys) <= rows[:, None] + 1

    rows = torch.tensor([1, 4])
    z, allowed = attention_logits(q, k, scale=0.5, rows=rows, score=score, mask=mask)
    whole, states = attention_logits(q, k, scale=0.5, score=score, mask=mask)
    full = 0.5 * q @ k.mT
    distance = (torch.arange(6)[:, None] - torch.arange(6)).abs()
    assert_close(whole, 3 * torch.tanh(full / 3) - 0.1 * distance)
    assert_close(z, whole[:, :, rows])
    assert torch.equal(allowed, states[rows])
    assert allowed.sum(-1).tolist() == [3, 6]


def test_a_sink_is_one_more_state():
    q, k, sinks = torch.randn(2, 3, 4, 5, dtype=F64), torch.randn(2, 3, 6, 5, dtype=F64), torch.randn(3, dtype=F64)
    z, allowed = attention_logits(q, k, scale=1.0, sinks=sinks, mask=torch.arange(6) < 4)
    by_hand = torch.cat([(q @ k.mT)[..., :4], sinks[None, :, None, None].expand(2, 3, 4, 1)], -1)
    assert_close(row_statistics(z, allowed).entropy, row_statistics(by_hand).entropy)
    assert row_statistics(z, allowed).n.unique().tolist() == [5]


def test_the_work_type_of_the_matrix_product_does_not_round_the_scaled_query():
    # With a scale that is no power of two, a product of bfloat16 numbers is exact and its factor is applied after it.
    q = torch.randn(1, 1, 64, 96).bfloat16()
    z, _ = attention_logits(q, q, scale=96**-0.5)
    assert_close(z.double(), q.double() @ q.double().mT * 96**-0.5, rtol=1e-6, atol=2e-6)
