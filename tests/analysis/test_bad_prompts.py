"""What is no prompt, no model or no option: a defined value, NaN with a reason, or one clear error."""

import math

import pytest
import torch

from tests.analysis.models import decoder, random_markov
from thermo_monitor import quantities
from thermo_monitor.analysis.entropy_scan import entropy_scan
from thermo_monitor.analysis.language import adapt
from thermo_monitor.analysis.parallel import ensemble_entropy
from thermo_monitor.analysis.prompt_entropy import prompt_entropy

MODEL = random_markov()


class Tokenizer:
    bos_token_id = None
    eos_token_id = None

    def __call__(self, text):
        return {"input_ids": [int(c) for c in text]}


class Complete(Tokenizer):
    bos_token_id = 1
    eos_token_id = 0


def one(*args, **kwargs):
    (record,) = prompt_entropy(*args, **{"stop": 0, "samples": 3, "tokens": 4, **kwargs})
    return record


@pytest.mark.parametrize("empty", [[], ""])
def test_an_empty_prompt_needs_a_symbol_that_begins(empty):
    record = one(MODEL, [empty], tokenizer=Tokenizer())
    assert math.isnan(record.entropy)
    assert (record.status, record.reason) == ("undefined", "empty_prompt")
    begun = one(MODEL, [empty], tokenizer=Complete())
    assert begun.entropy == one(MODEL, [[1]]).entropy
    assert one(MODEL, [empty], tokenizer=Tokenizer(), begin=2).entropy == one(MODEL, [[2]]).entropy


def test_a_prompt_longer_than_the_context():
    pytest.importorskip("transformers")
    model = decoder(context=8)
    record = one(model, [[1] * 9])
    assert (record.status, record.reason) == ("undefined", "context_exceeded")
    full = one(model, [[1] * 8], tokens=50)  # one prediction is left
    assert full.length == 1
    assert full.entropy == pytest.approx(full.next_entropy)
    with pytest.raises(ValueError, match="9 tokens, the model's context 8"):
        ensemble_entropy(model, [1] * 9, runs=2, tokens=2)
    short = ensemble_entropy(model, [1] * 6, runs=2, tokens=50)
    assert (len(short.marginal), short.reason) == (3, "context_exceeded")


def test_no_stop_symbol_is_a_lower_bound_with_the_reason():
    record = one(MODEL, ["12"], tokenizer=Tokenizer(), stop=None)
    assert (record.status, record.reason, record.truncated) == ("lower_bound", "no_stop_symbol", 1.0)
    assert one(MODEL, ["12"], tokenizer=Complete(), stop=None).reason != "no_stop_symbol"


def test_the_stop_symbol_of_the_model_is_found():
    pytest.importorskip("transformers")
    assert adapt(decoder(stop=7)).stop == (7,)
    assert adapt(decoder(stop=[3, 4])).stop == (3, 4)
    assert one(decoder(stop=[3, 4]), [[1]], stop=None, tokens=200, samples=8).truncated < 1


@pytest.mark.parametrize(
    ("prompts", "options", "words"),
    [
        ([[25]], {}, "token 25, and the vocabulary of the model 20"),
        ([[-1]], {}, "token -1"),
        ([[1]], {"stop": 20}, "stop=20 is no token"),
        (["text"], {}, "give a tokenizer"),
        ([[1]], {"temperature": 0.0}, "temperature=0.0"),
        ([[1]], {"top_p": 0.0}, "top_p=0.0"),
        ([[1]], {"top_k": 0}, "top_k=0"),
        ([[1]], {"samples": 0}, "samples=0"),
        ([[1]], {"tokens": 0}, "tokens=0"),
    ],
)
def test_one_clear_error(prompts, options, words):
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match=words):
        one(decoder(), prompts, **options)


def test_a_stop_symbol_that_a_callable_does_not_have():
    with pytest.raises(ValueError, match="stop=9 is no token of the model, which has 4"):
        one(MODEL, [[1]], stop=9)


@pytest.mark.parametrize("model", [3, lambda ids: 3.0, lambda ids: torch.zeros(7, 2, 3)])
def test_what_is_no_language_model(model):
    with pytest.raises(ValueError, match=r"logits \[B"):
        one(model, [[1]])


def test_an_encoder_decoder_is_refused():
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=9)
    with pytest.raises(ValueError, match="encoder-decoder"):
        adapt(transformers.T5ForConditionalGeneration(config))


def test_logits_that_are_not_finite():
    record = one(lambda ids: torch.full((*ids.shape, 3), math.nan), [[1]])
    assert (record.status, record.reason) == ("undefined", "non_finite")


def test_one_continuation_has_no_error_and_no_prompt_has_no_mean():
    record = one(MODEL, [[1]], samples=1)
    assert math.isfinite(record.entropy)
    assert math.isnan(record.error)
    nothing = entropy_scan(MODEL, [], stop=0)
    assert nothing.prompts == nothing.read == 0
    assert math.isnan(nothing.mean)
    assert all(math.isnan(s.value) for s in nothing.shares.values())


def test_every_reason_is_explained():
    for reason in ("empty_prompt", "context_exceeded", "no_stop_symbol", "truncated", "unreachable"):
        assert quantities.REASONS[reason]
