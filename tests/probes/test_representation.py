"""The representation probe: which block, which tokens, and the values."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.probes.models import Decoder, Measuring, tokens
from thermo_monitor.guard import Guard
from thermo_monitor.physics import representation as geometry
from thermo_monitor.probes import RepresentationProbe, record_representation
from thermo_monitor.probes.base import Surroundings
from thermo_monitor.probes.blocks import last_block
from thermo_monitor.probes.ear import Ear
from thermo_monitor.probes.representation import _POSSIBLE


def expected(z: Tensor) -> dict[str, float]:
    """The physics of the tokens [n, d]."""
    z = z.detach().double()
    lam, d = geometry.spectrum(z), z.shape[-1]
    return {
        "repr/representation_entropy": geometry.representation_entropy(z).item(),
        "repr/spectral_entropy": geometry.spectral_entropy(lam, d).item(),
        "repr/effective_rank": geometry.effective_rank(lam).item(),
        "repr/participation_ratio": geometry.participation_ratio(lam).item(),
        "repr/head_tail_contrast": geometry.head_tail_contrast(lam).item(),
    }


def probe(**options: object) -> RepresentationProbe:
    return RepresentationProbe(quantities=_POSSIBLE, **options)


def output_of(module: nn.Module, call) -> Tensor:
    """What a module gives, by a hook of our own."""
    seen: list[Tensor] = []
    handle = module.register_forward_hook(lambda m, a, out: seen.append(out if isinstance(out, Tensor) else out[0]))
    call()
    handle.remove()
    return seen[0]


def huggingface(kind: str) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 29, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    config = {
        "gpt2": lambda: transformers.GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=29),
        "llama": lambda: transformers.LlamaConfig(num_attention_heads=2, **small),
        "bert": lambda: transformers.BertConfig(num_attention_heads=2, **small),
        "t5": lambda: transformers.T5Config(d_model=16, d_kv=4, d_ff=8, num_layers=2, num_heads=2, vocab_size=29),
    }[kind]()
    build = transformers.AutoModelForSeq2SeqLM if kind == "t5" else transformers.AutoModelForCausalLM
    return (transformers.BertForMaskedLM(config) if kind == "bert" else build.from_config(config)).eval()


BLOCKS = {
    "gpt2": "transformer.h.2",
    "llama": "model.layers.1",
    "bert": "bert.encoder.layer.1",
    "t5": "decoder.block.1",
}


def test_the_last_block_is_found():
    for kind, name in BLOCKS.items():
        assert last_block(huggingface(kind)) == name
    assert last_block(Decoder(layers=3)) == "blocks.2"
    assert last_block(nn.Transformer(8, 2, 2, 2, 8, batch_first=True)) == "decoder.layers.1"
    assert last_block(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("module", ["", "blocks.0", "blocks.1.attention.out"])
def test_values_are_those_of_the_formulas(module):
    model, x = Decoder(), tokens(batch=5)
    with Measuring(model, probe(module=module)) as measuring:
        hidden = output_of(model.get_submodule(module or "blocks.1"), lambda: model(x))
        found = measuring.values()
    assert found == pytest.approx(expected(hidden.flatten(0, 1)), rel=1e-4, nan_ok=True)


def test_an_unknown_module_is_refused_with_names_that_exist():
    with pytest.raises(ValueError, match=r"no module 'blocks.9'; it has embed, blocks"):
        Measuring(Decoder(), probe(module="blocks.9"))


def padded(side: str, batch: int = 4, length: int = 9) -> Tensor:
    real = torch.ones(batch, length, dtype=torch.long)
    for k in range(1, batch):
        real[k, slice(0, k) if side == "left" else slice(length - k, length)] = 0
    return real


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_padding_is_left_out(kind, side, positions, wrapped):
    inner, x, real = huggingface(kind), tokens(batch=4), padded(side)

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = inner

        def forward(self, batch):
            return self.model(**batch)

    model = Wrapper() if wrapped else inner
    batch = {"input_ids": x, "attention_mask": real}
    with Measuring(model, probe(positions=positions)) as measuring, torch.no_grad():
        hidden = output_of(inner.get_submodule(BLOCKS[kind]), lambda: model(batch) if wrapped else model(**batch))
        found = measuring.values()
    rows = hidden[real.bool()]
    if positions == "last":
        last = [max(i for i in range(9) if real[k, i]) for k in range(4)]
        rows = torch.stack([hidden[k, i] for k, i in enumerate(last)])
    assert found == pytest.approx(expected(rows), rel=1e-4, nan_ok=True)


def test_the_mask_may_stand_among_the_arguments_by_position():
    model, x, real = huggingface("llama"), tokens(batch=4), padded("right")
    with Measuring(model, probe()) as measuring, torch.no_grad():
        hidden = output_of(model.model.layers[1], lambda: model(x, real))
        assert measuring.values() == pytest.approx(expected(hidden[real.bool()]), rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("own", [False, True])
def test_the_decoder_has_a_mask_of_its_own(own):
    """Of the same shape as the encoder's, which says nothing about the decoder's tokens."""
    model, x = huggingface("t5"), tokens(batch=4)
    batch = {"input_ids": x, "attention_mask": padded("left"), "decoder_input_ids": x}
    if own:
        batch["decoder_attention_mask"] = padded("right")
    with Measuring(model, probe()) as measuring, torch.no_grad():
        hidden = output_of(model.decoder.block[1], lambda: model(**batch))
        rows = hidden[padded("right").bool()] if own else hidden.flatten(0, 1)
        assert measuring.values() == pytest.approx(expected(rows), rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("additive", [False, True])
@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("through", ["encoder", "layers"])
def test_the_encoder_of_torch(batch_first, additive, positions, through):
    layer = nn.TransformerEncoderLayer(16, 2, 16, 0.0, batch_first=batch_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train()
    x, real = torch.randn(4, 9, 16), padded("right").bool()
    mask = torch.where(real, 0.0, -torch.inf) if additive else ~real

    def call():
        y = x if batch_first else x.transpose(0, 1)
        if through == "encoder":
            return model(y, src_key_padding_mask=mask)
        for layer in model.layers:
            y = layer(y, src_key_padding_mask=mask)

    with Measuring(model, probe(positions=positions)) as measuring, torch.no_grad():
        hidden = output_of(model.layers[1], call)
        found = measuring.values()
    hidden = hidden if batch_first else hidden.transpose(0, 1)
    rows = hidden[real] if positions == "all" else torch.stack([hidden[k, 8 - k] for k in range(4)])
    assert found == pytest.approx(expected(rows), rel=1e-4, nan_ok=True)


def test_the_mask_of_one_pass_does_not_reach_the_next():
    model, x = huggingface("gpt2"), tokens(batch=4)
    with Measuring(model, probe()) as measuring, torch.no_grad():
        model(x, attention_mask=padded("right"))
        measuring.listener.collect()
        measuring.ear.open()
        hidden = output_of(model.transformer.h[2], lambda: model(x))
        assert measuring.values() == pytest.approx(expected(hidden.flatten(0, 1)), rel=1e-4, nan_ok=True)


def test_a_sequence_without_a_real_token_does_not_count():
    z, real = torch.randn(4, 9, 8), padded("right")
    real[2] = 0
    with Measuring(nn.Linear(2, 2), probe(positions="last")) as measuring:
        record_representation("mine", z, padding=real)
        found = measuring.values()
    assert found == pytest.approx(expected(torch.stack([z[0, 8], z[1, 7], z[3, 5]])), rel=1e-4, nan_ok=True)


def test_the_line_of_the_user_goes_before_the_block_that_was_found():
    z = torch.randn(20, 8)

    class Reporting(Decoder):
        def forward(self, x):
            y = super().forward(x)
            record_representation("mine", z)
            record_representation("later", 2 + z**2)
            return y

    with Measuring(model := Reporting(), probe()) as measuring:
        model(tokens())
        assert measuring.values() == pytest.approx(expected(z), rel=1e-4, nan_ok=True)


def test_a_sample_of_many_tokens_is_evenly_spaced():
    z = torch.randn(10, 100, 8)
    with Measuring(nn.Linear(2, 2), probe(tokens=50)) as measuring:
        record_representation("mine", z)
        found = measuring.values()
    assert found == pytest.approx(expected(z.flatten(0, 1)[10::20]), rel=1e-4, nan_ok=True)


def test_only_the_first_micro_batch_is_read():
    model = Decoder()
    with Measuring(model, probe()) as measuring:
        hidden = output_of(model.blocks[1], lambda: model(tokens()))
        model(tokens(seed=1))
        assert measuring.values() == pytest.approx(expected(hidden.flatten(0, 1)), rel=1e-4, nan_ok=True)


def test_outputs_in_a_mapping_and_what_is_no_representation():
    class Odd(nn.Module):
        def __init__(self, answer: object) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Identity()])
            self.layers[0].forward = lambda: answer

        def forward(self):
            return self.layers[0]()

    z = torch.randn(5, 4)
    for answer, heard in [({"hidden": z}, True), ((z, 1), True), (None, False), ((), False), ("text", False)]:
        with Measuring(model := Odd(answer), probe()) as measuring:
            model()
            found = measuring.values()
        if heard:
            assert found == pytest.approx(expected(z), rel=1e-4, nan_ok=True)
        else:
            assert all(math.isnan(value) for value in found.values())


@pytest.mark.parametrize(
    ("z", "reason"), [(torch.ones(5, 4), "degenerate"), (torch.full((5, 4), math.nan), "non_finite")]
)
def test_what_has_no_spectrum_says_why(z, reason):
    with Measuring(nn.Linear(2, 2), RepresentationProbe(quantities=("repr/spectral_entropy",))) as measuring:
        record_representation("mine", z)
        (reading,) = measuring.read().readings
    assert math.isnan(reading.value)
    assert reading.reason == reason


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_all_blocks_on_request(kind):
    """Each block is a row of the map, padding left out everywhere; the model is its last block."""
    model, x, real = huggingface(kind), tokens(batch=4), padded("left")
    names = [f"{BLOCKS[kind].rpartition('.')[0]}.{k}" for k in range(int(BLOCKS[kind][-1]) + 1)]
    with Measuring(model, probe(layers="all")) as measuring, torch.no_grad():
        hidden = {name: output_of(model.get_submodule(name), lambda: model(x, attention_mask=real)) for name in names}
        measured = measuring.read()
    assert {r.quantity: r.value for r in measured.readings} == pytest.approx(
        expected(hidden[names[-1]][real.bool()]), rel=1e-4, nan_ok=True
    )
    assert [one.quantity for one in measured.maps] == list(_POSSIBLE)
    for one in measured.maps:
        assert one.layers == tuple(names)
        assert one.values[:, 0] == pytest.approx(
            [expected(hidden[name][real.bool()])[one.quantity] for name in names], rel=1e-4, nan_ok=True
        )


def test_up_to_a_given_block_and_with_the_line_of_the_user():
    z = torch.randn(20, 8)

    class Reporting(Decoder):
        def forward(self, x):
            record_representation("mine", z)
            return super().forward(x)

    with Measuring(model := Reporting(layers=3), probe(layers="all", module="blocks.1")) as measuring:
        model(tokens())
        measured = measuring.read()
    assert measured.maps[0].layers == ("blocks.0", "blocks.1", "mine")
    assert {r.quantity: r.value for r in measured.readings} == pytest.approx(expected(z), rel=1e-4, nan_ok=True)
    with Measuring(model := Decoder(), probe(layers="all", module="head")) as measuring:
        model(tokens())
        assert measuring.read().maps[0].layers == ("head",)
    with pytest.raises(ValueError, match="layers='some'"):
        probe(layers="some")


def test_all_blocks_on_two_ranks_read_as_one():
    """Each rank hears its part of the batch; their rows together give what one rank with all of it gives."""
    torch.manual_seed(0)
    model, x = Decoder(), tokens(batch=4)
    options = probe(layers="all", tokens=4 * x.shape[1])
    with Measuring(model, options) as measuring:
        model(x)
        whole = measuring.read()
    sums: dict[str, object] = {}
    for rank, part in enumerate(x.split(2)):
        ear = Ear(model, Guard(strict=True))
        listener = options.listen(Surroundings(model, None, ear.hub, 0, rank=rank, ranks=2))
        ear.install()
        ear.open()
        model(part)
        label, tensors = listener.collect()
        shares = listener.shares(label, [t.detach().double().numpy() for t in tensors])
        sums = {key: sums[key] + array if key in sums else array for key, array in shares.items()}
        listener.close()
        ear.close()
    label, arrays = listener.pooled(label, sums, 2)
    pooled = listener.read(0, label, arrays)
    values = [r.value for r in whole.readings]
    assert [r.value for r in pooled.readings] == pytest.approx(values, rel=1e-5, nan_ok=True)
    for one, other in zip(pooled.maps, whole.maps, strict=True):
        assert one.layers == other.layers == ("blocks.0", "blocks.1")
        assert one.values == pytest.approx(other.values, rel=1e-5, nan_ok=True)
