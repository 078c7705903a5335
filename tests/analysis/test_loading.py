"""What is on this disk is read; nothing beside the weights is run, and nothing is fetched."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from tests.analysis.decoders import VOCABULARY, Decoder
from thermo_monitor.analysis.loading import load
from thermo_monitor.analysis.material import prepare, read_prompts

BUILD = "tests.analysis.decoders:Decoder"


class Trap:
    """A pickle of this would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def checkpoint(path, model, prefix="", **more):
    torch.save({"state_dict": {prefix + k: v for k, v in model.state_dict().items()}, "epoch": 3, **more}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "model.", "net.inner."])
def test_a_lightning_checkpoint(tmp_path, prefix):
    model = Decoder(width=8, layers=1)
    hyper = {"width": 8, "layers": 1, "lr": 0.1}  # what the model does not take is left
    path = checkpoint(tmp_path / "a.ckpt", model, prefix, hyper_parameters=hyper)
    loaded = load(path, BUILD)
    assert not loaded.model.training
    assert loaded.tokenizer is None
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value)


def test_a_file_of_safetensors(tmp_path):
    model = Decoder()
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    assert torch.equal(load(tmp_path / "a.safetensors", BUILD).model.head.weight, model.head.weight)


@pytest.mark.parametrize("kind", ["beside", "bare"])
def test_a_pickle_is_refused_and_not_run(tmp_path, kind):
    trap = tmp_path / "written"
    path = tmp_path / "a.ckpt"
    if kind == "beside":
        checkpoint(path, Decoder(), callbacks=Trap(trap))
    else:
        path.write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(ValueError, match=r"a\.ckpt") as refused:
        load(path, BUILD)
    assert "\n" not in str(refused.value)
    assert not trap.exists()
    if kind == "beside":
        assert "refused" in str(refused.value)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (None, "say what makes the model with --model"),
        ("tests.analysis.decoders", "give module:Class"),
        ("tests.analysis.decoders:Nothing", "AttributeError"),
        ("no_such_module:Class", "ModuleNotFoundError"),
        ("pathlib:PurePosixPath", "makes a PurePosixPath"),
        ("tests.analysis.decoders:Block", "does not fit"),
    ],
)
def test_what_makes_no_model_is_said_in_a_line(tmp_path, build, words):
    path = checkpoint(tmp_path / "a.ckpt", Decoder())
    with pytest.raises(ValueError, match=words) as said:
        load(path, build)
    assert "\n" not in str(said.value)


def test_weights_of_another_size_and_files_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"does not fit.*size mismatch"):
        load(checkpoint(tmp_path / "a.ckpt", Decoder(width=8)), BUILD)
    torch.save({"epoch": 3}, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match="holds no state_dict"):
        load(tmp_path / "b.ckpt", BUILD)
    (tmp_path / "c.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "c.ckpt", BUILD)
    (tmp_path / "c.safetensors").write_bytes(b"no header")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load(tmp_path / "c.safetensors", BUILD)
    (tmp_path / "d.txt").write_text("")
    with pytest.raises(ValueError, match="is no checkpoint"):
        load(tmp_path / "d.txt", BUILD)
    with pytest.raises(ValueError, match=r"is not on this disk.*nothing is downloaded"):
        load("openai-community/gpt2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small model of transformers, saved as people do."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        bos_token_id=0, eos_token_id=0, max_position_embeddings=12,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("folder")
    transformers.GPTNeoXForCausalLM(config).save_pretrained(path)
    return path


def copied(folder, tmp_path):
    for part in folder.iterdir():
        (tmp_path / part.name).write_bytes(part.read_bytes())
    return tmp_path


def test_a_folder_of_transformers(folder):
    loaded = load(folder)
    assert loaded.model(torch.zeros(1, 2, dtype=torch.int64)).logits.shape == (1, 2, VOCABULARY)
    material = prepare(loaded, [(1, 2, 3), tuple(range(12)), tuple(range(13)), (), (4, 5, 6)])
    assert material.left_out == {"context_exceeded": 1, "empty_prompt": 1}
    assert material.ids.shape == (1, 12)
    assert prepare(loaded, [(1, 2, 3), (4, 5, 6, 7)], length=3).ids.tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ValueError, match="the token 23"):
        prepare(loaded, [(1, 23)])
    with pytest.raises(ValueError, match=r"none of the 2 prompts can be read \(2 empty_prompt\)"):
        prepare(loaded, [(), ()])


def test_code_and_pickles_in_a_folder_are_refused(folder, tmp_path):
    path = copied(folder, tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    (path / "evil.py").write_text(f"open({str(path / 'written')!r}, 'w')")
    with pytest.raises(ValueError, match="code of its own"):
        load(path)
    assert not (path / "written").exists()
    (path / "config.json").write_text(json.dumps(config))
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:100])
    with pytest.raises(ValueError, match="transformers cannot load"):
        load(path)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled weights \(pytorch_model.bin\).*safe_serialization"):
        load(path)
    (path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json"):
        load(path)


def test_a_tokenizer_without_a_stop_symbol(folder, tmp_path):
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    words = {f"w{k}": k for k in range(VOCABULARY)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = copied(folder, tmp_path)
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w0").save_pretrained(path)
    loaded = load(path)
    assert loaded.tokenizer.eos_token_id is None
    assert [one.ids for one in prepare(loaded, ["w3 w4", "w5"]).encoded] == [(3, 4), (5,)]
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "auto_map": {"AutoTokenizer": "evil.T"}}))
    with pytest.raises(ValueError, match=r"tokenizer.*code of its own"):
        load(path)
    with pytest.raises(ValueError, match="has no tokenizer"):
        load(folder, tokenizer=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "text", "ids", "found"),
    [
        ("a.txt", "one\n\n two words \n", False, ["one", " two words "]),
        ("a.txt", "1 2 3\n4,5\n", True, [(1, 2, 3), (4, 5)]),
        ("a.jsonl", '"one"\n{"prompt": "two"}\n{"text": "three"}\n[1, 2]\n', False, ["one", "two", "three", (1, 2)]),
    ],
)
def test_prompts(tmp_path, name, text, ids, found):
    (tmp_path / name).write_text(text)
    assert read_prompts(tmp_path / name, ids) == found


@pytest.mark.parametrize(
    ("name", "text", "ids", "words"),
    [
        ("a.txt", "\n \n", False, "has no prompts"),
        ("a.txt", "a word\n", True, "line 1: the model has no tokenizer"),
        ("a.jsonl", "[1\n", False, "line 1: no JSON"),
        ("a.jsonl", '{"other": 1}\n', False, "line 1: neither"),
        ("a.jsonl", '"text"\n', True, "line 1: neither"),
    ],
)
def test_files_that_are_no_prompts(tmp_path, name, text, ids, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=words):
        read_prompts(tmp_path / name, ids)
    with pytest.raises(ValueError, match="cannot read"):
        read_prompts(tmp_path / "missing")
    (tmp_path / "latin").write_bytes(b"\xe4\n")
    with pytest.raises(ValueError, match="UTF-8"):
        read_prompts(tmp_path / "latin")
