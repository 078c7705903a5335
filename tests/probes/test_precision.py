"""Half precision, numbers that are not finite, and sequences too short to say anything."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.probes.models import Decoder, Measuring, listening, tokens
from thermo_monitor.physics.precision import squared_norms
from thermo_monitor.probes import AttentionProbe, OutputProbe, RepresentationProbe, record_attention
from thermo_monitor.probes.attention import ALL_QUANTITIES
from thermo_monitor.probes.norms import total_norm

EVERY = AttentionProbe(quantities=ALL_QUANTITIES)


def slow(q: Tensor, k: Tensor, scale: float) -> dict[str, float]:
    """The definitions, row by row, in float64, for causal attention."""
    heats, entropies, spreads, tops = [], [], [[] for _ in range(q.shape[1])], []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(1, q.shape[2]):
                z = scale * (k[b, h, : i + 1].double() @ q[b, h, i].double())
                p = (z - z.max()).exp() / (z - z.max()).exp().sum()
                mean = (p * z).sum()
                heats.append((p * (z - mean) ** 2).sum().item())
                entropies.append(-(p * p.log()).sum().item() / math.log(i + 1))
                spreads[h].append(z.std(correction=0).item())
                tops.append(z.max().item())

    def average(x):
        return sum(x) / len(x)

    return {
        "attn/specific_heat": average(heats),
        "attn/entropy_fraction": average(entropies),
        "attn/max_logit": average(tops),
        "attn/reduced_temperature": average([1 / average(s) for s in spreads]),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_readings_are_those_of_the_definition(dtype):
    """In half precision: of the rounded queries and keys, with nothing rounded again."""
    model = Decoder()
    for block in model.blocks:
        nn.init.normal_(block.attention.qkv.weight, std=0.6)
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)
    model.to(torch.float64 if dtype == torch.float64 else torch.float32)
    with autocast, Measuring(model, EVERY) as measuring, listening(model) as ears:
        model(tokens())
        values = measuring.values()
    assert {call.query.dtype for call in ears.attention} == {dtype}
    layers = [slow(call.query.detach(), call.key.detach(), call.scale) for call in ears.attention]
    for key in layers[0]:
        expected = sum(layer[key] for layer in layers) / len(layers)
        assert values[key] == pytest.approx(expected, rel=1e-9 if dtype == torch.float64 else 1e-5)


def test_float16_does_not_overflow():
    q = torch.full((1, 1, 3, 4), 200.0, dtype=torch.float16)
    with Measuring(Decoder(), EVERY) as measuring:
        record_attention("large", q, q * torch.tensor([[1.0], [0.5], [1.0]], dtype=torch.float16), scale=1.0)
        values = measuring.values()
    assert values["attn/max_logit"] == 160_000.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["all", "one head of one example"])
def test_queries_that_are_not_finite(value, where):
    q, k = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    q[(...,) if where == "all" else (1, 2, 3)] = value
    with Measuring(Decoder(), EVERY) as measuring:
        record_attention("sound", k, k)
        record_attention("broken", q, k)
        measured = measuring.read()
    assert {r.reason for r in measured.readings} == {"non_finite"}
    assert all(math.isnan(r.value) for r in measured.readings)
    for found in measured.maps:  # where it is, the map tells
        assert found.layers == ("broken", "sound") or found.layers == ("sound", "broken")
        assert not math.isnan(found.values[found.layers.index("sound"), 2])
        assert math.isnan(found.values[found.layers.index("broken"), 2])
        assert math.isnan(found.values[found.layers.index("broken"), 0]) == (where == "all")


@pytest.mark.parametrize("masked", [True, False])
def test_a_single_token_says_nothing(masked):
    model, q = Decoder(), torch.randn(3, 2, 1, 4)
    with Measuring(model, EVERY) as measuring:
        model(tokens(length=1)) if masked else record_attention("open", q, q)
        readings = measuring.read().readings
    assert {r.reason for r in readings if r.quantity != "attn/specific_heat_pooled"} == {"n_lt_2"}
    assert all(math.isnan(r.value) for r in readings if r.quantity != "attn/specific_heat_pooled")


def test_equal_logits_have_no_temperature():
    q = torch.zeros(1, 2, 3, 4)
    with Measuring(Decoder(), AttentionProbe()) as measuring:
        record_attention("flat", q, q)
        readings = {r.quantity: r for r in measuring.read().readings}
    assert readings["attn/reduced_temperature"].reason == "degenerate"
    assert readings["attn/entropy_fraction"].value == 1.0


def test_nothing_heard_is_said():
    for probe, reason in (
        (AttentionProbe(), "no_attention"),
        (OutputProbe(), "no_logits"),
        (RepresentationProbe(), "no_representation"),
    ):
        with Measuring(nn.Linear(2, 2), probe) as measuring:
            assert {r.reason for r in measuring.read().readings} == {reason}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_output_in_half_precision(dtype):
    logits, labels = torch.randn(50, 11).to(dtype), torch.randint(11, (50,))
    with Measuring(Decoder(), OutputProbe()) as measuring, torch.autocast("cpu", dtype=torch.bfloat16):
        F.cross_entropy(logits, labels)
        values = measuring.values()
    exact = logits.double().log_softmax(-1)
    entropy = -(exact.exp() * exact).sum(-1).mean()
    loss = -exact.gather(-1, labels[:, None]).squeeze(-1)
    assert values["out/predictive_entropy"] == pytest.approx(entropy.item(), rel=1e-5)
    assert values["out/calibration_gap"] == pytest.approx((loss.mean() - entropy).item(), rel=1e-4)
    assert values["loss/loss_variance"] == pytest.approx(loss.var().item(), rel=1e-5)


@pytest.mark.parametrize("length", [2**16, 2**22 + 5])
def test_a_long_tensor_keeps_its_digits(length):
    # Of equal elements, a single sum in single precision takes the same wrong step over and over again: -0.2 % here.
    x = torch.full((length,), 0.1)
    exact = x.double().square().sum().item()
    if length > 2**20:
        assert abs(torch.linalg.vector_norm(x).item() ** 2 / exact - 1) > 1e-3
    assert total_norm([x]).item() ** 2 == pytest.approx(exact, rel=3e-5)
    parts = squared_norms([x, torch.ones(3), x.view(-1, 1).bfloat16()])
    assert [s.item() for s in parts[:2]] == pytest.approx([exact, 3.0], rel=3e-5)
    assert parts[2].item() == pytest.approx(x.bfloat16().double().square().sum().item(), rel=3e-5)
