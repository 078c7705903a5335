"""The fused kernel against the exact rows in float64, over types, head dimensions, lengths, masks and edge cases."""

import math

import pytest
import torch

from thermo_monitor.physics.attention import EvenRows, attention_rows

pytest.importorskip("triton.knobs", reason="there is no triton, or one that the kernel does not run with")
from thermo_monitor.kernels import attention as kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# Relative for entropy and specific heat, absolute for the rest: single precision sums of rounded inputs.
TOLERANCE = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (1e-4, 1e-3), torch.float16: (1e-4, 1e-3)}
NAMES = ("log_partition", "mean_logit", "entropy", "specific_heat", "plain_mean", "plain_variance", "max_logit")


def tensors(batch, heads, key_heads, queries, keys, width, dtype, gain=2.0):
    q = (gain * torch.randn(batch, heads, queries, width)).to(dtype)
    return q.to(DEVICE), torch.randn(batch, key_heads, keys, width).to(dtype).to(DEVICE)


def check(q, k, dtype=torch.float32, **options):
    got = kernel.attention_rows(q, k, scale=q.shape[-1] ** -0.5, **options)
    exact = attention_rows(q.double(), k.double(), scale=q.shape[-1] ** -0.5, **options)
    assert torch.equal(got.n.double(), exact.n.expand(got.n.shape).double())
    entropy, heat = TOLERANCE[dtype]
    for name in NAMES:
        ours, theirs = getattr(got, name).double(), getattr(exact, name)
        assert torch.equal(ours.isnan(), theirs.isnan()), name
        rel = heat if name in ("specific_heat", "plain_variance") else entropy
        size = theirs.abs().clamp(min=1e-2) if name in ("entropy", "specific_heat") else theirs.abs().clamp(min=1.0)
        error = ((ours - theirs).abs() / size).nan_to_num(0.0)
        assert not error.numel() or error.max() < rel, (name, error.max())
    return got


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [16, 40, 64, 256])
def test_types_and_head_dimensions(dtype, causal, width):
    check(*tensors(1, 2, 1, 70, 70, width, dtype), dtype, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 5), (64, 64), (65, 63), (33, 130), (129, 40)])
def test_lengths_that_are_no_multiple_of_a_block(queries, keys, causal):
    check(*tensors(2, 2, 2, queries, keys, 32, torch.float32), causal=causal)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize(
    "rows", [None, EvenRows(90, 9), EvenRows(90, 40), torch.tensor([89]), torch.tensor([0, 7, 50])]
)
def test_grouped_queries_and_any_subset_of_rows(heads, rows):
    rows = rows.to(DEVICE) if isinstance(rows, torch.Tensor) else rows
    check(*tensors(1, *heads, 90, 90, 24, torch.float32), causal=True, rows=rows)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("form", ["keys", "examples", "four dimensions"])
def test_key_padding_and_rows_that_are_masked_altogether(form, causal):
    q, k = tensors(3, 2, 2, 70, 70, 16, torch.float32)
    mask = torch.rand(3, 70, device=DEVICE) > 0.3
    mask[1] = False  # no key at all
    mask[2] = torch.arange(70, device=DEVICE) == 3  # one key
    given = {"keys": mask[0], "examples": mask, "four dimensions": mask[:, None, None]}[form]
    exact = mask[:, None, None] if form == "examples" else given
    got = kernel.attention_rows(q, k, scale=0.25, mask=given, causal=causal)
    expected = attention_rows(q.double(), k.double(), scale=0.25, mask=exact, causal=causal)
    assert torch.equal(got.n.double(), expected.n.expand(got.n.shape))
    for name in NAMES:
        torch.testing.assert_close(
            getattr(got, name).double(), getattr(expected, name), rtol=1e-3, atol=1e-4, equal_nan=True
        )


@pytest.mark.parametrize("size", [1e4, -1e4, 1e-4])
def test_large_and_small_logits(size):
    q = torch.full((1, 1, 20, 16), 1.0, device=DEVICE)
    k = torch.randn(1, 1, 50, 16, device=DEVICE)
    k[..., 0] += size
    got = kernel.attention_rows(q, k, scale=1.0)
    exact = attention_rows(q.double(), k.double(), scale=1.0)
    # A logit of 1e4 has an ulp of 1e-3 in single precision; its row cannot be known any better.
    slack = 5e-3 if abs(size) > 1 else 1e-5
    for name in NAMES:
        torch.testing.assert_close(getattr(got, name).double(), getattr(exact, name), rtol=slack, atol=slack)
    sharp = kernel.attention_rows(1e3 * q, k, scale=1.0)
    assert sharp.entropy.abs().max() < 1e-6
    assert sharp.specific_heat.isfinite().all()


def test_the_weight_of_the_first_key():
    q, k = tensors(2, 2, 1, 70, 70, 16, torch.float32)
    stats, first = kernel.attention_rows_and_first_weight(q, k, scale=0.25, causal=True)
    z = 0.25 * q.double() @ k.double().repeat_interleave(2, 1).mT
    lower = torch.ones(70, 70, dtype=torch.bool, device=DEVICE).tril()
    expected = z.masked_fill(~lower, -math.inf).softmax(-1)[..., 0]
    torch.testing.assert_close(first.double(), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(stats.n[0, 0], torch.arange(1.0, 71.0, device=DEVICE))


@pytest.mark.parametrize("shape", [(0, 2, 5), (2, 2, 0)])
def test_an_empty_batch_is_nothing(shape):
    batch, heads, queries = shape
    q, k = torch.randn(batch, heads, queries, 16, device=DEVICE), torch.randn(batch, heads, 5, 16, device=DEVICE)
    assert kernel.attention_rows(q, k, scale=1.0).entropy.shape == shape


def test_values_that_are_not_finite_show():
    q, k = tensors(1, 1, 1, 20, 20, 16, torch.float32)
    q[0, 0, 3] = math.nan
    got = kernel.attention_rows(q, k, scale=1.0)
    assert got.entropy[0, 0].isnan().nonzero().flatten().tolist() == [3]


def test_strided_tensors_and_eight_numbers_for_each_row():
    whole = torch.randn(2, 70, 3, 4, 16, device=DEVICE)
    q, k, _ = whole.permute(2, 0, 3, 1, 4)
    assert not q.is_contiguous()
    got = check(q, k, causal=True)
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in got[:-1]}
    assert sum(storages.values()) == 8 * 4 * got.n.numel()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mask": torch.ones(20, 20, dtype=torch.bool)}, "key padding"),
        ({"mask": torch.zeros(20)}, "key padding"),
        ({"k": torch.randn(1, 3, 20, 16)}, "heads"),
        ({"q": torch.randn(1, 4, 20, 16).double()}, "type"),
        ({"q": torch.randn(1, 4, 20, 300), "k": torch.randn(1, 2, 20, 300)}, "shape"),
    ],
)
def test_what_the_kernel_does_not_read_is_an_error(change, why):
    given = {"q": torch.randn(1, 4, 20, 16), "k": torch.randn(1, 2, 20, 16), "scale": 1.0} | change
    with pytest.raises(ValueError, match=why):
        kernel.attention_rows(given.pop("q"), given.pop("k"), **given)
