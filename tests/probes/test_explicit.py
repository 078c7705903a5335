"""record_attention and its sisters, and whose calls are whose."""

import copy
import sys
import weakref
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.probes.matrix import hears, refuses
from tests.probes.models import Decoder, listening, one_line, softmax, tokens
from thermo_monitor import record_attention, record_output, record_representation
from thermo_monitor.guard import Guard
from thermo_monitor.probes import hub
from thermo_monitor.probes.ear import Ear
from thermo_monitor.probes.routes import caller, explicit


class ByHand(nn.Module):
    """Writes its own softmax, and reports it."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(4, 4)

    def forward(self, x):
        q = self.q(x).unsqueeze(1)
        mask = torch.ones(x.shape[1], x.shape[1]).tril().bool()
        record_attention("first", q, q, scale=0.7, mask=mask)
        weights = (0.7 * q @ q.mT).masked_fill(~mask, -torch.inf).softmax(-1)
        y = (weights @ q).squeeze(1)
        record_representation("inner", y, padding=torch.ones(x.shape[:2]))
        record_output(y, torch.zeros(x.shape[:2], dtype=torch.long), ignore_index=7)
        return weights


@hears("padding", "record_attention")
def test_everything_reported_is_heard():
    model = ByHand()
    with listening(model) as ears:
        weights = model(torch.randn(2, 5, 4))
    (call,) = ears.attention
    assert call.name == "first"
    assert (softmax(call) - weights).abs().max() < 1e-6
    assert ears.representation[0].hidden.shape == (2, 5, 4)
    assert ears.representation[0].told
    assert ears.output[0].logits.shape == (10, 4)
    assert ears.output[0].labels.shape == (10,)
    assert ears.output[0].ignore_index == 7


def test_the_scale_is_that_of_the_head_dimension_when_left_out():
    q = torch.randn(1, 1, 3, 16)
    with listening(ByHand()) as ears:
        record_attention("outside of any module", q, q)
    assert ears.attention[0].scale == 0.25


def test_nothing_happens_when_nobody_listens(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("something happened")

    for name in ("_tell", "called_by_stranger", "AttentionCall", "OutputCall", "RepresentationCall"):
        monkeypatch.setattr(explicit, name, never)
    record_attention("a", None, None)
    record_output(None, None)
    record_representation("b", None)
    monkeypatch.setattr(hub, "ACTIVE", (object(),))
    with pytest.raises(AssertionError, match="something happened"):
        record_representation("b", None)


def test_a_wrong_report_does_not_stop_the_program():
    guard = Guard()
    ear = Ear(ByHand(), guard)
    tried = []
    ear.hub.on_attention += [tried.append, lambda call: call.logits()]
    ear.install()
    ear.open()
    with one_line() as lines:
        for _ in range(3):
            record_attention("wrong", torch.randn(2, 3), torch.randn(2, 3))
            record_output(torch.tensor(1.0), torch.tensor(1))
    ear.close()
    assert set(guard.disabled) == {"attention", "output"}
    assert len(lines) == 2
    assert len(tried) == 1


@refuses("torch.func transforms", "record_attention")
def test_a_report_inside_a_function_transform_is_refused():
    def row(q):
        record_attention("inside", q[None, None], q[None, None])
        record_output(q, torch.zeros(3, dtype=torch.long))
        record_representation("inside", q)
        return q.sum()

    with one_line() as lines, listening(ByHand()) as ears:
        torch.func.vmap(row)(torch.randn(2, 3, 4))
    assert ears.attention == ears.output == ears.representation == []
    assert len(lines) == 1


# ---------------------------------------------------------------------------------------------------- whose call it is
class WithTeacher(nn.Module):
    """Hides its teacher from PyTorch, as people do to keep it out of the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.student = Decoder(layers=1)
        self.hidden = [Decoder(layers=1)]

    def forward(self, x):
        with torch.no_grad():
            self.hidden[0](x)
        return self.student(x)


class WithLoss(Decoder):
    def forward(self, x):
        logits = super().forward(x)
        record_attention("told", torch.randn(1, 1, 2, 2), torch.randn(1, 1, 2, 2))
        return nn.CrossEntropyLoss()(logits.flatten(0, 1), x.flatten())


def test_a_teacher_in_the_step_is_not_heard():
    student, teacher, x = WithLoss(layers=2), WithLoss(layers=2), tokens()
    with listening(student) as ears:
        teacher(x)
        assert ears.attention == ears.output == []
        student(x)
        teacher(x)
    assert ears.names == ["blocks.0.attention", "blocks.1.attention", "told"]
    assert len(ears.output) == 1


def test_a_hidden_teacher_inside_the_student_is_not_heard():
    model = WithTeacher()
    with listening(model) as ears:
        model(tokens())
    assert ears.names == ["student.blocks.0.attention"]


def test_two_models_with_open_hubs_are_kept_apart():
    a, b, x = WithLoss(layers=1), WithLoss(layers=2), tokens()
    with listening(a) as first, listening(b) as second:
        a(x)
        b(x)
        b(x)
    assert len(first.names) == 1 + 1
    assert len(second.names) == 2 * (2 + 1)
    assert (len(first.output), len(second.output)) == (1, 2)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_two_hubs_on_one_model_both_hear(implementation):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=8, n_layer=2, n_head=2, vocab_size=29, attn_implementation=implementation)
    model = transformers.GPT2LMHeadModel._from_config(config, attn_implementation=implementation)
    with listening(model) as whole, listening(model.transformer.h[1]) as part:
        model(tokens())
    assert whole.names == ["transformer.h.0.attn", "transformer.h.1.attn"]
    assert part.names == ["attn"]


def test_a_copy_is_neither_heard_nor_counted():
    model, x = Decoder(layers=1), tokens()
    with listening(model) as ears:
        average = copy.deepcopy(model)
        average(x)
        assert ears.attention == []
        assert ears.ear.hub.entrances == 0
        model(x)
    assert ears.names == ["blocks.0.attention"]


def test_a_loss_outside_any_model_or_in_a_wrapper_is_heard():
    model, x = Decoder(layers=1), tokens()

    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.further = nn.Linear(2, 2)

        def training_step(self, x):
            logits = self.model(x).flatten(0, 1)
            record_output(logits, x.flatten())
            return F.cross_entropy(logits, x.flatten())

    with listening(model) as ears:
        Wrapper().training_step(x)
        assert len(ears.output) == 2
        nn.CrossEntropyLoss()(model(x).flatten(0, 1), x.flatten())
    assert len(ears.output) == 3


def test_a_module_added_to_the_model_later_goes_under_the_name_above_it():
    model = nn.Sequential(Decoder(layers=1))
    with listening(model) as ears:
        model[0].blocks[0].attention = Decoder(layers=1).blocks[0].attention
        model(tokens())
    assert ears.names == ["0.blocks.0"]


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="frames keep no copy of their variables from Python 3.13 on")
def test_the_look_at_the_stack_keeps_nothing_alive():
    model = Decoder(layers=1)
    refs = []

    def program(x):
        mine = torch.ones(3)
        refs.append(weakref.ref(mine))
        caller.called_by_stranger({id(model): ""})
        del mine
        return refs[0]() is None

    def holding(x):
        variables = locals()
        caller.called_by_stranger({id(model): ""})
        return variables

    assert program(model)
    assert holding(model)["x"] is model


# -------------------------------------------------------------------------------- what only this route can be told of
def reported(**given) -> torch.Tensor:
    """The weights that follow from a report, [B, H, Q, K] or with a sink in front."""
    q, k = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8)
    with listening(ByHand()) as ears:
        record_attention("flex", q, k, **given)
    reported.tensors = q, k
    return softmax(ears.attention[0])


def flex(**given) -> torch.Tensor:
    """The weights of torch's flex_attention for the same tensors: with the identity as values they are its result."""
    from torch.nn.attention import flex_attention

    q, k = reported.tensors
    v = torch.eye(6, 8).expand(2, 2, 6, 8)  # torch 2.6 takes powers of two only
    # Not there in torch 2.6, and not needed.
    with mock.patch.object(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True, create=True):
        return flex_attention.flex_attention(q, k, v, enable_gqa=True, **given)[..., :6]


SLOPES = torch.tensor([0.5, 0.25, 0.1, 0.05])
RULES = {
    "alibi": lambda score, b, h, i, j: score - SLOPES[h] * (i - j).abs(),
    "cap": lambda score, b, h, i, j: 2 * torch.tanh(score / 2),
    "by example": lambda score, b, h, i, j: score * (1 + b),
}


@hears("causal", "record_attention")
@hears("grouped queries", "record_attention")
@hears("sliding window", "record_attention")
@hears("additive bias, ALiBi", "record_attention")
@pytest.mark.parametrize("rule", [None, *RULES])
@pytest.mark.parametrize("window", [None, 3])
def test_what_flex_attention_was_given_can_be_reported(rule, window):
    from torch.nn.attention.flex_attention import create_block_mask

    block = None
    if window is not None:
        rule_of_mask = lambda b, h, i, j: (i >= j) & (i - j < window)  # noqa: E731
        block = create_block_mask(rule_of_mask, None, None, 6, 6, device="cpu")
    given = {"score_mod": RULES.get(rule), "block_mask": block}
    ours = reported(**given)
    assert (ours - flex(**given)).abs().max() < 1e-5


@hears("soft cap", "record_attention")
@hears("sinks", "record_attention")
def test_caps_and_sinks_can_be_reported():
    ours = reported(softcap=0.7)
    assert (ours - flex(score_mod=lambda s, b, h, i, j: 0.7 * torch.tanh(s / 0.7))).abs().max() < 1e-5
    sinks = torch.randn(4)
    ours = reported(sinks=sinks)
    q, k = reported.tensors
    z = q @ k.repeat_interleave(2, 1).mT / 8**0.5
    whole = torch.cat([sinks[None, :, None, None].expand(2, 4, 6, 1), z], -1).softmax(-1)
    assert (ours - whole).abs().max() < 1e-6


@pytest.mark.parametrize(
    "given",
    [
        {"block_mask": "no mask"},
        {"softcap": 1.0, "score_mod": RULES["cap"]},
    ],
)
def test_a_contradictory_report_is_refused(given):
    q = torch.randn(1, 1, 3, 4)
    with one_line() as lines, listening(ByHand()) as ears:
        record_attention("mixed up", q, q, **given)
    assert ears.attention == []
    assert len(lines) == 1
    assert "mixed up" in lines[0]
