"""Calls of scaled_dot_product_attention, and what is refused."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from tests.probes.matrix import hears, refuses
from tests.probes.models import Decoder, listening, one_line, softmax, tokens


class Calls(nn.Module):
    """A module that does what the test says."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self.action = action
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self) -> object:
        return self.action()


def heard(action: Callable[[], object]):
    model = Calls(action)
    with listening(model) as ears:
        model()
    return ears


def weights(**options: object) -> tuple[Tensor, Tensor]:
    """The weights that were heard, and those of torch: with the identity as values, the output is the weights."""
    shape = options.pop("shape", (2, 4, 6, 8))
    keys = options.pop("key_shape", shape)
    q, k = torch.randn(shape), torch.randn(keys)
    v = torch.eye(k.shape[-2]).expand(*k.shape[:-1], k.shape[-2])
    out = []
    (call,) = heard(lambda: out.append(F.scaled_dot_product_attention(q, k, v, **options))).attention
    return softmax(call).reshape(out[0].shape), out[0]


_DRAW = torch.Generator().manual_seed(0)  # every worker of a parallel run has to make the same cases
BOOL = torch.rand(2, 1, 6, 6, generator=_DRAW) > 0.4
BOOL |= torch.eye(6, dtype=torch.bool)


@hears("causal", "sdpa function")
@hears("padding", "sdpa function")
@hears("grouped queries", "sdpa function")
@hears("sliding window", "sdpa function")
@hears("cross-attention", "sdpa function")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"attn_mask": BOOL},
        {"attn_mask": BOOL[0, 0]},
        {"attn_mask": torch.where(BOOL, torch.randn(2, 1, 6, 6, generator=_DRAW), -torch.inf)},
        {"attn_mask": torch.randn(4, 6, 6, generator=_DRAW)},
        {"scale": 0.3},
        {"scale": 0.0},
        {"key_shape": (2, 2, 6, 8), "enable_gqa": True},
        {"key_shape": (2, 1, 6, 8), "enable_gqa": True, "is_causal": True},
        {"key_shape": (2, 4, 9, 8), "is_causal": True},
        {"shape": (3, 6, 8), "attn_mask": torch.rand(3, 6, 6, generator=_DRAW) > 0.2},
        {"shape": (3, 6, 8), "attn_mask": torch.tril(torch.ones(6, 6, dtype=torch.bool))},
        {"shape": (6, 8), "is_causal": True},
        {"shape": (6, 8), "attn_mask": torch.randn(6, 6, generator=_DRAW)},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_the_weights_are_those_of_torch(options):
    ours, theirs = weights(**options)
    assert (ours - theirs).abs().max() < 1e-6


def test_queries_that_are_the_same_for_all_examples():
    q, k, v = torch.randn(1, 2, 3, 8), torch.randn(4, 2, 5, 8), torch.eye(5).expand(4, 2, 5, 5)
    out = []
    (call,) = heard(lambda: out.append(F.scaled_dot_product_attention(q, k, v))).attention
    z, _ = call.logits(torch.tensor([2]), slice(1, 3))
    assert (z.softmax(-1)[:, :, 0] - out[0][1:3, :, 2]).abs().max() < 1e-6


def test_the_function_is_heard_under_any_name():
    q = torch.randn(1, 1, 3, 4)
    assert heard(lambda: scaled_dot_product_attention(q, q, q)).names == [""]


def test_all_arguments_by_position():
    q = torch.randn(1, 1, 3, 4)
    mask = torch.ones(3, 3, dtype=torch.bool)
    (call,) = heard(lambda: F.scaled_dot_product_attention(q, q, q, mask, 0.0, False)).attention
    assert call.mask is mask
    assert call.scale == pytest.approx(1 / math.sqrt(4))


def test_layers_are_named_in_order_and_once():
    model = Decoder(layers=3)
    with listening(model) as ears:
        model(tokens())
    assert ears.names == [f"blocks.{k}.attention" for k in range(3)]


@hears("same outputs, gradients, random numbers", "sdpa function")
def test_outputs_and_gradients_do_not_change():
    model, x = Decoder(), tokens()
    plain = model(x)
    plain.square().mean().backward()
    before = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    with listening(model):
        heard = model(x)
        heard.square().mean().backward()
    assert torch.equal(plain, heard)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("constant", [-1e4, -1e9, -65504.0, torch.finfo(torch.float32).min, -math.inf])
@pytest.mark.parametrize("form", ["mask", "bias", "padded"])
def test_large_negative_numbers_mask(constant, form):
    allowed = torch.rand(2, 1, 5, 5) > 0.5
    allowed |= torch.eye(5, dtype=torch.bool)
    if form == "padded":
        allowed[1, :, 2] = False
    additive = torch.where(allowed, torch.randn(2, 1, 5, 5), constant)
    model = Calls(lambda: F.scaled_dot_product_attention(q, q, q, additive))
    q = torch.randn(2, 3, 5, 4)
    with listening(model) as ears:
        model()
    (call,) = ears.attention
    if form == "bias":
        call.bias, call.mask = additive, None
    rows = torch.tensor([0, 2])
    assert torch.equal(call.logits()[1], allowed)
    assert torch.equal(call.logits(rows)[1], allowed[:, :, rows])
    assert torch.equal(call.logits(rows, slice(1, 2))[1], allowed[1:, :, rows])


@hears("additive bias, ALiBi", "sdpa function")
def test_a_position_bias_does_not_mask():
    distance = (torch.arange(4096)[None] - torch.arange(4096)[:, None]).float()[:2]
    q = torch.randn(1, 1, 2, 4)
    k = torch.randn(1, 1, 4096, 4)
    (call,) = heard(lambda: F.scaled_dot_product_attention(q, k, k, 0.7 * -distance.abs())).attention
    assert call.logits()[1].all()


@refuses("nested tensors, masks of a class of their own", "sdpa function")
@pytest.mark.parametrize(
    ("action", "why"),
    [
        (
            lambda: F.scaled_dot_product_attention(*3 * [torch.randn(1, 1, 3, 4)], causal_lower_right(3, 3)),
            "mask of type",
        ),
        (lambda: F.scaled_dot_product_attention(*3 * [torch.randn(2, 1, 1, 3, 4)]), "5 dimensions"),
        (lambda: F.scaled_dot_product_attention(*3 * [nested()]), "nested"),
        (lambda: F.scaled_dot_product_attention(*3 * [strided()]), "nested"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_cannot_be_read_is_absent_with_one_line(action, why):
    with one_line() as lines:
        ears = heard(lambda: [action(), action()])
    assert ears.attention == []
    assert len(lines) == 1
    assert why in lines[0]


def nested() -> Tensor:
    return torch.nested.nested_tensor([torch.randn(3, 1, 4), torch.randn(5, 1, 4)], layout=torch.jagged).transpose(1, 2)


def strided() -> Tensor:
    return torch.nested.nested_tensor([torch.randn(1, 3, 4), torch.randn(1, 5, 4)])


@refuses("torch.func transforms", "sdpa function")
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_function_transforms_are_refused_and_leak_nothing():
    model, x = Decoder(layers=1), tokens()
    parameters = dict(model.named_parameters())

    def loss(p, row):
        logits = torch.func.functional_call(model, p, row[None])
        return F.cross_entropy(logits.flatten(0, 1), row)

    expected = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    with one_line() as lines, listening(model) as ears:
        found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    assert all(torch.equal(found[k], expected[k]) for k in found)
    assert ears.attention == ears.output == []
    assert len(lines) == 1
    assert "torch.func" in lines[0]
