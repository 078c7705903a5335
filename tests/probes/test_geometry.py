import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.models import WIDTH, Transformer, batches, build, train
from tests.reference import information as reference
from thermo_monitor import Monitor, physics
from thermo_monitor.probes import GeometryProbe
from thermo_monitor.probes.geometry_readings import ALL_GEOMETRY
from thermo_monitor.probes.rotary import rotary_of
from thermo_monitor.sinks import MemorySink

FIXED = batches(1, size=4, seed=9)[0]


def run(model, steps=4, every=1, lr=1e-2, batch=FIXED, **options):
    sink = MemorySink()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    probe = GeometryProbe(**({"quantities": ALL_GEOMETRY} | options))
    snapshots = []
    with Monitor(
        model, optimizer, every=every, preset=[probe], probe_batch=batch, sinks=[sink], strict=True
    ) as monitor:
        for step in range(steps):
            with monitor.step(step):
                loss = F.cross_entropy(model(FIXED).flatten(0, 1), FIXED.flatten())
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()
                optimizer.step()
                optimizer.zero_grad()
            if step % every == 0:
                snapshots.append(logits(model))
    found = {}
    for r in sink.readings:
        found.setdefault(r.quantity, []).append(r)
    return found, snapshots


def logits(model):
    """[layers, B, H, T, T] by hand, in double precision."""
    found = []
    with torch.no_grad():
        x = model.embed(FIXED)
        for block in model.blocks:
            q, k, _ = block.attention.qkv(block.norm(x)).chunk(3, -1)
            q, k = (p.unflatten(-1, (2, -1)).transpose(1, 2).double() for p in (q, k))
            found.append(q @ k.mT / math.sqrt(q.shape[-1]))
            model.eval()
            x = block(x)
            model.train()
    return torch.stack(found)


def rows(snapshot):
    """Every row that has two states, cut to them, as lists: (layer, example, head, query, logits)."""
    layers, batch, heads, queries, _ = snapshot.shape
    for at in (
        (n, b, h, i) for n in range(layers) for b in range(batch) for h in range(heads) for i in range(1, queries)
    ):
        yield at, snapshot[at][: at[-1] + 1].tolist()


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_every_reading_of_the_path_is_the_reference():
    found, snapshots = run(build(), steps=7, every=2)
    assert [r.step for r in found["geom/heat"]] == [0, 2, 4, 6]
    keys = ("distance", "length", "coarse", "divergence", "efficiency")
    path = {at: {key: 0.0 for key in keys} | {"moves": []} for at, _ in rows(snapshots[0])}
    for t in range(1, 4):
        before, after = dict(rows(snapshots[t - 1])), dict(rows(snapshots[t]))
        distances, laws, gaps = [], [], []
        for at in before:
            p, q = (reference.probabilities(z) for z in (before[at], after[at]))
            d = reference.distance(p, q)
            distances.append(d)
            path[at]["moves"].append(d)
            laws.append(reference.first_law(before[at], after[at]))
            gaps.append(-reference.free_energy(after[at]) - mean(after[at]) - math.log(len(after[at])))
        moves = [one["moves"] for one in path.values()]
        expected = {
            "fisher_rao_distance": mean(distances),
            "kinetic_time": mean(d * d for d in distances) / 8,
            "lagrangian": mean(d * d for d in distances) / 8 + mean(gaps),
            "thermo_length": mean(sum(m) for m in moves),
            "thermo_divergence": mean(len(m) * sum(d * d for d in m) for m in moves),
            "path_efficiency": mean(sum(m) ** 2 / (len(m) * sum(d * d for d in m)) for m in moves),
            "heat": mean(law[1] for law in laws),
            "work": mean(law[2] for law in laws),
            "dissipation": mean(law[4] for law in laws),
        }
        if t == 2:
            first = dict(rows(snapshots[0]))
            far = [reference.distance(*(reference.probabilities(z) for z in (first[at], after[at]))) for at in after]
            expected["thermo_length_coarse"] = mean(far)
        for key, value in expected.items():
            assert found[f"geom/{key}"][t].value == pytest.approx(value, rel=2e-4, abs=1e-7), (key, t)
    assert found["geom/fisher_rao_distance"][0].reason == "too_early"
    assert found["geom/thermo_length_coarse"][1].reason == "too_early"


def test_work_by_cause_takes_the_second_half_of_the_batch_as_the_new_input():
    found, snapshots = run(build(), steps=2)
    start, end = snapshots
    inference, learning = [], []
    for at, _ in rows(start[:, :2]):
        layer, example, head, query = at
        corners = [
            snapshot[layer, b, head, query, : query + 1] for snapshot in (start, end) for b in (example, example + 2)
        ]
        split = physics.work_split(corners[0], corners[1], corners[2], corners[3])
        inference.append(split.inference.item())
        learning.append(split.learning.item())
    assert found["geom/work_inference"][1].value == pytest.approx(mean(inference), rel=1e-4, abs=1e-6)
    assert found["geom/work_learning"][1].value == pytest.approx(mean(learning), rel=1e-4, abs=1e-6)


def test_depth_goes_from_one_layer_to_the_next_by_the_mean_over_heads():
    found, snapshots = run(build(), steps=1)
    values = []
    for b in range(4):
        for i in range(1, FIXED.shape[1]):
            maps = []
            for layer in snapshots[0]:
                heads = [reference.probabilities(layer[b, h, i, : i + 1].tolist()) for h in range(2)]
                maps.append([mean(x) for x in zip(*heads, strict=True)])
            values.append(reference.distance(*maps) ** 2 / 2)
    assert found["geom/kinetic_depth"][0].value == pytest.approx(mean(values), rel=1e-4)


def test_frozen_weights_do_not_move_and_have_no_efficiency():
    found, _ = run(build(), lr=0.0)
    for key in (
        "fisher_rao_distance",
        "kinetic_time",
        "thermo_length",
        "thermo_divergence",
        "heat",
        "work",
        "work_learning",
    ):
        assert [r.value for r in found[f"geom/{key}"][2:]] == [0, 0], key
    assert {r.reason for r in found["geom/path_efficiency"][1:]} == {"degenerate"}
    assert found["geom/work_inference"][2].value != 0
    assert found["geom/lagrangian"][2].value > 0


def test_few_examples_and_few_layers_are_said():
    found, _ = run(build(), batch=FIXED[:1])
    assert found["geom/work_inference"][-1].reason == "one_input"
    assert found["geom/heat"][-1].reason is None
    model = build()
    model.blocks = model.blocks[:1]
    found, _ = run(model)
    assert found["geom/kinetic_depth"][-1].reason == "one_layer"
    assert found["geom/rope_mass"][-1].reason == "no_rotary"
    assert found["geom/kappa_specific_heat"][-1].reason == "few_octaves"


def test_less_is_read_where_there_is_no_room():
    whole, _ = run(build())
    part, _ = run(build(), kept=2 * 2 * 6 * 3)  # two examples of three rows
    assert part["geom/heat"][-1].value != whole["geom/heat"][-1].value
    assert math.isfinite(part["geom/work_inference"][-1].value)
    assert math.isfinite(run(build(), kept=1)[0]["geom/heat"][-1].value)


def test_nothing_heard_is_said(spoken):
    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(11, WIDTH), nn.Linear(WIDTH, 11)
            self.blocks = []

        def forward(self, tokens):
            return self.head(self.embed(tokens))

    sink, model = MemorySink(), Deaf()
    with Monitor(model, preset=[GeometryProbe()], probe_batch=FIXED, every=1, sinks=[sink], strict=True) as monitor:
        train(model, monitor)
    assert any("no attention" in line for line in spoken)
    assert {r.reason for r in sink.readings if r.quantity.startswith("geom/")} == {"no_attention"}


def test_a_weight_that_is_no_number_shows_and_does_not_spoil_what_was_before():
    model = build()
    sink = MemorySink()
    with Monitor(model, preset=[GeometryProbe()], probe_batch=FIXED, every=1, sinks=[sink], strict=True) as monitor:
        for step in range(4):
            with monitor.step(step):
                with torch.no_grad():
                    kept = model.blocks[0].attention.qkv.weight.clone()
                    model.blocks[0].attention.qkv.weight.fill_(math.nan if step == 1 else kept[0, 0].item())
                    if step != 1:
                        model.blocks[0].attention.qkv.weight.copy_(kept * (1 + step / 10))
                monitor.gradients()
            with torch.no_grad():
                model.blocks[0].attention.qkv.weight.copy_(kept)
    lengths = [r for r in sink.readings if r.quantity == "geom/fisher_rao_distance"]
    assert [r.reason for r in lengths] == ["too_early", "non_finite", "non_finite", None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows=0"),
        ({"kept": 0}, "kept=0"),
        ({"layout": "x"}, "interleaved"),
        ({"layout": "half"}, "angles"),
        ({"quantities": ("attn/entropy",)}, "does not measure"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GeometryProbe(**options)


# ------------------------------------------------------------------------------------------------ rotary, context
def llama(**options):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    small = {
        "vocab_size": 11, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "use_cache": False,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**(small | options), attn_implementation="sdpa"))


def test_layout_and_angles_are_asked_of_the_model():
    pytest.importorskip("transformers")
    from transformers import GPT2Config, GPT2LMHeadModel, GPTJConfig, GPTJForCausalLM

    rotary = rotary_of(llama())
    assert rotary.layout == "half"
    torch.testing.assert_close(rotary.theta, 10000.0 ** (-torch.arange(4) / 4))
    small = {"vocab_size": 11, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 16}
    assert rotary_of(GPT2LMHeadModel(GPT2Config(**small))) is None
    assert rotary_of(GPTJForCausalLM(GPTJConfig(**small, rotary_dim=4))) is None  # keeps no angles


def test_masses_of_a_rotary_model_are_the_curvature_of_its_free_energy():
    pytest.importorskip("transformers")
    model, sink = llama(), MemorySink()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight *= 30
            layer.self_attn.k_proj.weight *= 30
    tokens = torch.randint(11, (2, 6))
    probe = GeometryProbe(quantities=ALL_GEOMETRY)
    heard = []
    with Monitor(
        model, preset=[probe], probe_batch={"input_ids": tokens}, every=1, sinks=[sink], strict=True
    ) as monitor:
        monitor._fixed.hub.on_attention.append(heard.append)
        with monitor.step(0):
            monitor.gradients()
    found = {r.quantity: r for r in sink.readings}
    masses, shifts = [], []
    theta, step = 10000.0 ** (-torch.arange(4) / 4), 1e-3
    for call in heard:
        q, k = call.query.double(), call.key.double()
        for b in range(2):
            for h in range(4):
                for i in range(1, 6):
                    keys = k[b, h // 2, : i + 1].tolist()
                    vector = q[b, h, i].tolist()
                    at = [reference.free_energy_of(vector, keys, call.scale)]
                    shifted = {-1: vector, 1: vector}
                    for j, plane in enumerate(reference.pairs_of(8, "half")):
                        low, high = (
                            reference.free_energy_of(reference.turned(vector, plane, s * step), keys, call.scale)
                            for s in (-1, 1)
                        )
                        masses.append((low - 2 * at[0] + high) / step**2)
                        for s in (-1, 1):
                            shifted[s] = reference.turned(shifted[s], plane, s * step * theta[j].item())
                    low, high = (reference.free_energy_of(shifted[s], keys, call.scale) for s in (-1, 1))
                    shifts.append((high - low) / (2 * step))
    assert found["geom/rope_mass"].value == pytest.approx(mean(masses), rel=1e-4, abs=1e-7)
    assert found["geom/rope_shift_response"].value == pytest.approx(mean(shifts), rel=1e-4, abs=1e-7)
    assert found["geom/rope_flat_residual"].value < 2e-6
    assert found["geom/rope_mass_spectrum"].value <= found["geom/rope_mass"].value


def test_context_lengths_are_counted_over_layers_and_heads():
    torch.manual_seed(0)
    model = Transformer()
    long = torch.randint(11, (8, 128))
    found, _ = run(model, steps=1, batch=long, rows=64)
    slope = found["geom/kappa_entropy_fraction"][0]
    assert math.isfinite(slope.value)
    assert slope.error > 0
    assert math.isfinite(found["geom/kappa_free_energy_gap_spread"][0].value)
