"""Prompt entropy against size and against answers."""

import math

import numpy as np
import pytest
import torch

from tests.analysis.models import Markov, decoder
from thermo_monitor.analysis.prompt_study import against_answers, against_size


def knowing(sure):
    """After a question (token 4 + i) the answer 1 with its own certainty, else 2 or 3; after an answer it stops."""
    p = np.zeros((4 + len(sure), 4 + len(sure)))
    p[:4, 0] = 1
    for i, s in enumerate(sure):
        p[4 + i, 1:4] = s, (1 - s) * 0.7, (1 - s) * 0.3
    return Markov(p)


def test_entropy_tells_right_from_wrong():
    sure = [0.999, 0.95, 0.9, 0.3, 0.2, 0.1]
    found = against_answers(knowing(sure), [[4 + i] for i in range(6)], [[1]] * 6, stop=0, samples=20)
    assert found.right.tolist() == [True] * 3 + [False] * 3
    assert found.probability == pytest.approx(sure)
    assert (found.auroc, found.reason) == (1.0, None)
    assert found.mean_right < found.mean_wrong
    mixed = against_answers(knowing(sure), [[4 + i] for i in range(6)], [[2], [1], [1], [2], [2], [1]], stop=0)
    pairs = [(a, b) for a in (1, 2, 3, 4) for b in (0, 5)]
    entropy = [r.entropy for r in mixed.records]
    assert mixed.right.tolist() == [False, True, True, True, True, False]
    assert mixed.auroc == pytest.approx(np.mean([entropy[a] < entropy[b] for a, b in pairs]))
    assert mixed.low <= mixed.auroc <= mixed.high


def test_answers_of_several_lengths_are_scored_with_their_stop_symbol():
    pytest.importorskip("transformers")
    model = decoder().eval()
    questions, answers = [[1, 2], [3], [4, 5, 6]], [[7, 8, 9], [2], []]
    found = against_answers(model, questions, answers, samples=2, tokens=4)
    for q, a, p in zip(questions, answers, found.probability, strict=True):
        text = torch.tensor([[*q, *a, 0]])
        log_p = model(text).logits.log_softmax(-1)[0]
        expected = sum(log_p[len(q) - 1 + i, w].item() for i, w in enumerate([*a, 0]))
        assert math.log(p) == pytest.approx(expected, rel=1e-6)


def test_nothing_to_tell_apart():
    found = against_answers(knowing([0.9, 0.8]), [[4], [5]], [[1], [1]], stop=0)
    assert math.isnan(found.auroc)
    assert "all answers are right" in found.reason
    assert math.isnan(found.mean_wrong)


def test_bad_studies():
    with pytest.raises(ValueError, match="2 questions and 1 answers"):
        against_answers(knowing([0.9]), [[4], [4]], [[1]], stop=0)
    with pytest.raises(ValueError, match="no stop symbol"):
        against_answers(knowing([0.9]), [[4]], [[1]])
    with pytest.raises(ValueError, match=r"no torch\.nn\.Module"):
        against_size({"a": lambda: lambda ids: ids}, [[1]])


def test_a_family_is_sorted_by_size_and_loaded_in_turn():
    loaded = []

    def load(width):
        def model():
            loaded.append(width)
            return knowing([0.5 + width / 20] * width)

        return model

    found = against_size({f"{w}": load(w) for w in (9, 3, 6)}, [[4], [5]], stop=0, samples=50)
    assert loaded == [9, 3, 6]
    assert found.names == ("3", "6", "9")
    assert found.parameters == (49, 100, 169)
    assert found.entropy_correlation == -1.0
    assert [scan.mean for scan in found.scans] == sorted((scan.mean for scan in found.scans), reverse=True)
