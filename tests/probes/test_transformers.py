"""Models of transformers: what is heard against eager weights of the same parameters, and the traps of masks."""

import contextlib
import inspect

import pytest
import torch
from torch import Tensor, nn

from tests.probes.matrix import hears, refuses
from tests.probes.models import gradients, listening, one_line, softmax

transformers = pytest.importorskip("transformers")
FLASH = "flash_attention_2"


def flash(q, k, v, causal, softmax_scale=None, window_size=(-1, -1), softcap=0.0, **kwargs):
    """What FlashAttention computes, on [B, T, H, D], written out; dropout is left out."""
    groups = q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)))
    z = q @ k.mT * (softmax_scale or q.shape[-1] ** -0.5)
    if softcap:
        z = softcap * torch.tanh(z / softcap)
    distance = torch.arange(q.shape[2])[:, None] - torch.arange(k.shape[2])
    if causal:
        z = z.masked_fill(distance < 0, -torch.inf)
    if window_size[0] >= 0:
        z = z.masked_fill((distance > window_size[0]) | (distance < -window_size[1]), -torch.inf)
    return (z.softmax(-1) @ v).transpose(1, 2)


def flash_of_parts(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q=None, max_seqlen_k=None, **kwargs):
    """The same for packed sequences [total, H, D]."""
    ends = zip(
        *(x.tolist() for x in (cu_seqlens_q[:-1], cu_seqlens_q[1:], cu_seqlens_k[:-1], cu_seqlens_k[1:])), strict=True
    )
    return torch.cat([flash(q[None, a:b], k[None, c:d], v[None, c:d], **kwargs)[0] for a, b, c, d in ends])


@pytest.fixture(autouse=True)
def flash_on_the_host(monkeypatch):
    """The library's own path to FlashAttention, with the kernels replaced by the formulas."""
    library = transformers.modeling_flash_attention_utils
    both = inspect.getsource(library._flash_attention_forward).find("flash_kvcache_fn") >= 0  # of paged attention, too
    functions = (flash, flash_of_parts, *([None] if both else []), library._pad_input, library._unpad_input)
    supported = dict.fromkeys(("dropout_p", "window_size", "softcap", "max_seqlen_q", "max_seqlen_k"), True)
    every = ("deterministic", "s_aux", "learnable_sink", "block_table", "page_table", "cache_seqlens")
    supported = dict.fromkeys(every, False) | supported

    def processed(**kwargs):
        return library._process_flash_attention_kwargs(**kwargs, supports_mapping=supported)

    monkeypatch.setattr(
        library, "lazy_import_flash_attention", lambda *a, **k: (functions, (processed, None) if both else processed)
    )


def set_implementation(model: nn.Module, implementation: str) -> nn.Module:
    """As if the package were installed, which the library checks when a model is made."""
    for module in model.modules():
        if hasattr(module, "config") and hasattr(module.config, "_attn_implementation"):
            module.config._attn_implementation = implementation
    return model


V, T = 31, 10


def build(kind: str, implementation: str, dropout: float = 0.0) -> nn.Module:
    """The same weights for every implementation."""
    torch.manual_seed(3)
    wanted, implementation = implementation, "sdpa" if implementation == FLASH else implementation
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
    return set_implementation(model, wanted) if wanted == FLASH else model


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
# GPT-2 in single precision makes the library's own FlashAttention path fail: it looks for an nn.Linear.
CASES = [(k, i) for k in PREFIX for i in ("sdpa", "eager", FLASH) if (k, i) != ("gpt2", FLASH)]
MODELS = pytest.mark.parametrize(("kind", "implementation"), CASES)
PADDINGS = pytest.mark.parametrize("padding", ["", "left", "right"])


@hears("causal", "HF sdpa", "HF eager", "HF flash")
@hears("padding", "HF sdpa", "HF eager", "HF flash")
@hears("grouped queries", "HF sdpa", "HF eager", "HF flash")
@hears("sliding window", "HF sdpa", "HF eager", "HF flash")
@MODELS
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


@MODELS
def test_the_last_token_moves_no_earlier_logits(kind, implementation):
    model, x = build(kind, implementation), batch()
    changed = x["input_ids"].clone()
    changed[:, -1] = changed[:, -1] % (V - 1) + 1
    with torch.no_grad(), listening(model) as ears:
        a, b = model(x["input_ids"]).logits, model(changed).logits
    assert len(ears.attention) == 4
    assert torch.equal(a[:, :-1], b[:, :-1])
    assert not torch.equal(a[:, -1], b[:, -1])


@MODELS
def test_left_padding_moves_no_valid_row(kind, implementation):
    model, x = build(kind, implementation), batch("left")
    position = (x["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad(), listening(model):
        padded = model(**x, position_ids=position).logits[1, 4:]
        alone = model(x["input_ids"][1:2, 4:]).logits[0]
    assert (padded - alone).abs().max() < 1e-4


@hears("same outputs, gradients, random numbers", "HF sdpa", "HF eager", "HF flash")
@MODELS
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


@hears("additive bias, ALiBi", "HF sdpa", "HF eager")
@hears("cross-attention", "HF sdpa", "HF eager")
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])  # FlashAttention has no position bias
@PADDINGS
def test_encoder_decoder_and_cross_attention_with_position_bias(implementation, padding):
    if not transformers.T5PreTrainedModel._supports_sdpa:
        pytest.skip(f"transformers {transformers.__version__} writes out the attention of T5 and asks no interface")
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


def gemma2(implementation: str) -> nn.Module:
    torch.manual_seed(6)
    config = transformers.Gemma2Config(
        vocab_size=V, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, attn_logit_softcapping=1.5, sliding_window=3, attn_implementation="eager",
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            nn.init.normal_(parameter, std=0.5)
    return set_implementation(model, implementation)


@hears("soft cap", "HF eager", "HF flash")
@pytest.mark.parametrize("implementation", ["eager", FLASH])
@PADDINGS
def test_a_cap_on_the_logits_and_layers_with_and_without_a_window(implementation, padding):
    x = batch(padding)
    with torch.no_grad():
        expected = gemma2("eager")(**x, output_attentions=True).attentions
        model = gemma2(implementation)
        with listening(model) as ears:
            model(**x)
    rows = real_rows(x)
    assert len(ears.attention) == 2
    for call, weights in zip(ears.attention, expected, strict=True):
        assert (softmax(call) - weights).transpose(1, 2)[rows].abs().max() < 1e-5
        call.score = None
        assert (softmax(call) - weights).transpose(1, 2)[rows].abs().max() > 1e-2  # the cap is felt


@hears("sinks", "HF eager")
@PADDINGS
def test_sinks_are_one_more_state(padding):
    torch.manual_seed(8)
    config = transformers.GptOssConfig(
        vocab_size=V, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, num_local_experts=2, num_experts_per_tok=1, pad_token_id=0, sliding_window=4,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.5) if "sinks" in name or "self_attn" in name else None
    x = batch(padding)
    with torch.no_grad(), listening(model) as ears:
        expected = model(**x, output_attentions=True).attentions
    assert len(ears.attention) == 2
    rows = real_rows(x)
    for call, weights in zip(ears.attention, expected, strict=True):
        ours = softmax(call)
        assert ours.shape[-1] == T + 1
        assert (ours[..., 1:] - weights[..., :T]).transpose(1, 2)[rows].abs().max() < 1e-5
        assert ours[..., 0].transpose(1, 2)[rows].mean() > 1e-2


@hears("packed sequences", "HF flash")
@pytest.mark.parametrize("ends", [False, True])
def test_packed_sequences_do_not_see_each_other(ends):
    model, lengths = build("llama", FLASH), (4, 1, 5)
    x = batch()["input_ids"][:1]
    position = torch.cat([torch.arange(n) for n in lengths])[None]
    packed = {"position_ids": position}
    if ends:
        cumulative = torch.tensor([0, 4, 5, 10], dtype=torch.int32)
        packed |= {"cu_seq_lens_q": cumulative, "cu_seq_lens_k": cumulative, "max_length_q": 5, "max_length_k": 5}
    with torch.no_grad(), listening(model) as ears:
        together = model(x, **packed, use_cache=False).logits[0]
    with torch.no_grad(), listening(model) as alone:
        apart = [model(part, use_cache=False).logits[0] for part in x.split(lengths, 1)]
    assert (together - torch.cat(apart)).abs().max() < 1e-4
    for layer in range(2):
        whole = softmax(ears.attention[layer])[0]
        blocks = [softmax(alone.attention[2 * part + layer])[0] for part in range(3)]
        at = 0
        for block in blocks:
            n = block.shape[-1]
            assert (whole[:, at : at + n, at : at + n] - block).abs().max() < 1e-5
            at += n


def _not_compiled(function):
    def called(*args, **kwargs):
        return function(*args, **kwargs | {"_compile": False})

    return called


@hears("causal", "HF flex")
@hears("padding", "HF flex")
@hears("grouped queries", "HF flex")
@hears("sliding window", "HF flex")
@hears("same outputs, gradients, random numbers", "HF flex")
@pytest.mark.parametrize("kind", ["mistral"])
def test_flex_attention_under_its_own_key(kind, monkeypatch):
    """Its formulas, not compiled: that takes a minute here."""
    flex = torch.nn.attention.flex_attention
    if not hasattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"):
        pytest.skip(f"torch {torch.__version__} cannot be told to leave flex_attention uncompiled")
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    library = transformers.integrations.flex_attention

    def formulas(*args, training, **kwargs):
        return flex.flex_attention(*args, **kwargs)

    monkeypatch.setattr(library, "compile_friendly_flex_attention", formulas)
    monkeypatch.setattr(transformers.masking_utils, "create_block_mask", _not_compiled(flex.create_block_mask))
    x = batch("left")
    with torch.no_grad():
        expected = build(kind, "eager")(**x, output_attentions=True).attentions
        model = build(kind, "flex_attention")
        plain = model(**x).logits
        with listening(model) as ears:
            heard = model(**x).logits
    assert torch.equal(plain, heard)
    rows = real_rows(x)
    assert ears.names == [PREFIX[kind].format(k) for k in range(2)]
    for call, weights in zip(ears.attention, expected, strict=True):
        ours = softmax(call).transpose(1, 2)[rows]
        assert (ours - weights.transpose(1, 2)[rows]).abs().max() < 1e-5


@refuses("paged attention", "HF sdpa")
def test_paged_attention_is_refused_and_the_layer_named():
    model = build("llama", "sdpa")
    attention = model.model.layers[0].self_attn
    q = torch.randn(1, 4, 3, 8)
    function = transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS
    with one_line() as lines, listening(model) as ears:
        for _ in range(2):
            function["sdpa"](attention, q, q[:, :2], q[:, :2], None, cache="a paged cache")
    assert ears.attention == []
    assert len(lines) == 1
    assert "model.layers.0.self_attn" in lines[0]
    assert "paged" in lines[0]
