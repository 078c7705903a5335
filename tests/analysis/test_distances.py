import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.decoders import LENGTH, Decoder, sentences
from thermo_monitor.analysis.distances import METRICS, Checkpoints, distribution_distances, embed, model_distances


@given(v=st.integers(2, 30), scale=st.floats(0.1, 8), seed=st.integers(0, 999))
def test_metrics_and_their_inequalities(v, scale, seed):
    p, q, r = (torch.randn(3, v, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale).softmax(
        -1
    )
    d, back = distribution_distances(p, q), distribution_distances(q, p)
    for metric in METRICS:
        assert d[metric] == pytest.approx(back[metric])
        assert distribution_distances(p, p)[metric] == 0
        assert d[metric] <= distribution_distances(p, r)[metric] + distribution_distances(r, q)[metric] + 1e-12
    tv, sup, arc = (float(d[metric]) for metric in ("tv", "sup", "fisher_rao"))
    assert sup <= tv + 1e-12
    assert 1 - math.cos(arc / 2) <= tv + 1e-12
    assert tv <= math.sin(arc / 2) + 1e-12


def test_disjoint_and_known():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    assert {k: float(d) for k, d in distribution_distances(p, q).items()} == pytest.approx(
        {"tv": 1.0, "sup": 1.0, "fisher_rao": math.pi}
    )
    d = distribution_distances(torch.tensor([0.5, 0.5]).double(), torch.tensor([0.75, 0.25]).double())
    assert d["fisher_rao"].item() == pytest.approx(math.pi / 6, abs=1e-12)


def test_over_a_prompt_set():
    models = [Decoder() for _ in range(3)]
    prompts = [[1, 2, 3], [4], [5, 6], list(range(5)), [], [1] * LENGTH]
    found = model_distances(models, prompts, names=("a", "b", "c"), batch=2, chunk=4)
    assert (found.names, found.prompts, found.unread) == (("a", "b", "c"), 5, {"empty_prompt": 1})
    with torch.no_grad():
        p = [[m.eval()(torch.tensor([x]))[0, -1].double().softmax(-1) for x in prompts if x] for m in models]
    for metric in METRICS:
        each = torch.tensor([float(distribution_distances(x, y)[metric]) for x, y in zip(p[0], p[2], strict=True)])
        assert found.mean[metric][0, 2] == pytest.approx(each.mean().item(), rel=1e-6)
        assert found.largest[metric][2, 0] == pytest.approx(each.max().item(), rel=1e-6)
        assert (np.diag(found.mean[metric]) == 0).all()


def test_checkpoints_are_loaded_in_turn_and_again_for_each_chunk():
    model, states = Decoder(), [Decoder().state_dict() for _ in range(3)]
    along = Checkpoints(model, [states[0], lambda: states[1], states[2]])
    found = model_distances(along, sentences(6).tolist(), chunk=2)
    separate = []
    for state in states:
        separate.append(Decoder())
        separate[-1].load_state_dict(state)
    expected = model_distances(separate, sentences(6).tolist())
    for metric in METRICS:
        assert found.mean[metric] == pytest.approx(expected.mean[metric])
        assert found.largest[metric] == pytest.approx(expected.largest[metric])


def test_what_has_no_distance():
    with pytest.raises(ValueError, match="1 model: distances need at least 2"):
        model_distances([Decoder()], [[1]])
    with pytest.raises(ValueError, match="vocabularies of 23, 24 tokens"):
        model_distances([Decoder(), Decoder(vocabulary=24)], [[1]])
    with pytest.raises(ValueError, match="gone through only once"):
        model_distances((m for m in [Decoder(), Decoder()]), [[1], [2]], names=("a", "b", "c"))
    nothing = model_distances([Decoder(), Decoder()], [[], []])
    assert nothing.prompts == 0
    assert all(np.isnan(nothing.mean[metric]).all() for metric in METRICS)


@given(k=st.integers(2, 9), seed=st.integers(0, 99))
def test_points_of_a_plane_are_found_again(k, seed):
    x = np.random.default_rng(seed).normal(size=(k, 2))
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    found = embed(d)
    assert np.sqrt(((found.points[:, None] - found.points[None]) ** 2).sum(-1)) == pytest.approx(d, abs=1e-7)
    assert found.kept == pytest.approx(1.0)
    assert found.stress < 1e-6
    assert found.points[-1, 0] >= 0


def test_a_circle_is_not_flat_and_equal_models_are_a_point():
    angles = np.arange(8) * math.pi / 4
    arcs = np.abs(np.subtract.outer(angles, angles))
    found = embed(np.minimum(arcs, 2 * math.pi - arcs))
    assert found.negative > 0.05
    assert found.stress > 0.05
    point = embed(np.zeros((3, 3)))
    assert (point.points == 0).all()
    assert math.isnan(point.stress)
    for bad in (np.zeros((1, 1)), np.zeros((2, 3)), np.full((2, 2), math.nan), np.array([[0.0, 1.0], [2.0, 0.0]])):
        with pytest.raises(ValueError, match="symmetric matrix of distances"):
            embed(bad)
