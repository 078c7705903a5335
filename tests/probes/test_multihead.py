"""nn.MultiheadAttention and what is built from it, in training."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.probes.matrix import hears
from tests.probes.models import gradients, listening, one_line, softmax

B, L, S, E, H = 3, 5, 7, 12, 4


def inputs(module: nn.MultiheadAttention, batched: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    sizes = [(L, E), (S, module.kdim), (S, module.vdim)]
    if not batched:
        return tuple(torch.randn(size) for size in sizes)
    return tuple(torch.randn(B, *size) if module.batch_first else torch.randn(size[0], B, size[1]) for size in sizes)


def masked(*shape: int) -> Tensor:
    """True = masked, never the first key."""
    mask = torch.rand(shape) > 0.6
    mask[..., 0] = False
    return mask


def additive(mask: Tensor) -> Tensor:
    return torch.where(mask, -torch.inf, torch.randn(mask.shape))


PADDING = masked(B, S)
MASKS = {
    "none": {},
    "bool 2-D": {"attn_mask": masked(L, S)},
    "bool 3-D": {"attn_mask": masked(B * H, L, S)},
    "float 2-D": {"attn_mask": additive(masked(L, S))},
    "float 3-D": {"attn_mask": additive(masked(B * H, L, S))},
    "padding": {"key_padding_mask": PADDING},
    "float padding": {"key_padding_mask": additive(PADDING)},
    "bool both": {"attn_mask": masked(L, S), "key_padding_mask": PADDING},
    "float both": {"attn_mask": additive(masked(B * H, L, S)), "key_padding_mask": additive(PADDING)},
    "causal hint": {"attn_mask": torch.ones(L, S).triu(1).bool(), "is_causal": True},
}


def compare(module: nn.MultiheadAttention, arguments: tuple[Tensor, ...], **options: object) -> None:
    """What is heard against the weights that the module returns when it is asked for them."""
    module.train()
    expected = module(*arguments, **options, need_weights=True, average_attn_weights=False)[1]
    for need in (True, False):
        with listening(module) as ears:
            module(*arguments, **options, need_weights=need)
        (call,) = ears.attention
        assert (softmax(call).reshape(expected.shape) - expected).abs().max() < 1e-6


@hears("causal", "MultiheadAttention")
@hears("padding", "MultiheadAttention")
@hears("sliding window", "MultiheadAttention")
@hears("additive bias, ALiBi", "MultiheadAttention")
@hears("cross-attention", "MultiheadAttention")
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("masks", MASKS)
def test_the_weights_are_those_that_the_module_returns(masks, batch_first):
    module = nn.MultiheadAttention(E, H, batch_first=batch_first)
    nn.init.normal_(module.in_proj_bias)
    compare(module, inputs(module), **MASKS[masks])


@pytest.mark.parametrize("options", [{"bias": False}, {"kdim": 6, "vdim": 10}, {"kdim": 6, "vdim": 10, "bias": False}])
def test_other_projections(options):
    module = nn.MultiheadAttention(E, H, batch_first=True, **options)
    compare(module, inputs(module), **MASKS["bool both"])


def test_without_a_batch():
    module = nn.MultiheadAttention(E, H)
    compare(module, inputs(module, batched=False), attn_mask=masked(H, L, S), key_padding_mask=PADDING[0])


def test_truth_values_beside_infinities():
    """The module makes both masks additive, but the function can be called directly."""
    m = nn.MultiheadAttention(E, H)
    q, k, v = inputs(m)

    class Direct(nn.Module):
        def forward(self) -> Tensor:
            return F.multi_head_attention_forward(
                q, k, v, E, H, m.in_proj_weight, m.in_proj_bias, None, None, False, 0.0,
                m.out_proj.weight, m.out_proj.bias, key_padding_mask=PADDING, attn_mask=additive(masked(L, S)),
                average_attn_weights=False,
            )[1]  # fmt: skip

    direct = Direct()
    with pytest.warns(UserWarning, match="mismatched"), listening(direct) as ears:
        expected = direct()
    (call,) = ears.attention
    z, allowed = call.logits()
    assert z[allowed.expand_as(z)].isfinite().all()
    assert (softmax(call) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("feature", [{"add_bias_kv": True}, {"add_zero_attn": True}])
def test_further_keys_are_refused_with_one_line(feature):
    module = nn.MultiheadAttention(E, H, **feature)
    x = inputs(module)
    with one_line() as lines, listening(module) as ears:
        module(*x)
        module(*x)
    assert ears.attention == []
    assert len(lines) == 1
    assert "not read" in lines[0]


@hears("same outputs, gradients, random numbers", "MultiheadAttention")
@pytest.mark.parametrize("options", [{}, {"kdim": 6, "vdim": 10}])
@pytest.mark.parametrize("autocast", [False, True])
def test_outputs_and_gradients_do_not_change(options, autocast):
    module = nn.MultiheadAttention(E, H, dropout=0.1, batch_first=True, **options)
    arguments = inputs(module)
    results = []
    for on in (False, True):
        module.zero_grad()
        torch.manual_seed(1)
        with torch.autocast("cpu", enabled=autocast), listening(module) if on else contextlib.nullcontext():
            y, w = module(*arguments)
        (y.float().square().mean() + w.float().square().mean()).backward()
        results.append([y, w, *gradients(module), torch.get_rng_state()])
    assert len(results[0]) == len(results[1])  # a parameter without a gradient is a gradient lost
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


LAYER = {"d_model": E, "nhead": H, "dim_feedforward": 16, "dropout": 0.0}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("padding", [None, torch.tensor([[False, False, False, False, True]]).expand(B, L)])
def test_each_layer_of_an_encoder_is_heard_once(padding, batch_first):
    layer = nn.TransformerEncoderLayer(**LAYER, batch_first=batch_first)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).train()
    x = torch.randn(B, L, E) if batch_first else torch.randn(L, B, E)
    with listening(model) as ears:
        model(x, src_key_padding_mask=padding)
    assert ears.names == [f"layers.{k}.self_attn" for k in range(3)]
    (q,) = {call.query.shape for call in ears.attention}
    assert q == (B, H, L, E // H)
    if padding is not None:
        assert all(weights[..., -1].eq(0).all() for weights in ears.probabilities().values())


def test_each_layer_of_a_decoder_is_heard_once():
    model = nn.TransformerDecoder(nn.TransformerDecoderLayer(**LAYER, batch_first=True), 2).train()
    causal = nn.Transformer.generate_square_subsequent_mask(L)
    with listening(model) as ears:
        model(torch.randn(B, L, E), torch.randn(B, S, E), tgt_mask=causal, tgt_is_causal=True)
    expected = [f"layers.{k}.{part}" for k in range(2) for part in ("self_attn", "multihead_attn")]
    assert ears.names == expected
    assert ears.probabilities()["layers.1.self_attn"].triu(1).eq(0).all()
    assert ears.attention[1].key.shape[2] == S


def test_each_layer_of_a_transformer_is_heard_once():
    model = nn.Transformer(E, H, 2, 2, 16, 0.0, batch_first=True).train()
    with listening(model) as ears:
        model(torch.randn(B, S, E), torch.randn(B, L, E))
    assert len(ears.names) == len(set(ears.names)) == 2 + 4
    assert "encoder.layers.0.self_attn" in ears.names
    assert "decoder.layers.1.multihead_attn" in ears.names
