import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.analysis.decoders import LENGTH, Decoder, sentences
from thermo_monitor.analysis.capture import hearing


def test_what_is_heard_is_what_passes():
    model, ids = Decoder(layers=3), sentences()
    with hearing(model) as hear:
        heard = hear(ids)
    model.eval()
    x = model.embed(ids) + model.position
    expected = {"input": x}
    for k, block in enumerate(model.blocks):
        x = expected[f"blocks.{k}"] = block(x)
    assert list(heard.hidden) == list(expected)
    assert list(heard.attention) == [f"blocks.{k}" for k in range(3)]
    for name, value in expected.items():
        assert_close(heard.hidden[name], value.detach())
    for k, block in enumerate(model.blocks):
        assert_close(heard.attention[f"blocks.{k}"], block.weights[:, :, -1])
    assert_close(heard.output, model.head(x).detach())


def test_the_model_is_left_as_it_was():
    model, ids = Decoder(), sentences()
    model.blocks[0].eval()
    before, hooks = [m.training for m in model.modules()], [len(m._forward_hooks) for m in model.modules()]
    state = torch.get_rng_state()
    with hearing(model) as hear:
        assert_close(hear(ids).output, hear(ids).output)  # no dropout
        with pytest.raises(IndexError):
            hear(ids + 100)
    assert [m.training for m in model.modules()] == before
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), state)


def test_double_precision_stays_and_half_becomes_single():
    for dtype, kept in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        with hearing(Decoder().to(dtype)) as hear:
            assert {x.dtype for x in hear(sentences()).hidden.values()} == {kept}


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ValueError, match="Linear has no list of blocks"), hearing(nn.Linear(2, 2)):
        pass


def test_a_model_of_transformers_under_its_own_attention():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        bos_token_id=0, eos_token_id=0, max_position_embeddings=LENGTH,
    )  # fmt: skip
    model, ids = transformers.GPTNeoXForCausalLM(config).eval(), sentences()
    with hearing(model) as hear:
        heard = hear(ids)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(ids, output_hidden_states=True, output_attentions=True)
    assert_close(heard.hidden["input"], out.hidden_states[0])
    assert_close(heard.hidden["gpt_neox.layers.0"], out.hidden_states[1])
    for weights, expected in zip(heard.attention.values(), out.attentions, strict=True):
        assert_close(weights, expected[:, :, -1], rtol=1e-4, atol=1e-5)
