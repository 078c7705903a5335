"""Three ways to compute the statistics of rows: the same numbers, chosen for each call, and said."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models import Transformer, batches, build, train
from tests.probes.models import Measuring
from thermo_monitor import Monitor
from thermo_monitor.probes import AttentionProbe
from thermo_monitor.probes.attention import ALL_QUANTITIES
from thermo_monitor.probes.ways import FROM_LOG_PARTITION

KEYS = tuple(sorted(FROM_LOG_PARTITION))


class Told(nn.Module):
    """One attention through torch's function, as given."""

    def __init__(self, **given):
        super().__init__()
        self.q, self.k = torch.randn(3, 4, 24, 16), torch.randn(3, 4, 24, 16)
        self.given = given

    def forward(self):
        return F.scaled_dot_product_attention(self.q, self.k, self.k, **self.given)


PADDING = (torch.arange(24) < torch.tensor([24, 20, 9])[:, None])[:, None, None]
CALLS = {
    "plain": {},
    "causal": {"is_causal": True},
    "padding": {"attn_mask": PADDING},
    "padding of all": {"attn_mask": PADDING[1, 0]},
    "any mask": {"attn_mask": torch.rand(24, 24, generator=torch.Generator().manual_seed(0)) > 0.3},
    "bias": {"attn_mask": torch.randn(24, 24, generator=torch.Generator().manual_seed(0))},
}
READ_BY_THE_KERNEL = {"plain", "causal", "padding", "padding of all"}


def read(model, **options):
    with Measuring(model, AttentionProbe(**options)) as measuring:
        model()
        values = measuring.values()
        return values, measuring.listener.describe()[""]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("rows", [8, 1000])
def test_the_log_partition_gives_the_same_readings(call, rows):
    model = Told(**CALLS[call])
    expected, how = read(model, rows=rows, quantities=KEYS)
    assert how == f"exact rows, {min(rows, 24)} of 24"
    found, how = read(model, rows=rows, quantities=KEYS, way="log_partition")
    assert how == f"log partition, {min(rows, 24)} of 24"
    for key in KEYS:
        assert found[key] == pytest.approx(expected[key], rel=2e-3), key


@pytest.mark.parametrize("call", CALLS)
def test_the_kernel_gives_the_same_readings_or_leaves_the_call_to_the_exact_rows(call):
    pytest.importorskip("triton.knobs", reason="there is no triton, or one that the kernel does not run with")
    model = Told(**CALLS[call])
    expected, _ = read(model, rows=8, quantities=ALL_QUANTITIES)
    found, how = read(model, rows=8, quantities=ALL_QUANTITIES, way="kernel")
    assert how.startswith("kernel, 8 of 24" if call in READ_BY_THE_KERNEL else "exact rows, 8 of 24 (")
    for key in ALL_QUANTITIES:
        assert found[key] == pytest.approx(expected[key], rel=1e-3, abs=1e-6), key


def test_a_mask_of_queries_is_never_taken_for_one_of_examples():
    pytest.importorskip("triton.knobs", reason="there is no triton, or one that the kernel does not run with")
    model = Told()
    model.q, model.k = torch.randn(5, 2, 5, 16), torch.randn(5, 2, 5, 16)
    model.given = {"attn_mask": torch.ones(5, 5, dtype=torch.bool).tril()}
    expected, _ = read(model)
    found, how = read(model, way="kernel")
    assert "key padding" in how
    assert found == expected


@pytest.mark.parametrize("way", ["exact", "log_partition", "kernel"])
def test_random_rows_are_the_same_in_every_way_and_have_an_error(way):
    pytest.importorskip("triton.knobs", reason="there is no triton, or one that the kernel does not run with")

    def readings(way):
        torch.manual_seed(0)
        model = Told(is_causal=True)
        with Measuring(model, AttentionProbe(rows=8, sampling="random", way=way, quantities=KEYS), seed=3) as measuring:
            model()
            return measuring.read().readings

    for found, expected in zip(readings(way), readings("exact"), strict=True):
        assert found.value == pytest.approx(expected.value, rel=2e-3)
        assert found.error == pytest.approx(expected.error, rel=2e-2)
        assert found.error > 0


def test_what_a_way_cannot_give_is_refused():
    with pytest.raises(ValueError, match="attn/max_logit"):
        AttentionProbe(way="log_partition")
    with pytest.raises(ValueError, match="way="):
        AttentionProbe(way="fast")


def test_auto_is_exact_without_a_device():
    _, how = read(Told(is_causal=True), way="auto")
    assert how.startswith("exact rows") or torch.cuda.is_available()


def test_the_monitor_tells_by_layer_what_is_heard_and_how(spoken):
    class Mixed(Transformer):
        def __init__(self):
            super().__init__()
            self.other = nn.MultiheadAttention(16, 2, batch_first=True, add_zero_attn=True)

        def forward(self, tokens):
            x = self.embed(tokens)
            for block in self.blocks:
                x = block(x)
            return self.head(x + self.other(x, x, x)[0])

    model = build(Mixed)
    with Monitor(model, every=1, probe_batch=batches(1)[0], sinks=[], strict=True) as monitor:
        assert "no attention was heard yet" in monitor.describe()
        train(model, monitor)
        text = monitor.describe()
    for layer in (0, 1):
        assert f"  attention of blocks.{layer}.attention: scaled_dot_product_attention; " in text
        assert f"\n  blocks.{layer}.attention: scaled_dot_product_attention" in text  # on the fixed batch
    assert "AttentionProbe: exact rows, 6 of 6" in text
    assert "  RepresentationProbe of blocks.1: 256 token representations at most" in text
    assert "absent: attention of other: nn.MultiheadAttention with add_zero_attn is not read" in text
