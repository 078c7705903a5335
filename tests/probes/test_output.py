"""The output probe against direct computation, and which cross entropy it takes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.probes.models import VOCABULARY, Decoder, Measuring, tokens
from thermo_monitor.probes import OutputProbe, record_output
from thermo_monitor.probes.output import _POSSIBLE

NOW = tuple(key for key in _POSSIBLE if key != "out/calibration_drift")  # that one needs a past
ALL = OutputProbe(quantities=NOW)


def slow(logits: Tensor, labels: Tensor, ignore_index: int = -100, temperature: float = 1.0) -> dict[str, float]:
    """The definitions, token by token, for logits [N, V]."""
    losses, entropies, heats = [], [], []
    for y, label in zip(logits.detach().double(), labels.tolist(), strict=True):
        if label == ignore_index:
            continue
        p = y.exp() / y.exp().sum()
        losses.append(-math.log(p[label].item()))
        entropies.append(-(p * p.log()).sum().item())
        heats.append((p * (y - (p * y).sum()) ** 2).sum().item())
    n = len(losses)
    mean, entropy = sum(losses) / n, sum(entropies) / n
    return {
        "out/cross_entropy": mean,
        "out/entropy_term": temperature * entropy,
        "out/training_free_energy": mean - temperature * entropy,
        "out/predictive_entropy": entropy,
        "out/output_specific_heat": sum(heats) / n,
        "out/calibration_gap": mean - sum(entropies) / n,
        "loss/loss_variance": sum((x - mean) ** 2 for x in losses) / (n - 1),
    }


def measured(action, probe: OutputProbe = ALL) -> dict[str, float]:
    with Measuring(Decoder(), probe) as measuring:
        action()
        return measuring.values()


def labels_with_holes(n: int, share: float = 0.4) -> Tensor:
    labels = torch.randint(VOCABULARY, (n,))
    return torch.where(torch.rand(n) < share, -100, labels)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_tokens_take_no_part(reduction):
    logits, labels = 2 * torch.randn(60, VOCABULARY), labels_with_holes(60)
    logits[labels == -100] = math.nan
    found = measured(lambda: F.cross_entropy(logits, labels, reduction=reduction, label_smoothing=0.1))
    assert found == pytest.approx(slow(logits, labels, temperature=0.1 / 0.9), rel=1e-5)


@pytest.mark.parametrize("ignore", [-100, 0, 7])
def test_the_index_that_is_ignored_may_be_another(ignore):
    logits, labels = torch.randn(60, VOCABULARY), torch.randint(VOCABULARY, (60,))
    for loss in (nn.CrossEntropyLoss(ignore_index=ignore), lambda y, t: F.cross_entropy(y, t, None, None, ignore)):
        assert measured(lambda loss=loss: loss(logits, labels)) == pytest.approx(slow(logits, labels, ignore), rel=1e-5)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)])
def test_classes_in_the_second_dimension(shape):
    logits = torch.randn(shape[0], VOCABULARY, *shape[1:])
    labels = torch.randint(VOCABULARY, shape)
    found = measured(lambda: F.cross_entropy(logits, labels))
    flat = torch.stack([logits[i, :, *rest] for i, *rest in torch.ones(shape).nonzero().tolist()])
    assert found == pytest.approx(slow(flat, labels.flatten()), rel=1e-5)


def test_one_example_without_a_batch_has_no_variance():
    found = measured(lambda: F.cross_entropy(torch.randn(VOCABULARY), torch.tensor(3)))
    assert math.isnan(found["loss/loss_variance"])
    assert found["out/predictive_entropy"] > 0


def test_the_loss_of_a_causal_model():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=VOCABULARY)
    model, x = transformers.GPT2LMHeadModel(config).eval(), tokens()
    labels = torch.where(torch.rand(x.shape) < 0.3, -100, x)
    with Measuring(model, ALL) as measuring:
        logits = model(x, labels=labels).logits
        found = measuring.values()
    assert found == pytest.approx(slow(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), rel=1e-5)


def test_only_the_first_cross_entropy_of_a_pass_counts():
    model, x = Decoder(), tokens()
    with Measuring(model, ALL) as measuring:
        logits = model(x).flatten(0, 1)
        F.cross_entropy(logits, x.flatten())
        F.cross_entropy(100 * logits, x.flatten())
        found = measuring.values()
    assert found == pytest.approx(slow(logits, x.flatten()), rel=1e-5)


def test_probabilities_are_no_labels():
    logits = torch.randn(8, VOCABULARY)
    soft, hard = torch.softmax(torch.randn(8, VOCABULARY), -1), torch.randint(VOCABULARY, (8,))

    def program():
        F.cross_entropy(logits, soft)
        F.cross_entropy(logits, hard)

    assert measured(program) == pytest.approx(slow(logits, hard), rel=1e-5)
    with Measuring(Decoder(), ALL) as measuring:
        F.cross_entropy(logits, soft)
        assert {r.reason for r in measuring.read().readings} == {"no_logits"}


def test_a_loss_that_is_reported():
    logits, labels = torch.randn(4, 5, VOCABULARY), torch.randint(VOCABULARY, (4, 5))
    labels[0] = -1
    found = measured(lambda: record_output(logits, labels, ignore_index=-1))
    assert found == pytest.approx(slow(logits.flatten(0, 1), labels.flatten(), -1), rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.97, 1.0])
def test_a_sample_is_taken_of_the_labelled_tokens(monkeypatch, share):
    """Where the answer is a few tokens of a long text, they are what is read."""
    monkeypatch.setattr("thermo_monitor.probes.output._CHEAP", 0)
    logits, labels = torch.randn(1000, VOCABULARY), labels_with_holes(1000, share)
    found = measured(lambda: F.cross_entropy(logits, labels), OutputProbe(tokens=100, quantities=NOW))
    labelled = (labels != -100).nonzero().flatten()
    n = len(labelled)
    if n == 0:
        assert all(math.isnan(value) for value in found.values())
        return
    chosen = labelled if n <= 100 else labelled[[(2 * i + 1) * n // 200 for i in range(100)]]
    assert found == pytest.approx(slow(logits[chosen], labels[chosen]), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "temperature"),
    [({"entropy_bonus": 0.3}, 0.3 / 0.8 + 0.25), ({"entropy_bonus": 0.3, "label_smoothing": 0.0}, 0.3)],
)
def test_the_temperature_of_training_is_heard_or_given(options, temperature):
    logits, labels = torch.randn(60, VOCABULARY), torch.randint(VOCABULARY, (60,))
    probe = OutputProbe(quantities=NOW, **options)
    found = measured(lambda: F.cross_entropy(logits, labels, None, None, -100, None, "mean", 0.2), probe)
    assert found == pytest.approx(slow(logits, labels, temperature=temperature), rel=1e-5)


def test_the_drift_is_the_slope_of_the_gap():
    probe = OutputProbe(quantities=("out/calibration_gap", "out/calibration_drift"))
    logits, labels = torch.randn(60, VOCABULARY), torch.randint(VOCABULARY, (60,))
    gaps, drifts = [], []
    with Measuring(Decoder(), probe) as measuring:
        for step in range(12):
            F.cross_entropy((1 + step / 10) * logits, labels)
            gap, drift = measuring.read(step).readings
            gaps.append(gap.value)
            drifts.append(drift)
    assert [r.reason for r in drifts[:7]] == ["too_early"] * 7
    slope = np.polyfit(range(12), gaps, 1)[0]
    assert drifts[-1].value == pytest.approx(1000 * slope, rel=1e-6)
    assert 0 < drifts[-1].error < 200 * slope


@pytest.mark.parametrize("options", [{"window": 3}, {"entropy_bonus": -1.0}, {"label_smoothing": 1.0}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        OutputProbe(**options)


def test_the_loss_does_not_change():
    logits, labels = torch.randn(60, VOCABULARY, requires_grad=True), labels_with_holes(60)
    before = F.cross_entropy(logits, labels)
    (gradient,) = torch.autograd.grad(before, logits)
    with Measuring(Decoder(), ALL):
        after = F.cross_entropy(logits, labels)
        assert torch.equal(torch.autograd.grad(after, logits)[0], gradient)
    assert torch.equal(before, after)
