"""Models of transformers: what is heard against eager weights of the same parameters, and the traps of masks."""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from tests.probes.models import gradients, listening, one_line, softmax

transformers = pytest.importorskip("transformers")

V, T = 31, 10


def build(kind: str, implementation: str, dropout: float = 0.0) -> nn.Module:
    """The same weights for every implementation."""
    torch.manual_seed(3)
    common = {"vocab_size": V, "attn_implementation": implementation, "pad_token_id": 0}
    if kind == "gpt2":
        rates = dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), dropout)
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=4, n_positions=32, **rates, **common)
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        groups = {"num_key_value_heads": 2, "attention_dropout": dropout, "max_position_embeddings": 64}
        if kind == "llama":
            config = transformers.LlamaConfig(**sizes, **groups, **common)
        else:
            config = transformers.MistralConfig(sliding_window=4, **sizes, **groups, **common)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=implementation).eval()
    for name, parameter in model.named_parameters():  # logits well away from zero, so that a wrong scale shows
        if parameter.dim() == 2 and "emb" not in name and "wte" not in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def batch(padding: str = "") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    out = {"input_ids": torch.randint(1, V, (3, T), generator=generator)}
    if padding:
        real = torch.ones(3, T, dtype=torch.long)
        real[1, slice(0, 4) if padding == "left" else slice(T - 4, T)] = 0
        out["attention_mask"] = real
        out["input_ids"] = out["input_ids"] * real
    return out


def real_rows(x: dict[str, Tensor]) -> Tensor:
    return x.get("attention_mask", torch.ones_like(x["input_ids"])).bool()


PREFIX = {"gpt2": "transformer.h.{}.attn", "llama": "model.layers.{}.self_attn", "mistral": "model.layers.{}.self_attn"}
KINDS = pytest.mark.parametrize("kind", PREFIX)
IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["sdpa", "eager"])
PADDINGS = pytest.mark.parametrize("padding", ["", "left", "right"])


@KINDS
@IMPLEMENTATIONS
@PADDINGS
def test_the_weights_are_those_of_the_eager_model(kind, implementation, padding):
    x = batch(padding)
    with torch.no_grad():
        expected = build(kind, "eager")(**x, output_attentions=True).attentions
        model = build(kind, implementation)
        with listening(model) as ears:
            model(**x)
    assert ears.names == [PREFIX[kind].format(k) for k in range(2)]
    rows = real_rows(x)
    for call, weights in zip(ears.attention, expected, strict=True):
        ours = softmax(call).transpose(1, 2)[rows]
        assert (ours - weights.transpose(1, 2)[rows]).abs().max() < 1e-5
        assert call.key.shape[1] == (4 if kind == "gpt2" else 2)
        states = call.logits()[1].expand(3, 4, T, T)
        assert torch.equal(states.transpose(1, 2)[rows], may_attend(kind, x).transpose(1, 2)[rows])


def may_attend(kind: str, x: dict[str, Tensor]) -> Tensor:
    """Which keys are states, written out."""
    q, k = torch.arange(T)[:, None], torch.arange(T)[None]
    allowed = k <= q
    if kind == "mistral":
        allowed = allowed & (q - k < 4)
    return (allowed & real_rows(x)[:, None, None, :]).expand(3, 4, T, T)


def test_logits_of_llama_by_hand():
    """Projection, rotation and repetition of heads written out for one layer."""
    x, model = batch("left"), build("llama", "sdpa")
    with torch.no_grad(), listening(model) as ears:
        states = model(**x, output_hidden_states=True).hidden_states
    layer = model.model.layers[1]
    h = layer.input_layernorm(states[1])
    q = layer.self_attn.q_proj(h).view(3, T, 4, 8)
    k = layer.self_attn.k_proj(h).view(3, T, 2, 8).repeat_interleave(2, dim=2)
    angle = torch.arange(T)[:, None] / model.config.rope_parameters["rope_theta"] ** (torch.arange(0, 8, 2) / 8)
    q, k = (rotated(y.double(), angle.double()) for y in (q, k))
    expected = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
    z, allowed = ears.attention[1].logits()
    assert (z - expected)[allowed.expand_as(z)].abs().max() < 1e-4 * expected.abs().max()


def rotated(y: Tensor, angle: Tensor) -> Tensor:
    first, second = y.chunk(2, -1)
    cos, sin = angle.cos()[None, :, None], angle.sin()[None, :, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


@KINDS
@IMPLEMENTATIONS
def test_the_last_token_moves_no_earlier_logits(kind, implementation):
    model, x = build(kind, implementation), batch()
    changed = x["input_ids"].clone()
    changed[:, -1] = changed[:, -1] % (V - 1) + 1
    with torch.no_grad(), listening(model) as ears:
        a, b = model(x["input_ids"]).logits, model(changed).logits
    assert len(ears.attention) == 4
    assert torch.equal(a[:, :-1], b[:, :-1])
    assert not torch.equal(a[:, -1], b[:, -1])


@KINDS
@IMPLEMENTATIONS
def test_left_padding_moves_no_valid_row(kind, implementation):
    model, x = build(kind, implementation), batch("left")
    position = (x["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad(), listening(model):
        padded = model(**x, position_ids=position).logits[1, 4:]
        alone = model(x["input_ids"][1:2, 4:]).logits[0]
    assert (padded - alone).abs().max() < 1e-4


@KINDS
@IMPLEMENTATIONS
@PADDINGS
def test_outputs_gradients_and_random_numbers_do_not_change(kind, implementation, padding):
    x = batch(padding)
    model = build(kind, implementation, dropout=0.1).train()
    results = []
    for on in (False, True):
        model.zero_grad()
        torch.manual_seed(11)
        with listening(model) if on else contextlib.nullcontext() as ears:
            out = model(**x, labels=x["input_ids"])
            out.loss.backward()
        results.append([out.logits, out.loss, *gradients(model), torch.get_rng_state()])
    assert len(ears.attention) == 2
    assert len(ears.output) == 1
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def t5(implementation: str) -> nn.Module:
    torch.manual_seed(5)
    config = transformers.T5Config(
        vocab_size=V, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=4, dropout_rate=0.0,
        decoder_start_token_id=0, attn_implementation=implementation,
    )  # fmt: skip
    model = transformers.AutoModelForSeq2SeqLM.from_config(config, attn_implementation=implementation).eval()
    for name, parameter in model.named_parameters():
        if "relative_attention_bias" in name:
            nn.init.normal_(parameter)
        elif ".q." in name or ".k." in name:
            nn.init.normal_(parameter, std=0.4)
    return model


@IMPLEMENTATIONS
@PADDINGS
def test_encoder_decoder_and_cross_attention_with_position_bias(implementation, padding):
    x = batch(padding)
    x["decoder_input_ids"] = batch()["input_ids"][:, :6]
    with torch.no_grad():
        out = t5("eager")(**x, output_attentions=True)
        model = t5(implementation)
        with listening(model) as ears:
            model(**x)
    assert len(ears.names) == len(set(ears.names)) == 6
    found = ears.probabilities()
    rows = real_rows(x)
    for k in range(2):
        encoder = found[f"encoder.block.{k}.layer.0.SelfAttention"].transpose(1, 2)[rows]
        assert (encoder - out.encoder_attentions[k].transpose(1, 2)[rows]).abs().max() < 1e-5
        decoder = found[f"decoder.block.{k}.layer.0.SelfAttention"]
        assert (decoder - out.decoder_attentions[k]).abs().max() < 1e-5
        cross = found[f"decoder.block.{k}.layer.1.EncDecAttention"]
        assert (cross - out.cross_attentions[k]).abs().max() < 1e-5


@contextlib.contextmanager
def refused(model: nn.Module, x: dict[str, Tensor]) -> Iterator[list[str]]:
    with one_line() as lines, torch.no_grad(), listening(model) as ears:
        model(**x)
        model(**x)
    assert ears.attention == []
    assert len(lines) == 1
    yield lines


def test_a_cap_on_the_logits_is_refused():
    config = transformers.Gemma2Config(
        vocab_size=V, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, attn_implementation="eager",
    )  # fmt: skip
    with refused(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager"), batch()) as lines:
        assert "softcap" in lines[0]


def test_sinks_are_refused():
    config = transformers.GptOssConfig(
        vocab_size=V, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, num_local_experts=2, num_experts_per_tok=1, pad_token_id=0,
    )  # fmt: skip
    with refused(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager"), batch()) as lines:
        assert "s_aux" in lines[0] or "sinks" in lines[0]
