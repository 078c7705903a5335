"""The same small transformer on five manifolds.

Queries and keys, and texts and words, are points of R^N as usual, of a sphere, of a torus, or of products; everything
else is the same, and so are the corpus and the seeds. The monitor hears every attention, since all pairings are inner
products of embedded points. You will see, over seeds, loss on held-out text, the entropy of the predictions, and the
specific heats of output and attention; then how well predictions of the usual model are those of points on each
manifold (the geometrization error). The picture is ``runs/examples/07_manifold_heads.png``.

    python examples/07_manifold_heads.py
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from thermo_monitor import Monitor
from thermo_monitor.analysis.manifold_heads import ManifoldAttention, ManifoldHead, geometrization_error
from thermo_monitor.physics.ensemble import output_sums
from thermo_monitor.physics.manifold import Manifold
from thermo_monitor.probes import AttentionProbe
from thermo_monitor.sinks import MemorySink

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WORDS, WIDTH, HEADS, LENGTH = 40, 32, 4, 24
SHAPES = {
    "R^N": lambda n: Manifold(flat=n),
    "sphere": lambda n: Manifold(spheres=(n - 1,)),
    "torus": lambda n: Manifold(circles=n),
    "R^N x sphere": lambda n: Manifold(flat=n // 2, spheres=(n // 2 - 1,)),
    "R^N x torus": lambda n: Manifold(flat=n // 2, circles=n // 2),
}


def corpus(rows, seed):
    """Texts in which a word follows from the two before it; two thirds of the time from the nearer one."""
    near, far = np.random.default_rng(0).dirichlet(np.full(WORDS, 0.1), size=(2, WORDS))
    random = np.random.default_rng(seed)
    text = random.integers(WORDS, size=(rows, LENGTH))
    for t in range(2, LENGTH):
        table = np.where(random.random(rows)[:, None] < 2 / 3, near[text[:, t - 1]], far[text[:, t - 2]])
        text[:, t] = (table.cumsum(1) > random.random(rows)[:, None] * table.sum(1, keepdims=True)).argmax(1)
    return torch.from_numpy(text)


class Small(nn.Module):
    """Two layers; ``shape`` gives the manifold for a number of coordinates."""

    def __init__(self, shape):
        super().__init__()
        self.embedding, self.position = nn.Embedding(WORDS, WIDTH), nn.Parameter(torch.zeros(LENGTH, WIDTH))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(5))
        self.attention = nn.ModuleList(ManifoldAttention(WIDTH, HEADS, shape(WIDTH // HEADS)) for _ in range(2))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)) for _ in range(2)
        )
        self.head = ManifoldHead(WIDTH, WORDS, shape(WIDTH))

    def forward(self, ids):
        x = self.embedding(ids) + self.position[: ids.shape[1]]
        for i in range(2):
            x = x + self.attention[i](self.norms[2 * i](x))
            x = x + self.mlp[i](self.norms[2 * i + 1](x))
        return self.head(self.norms[4](x))


def train(shape, seed, steps):
    torch.manual_seed(seed)
    model, texts, memory = Small(shape), corpus(1000, seed=1), MemorySink()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    probe = AttentionProbe(quantities=("attn/specific_heat", "attn/entropy"))
    with Monitor(model, optimizer, preset=[probe], every=20, sinks=[memory]) as monitor:
        for step in range(steps):
            batch = texts[torch.randint(len(texts), (32,))]
            with monitor.step(step):
                loss = F.cross_entropy(model(batch)[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
                monitor.loss(loss)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
    held_out = corpus(200, seed=2)
    with torch.no_grad():
        logits = model.eval()(held_out)
    sums = output_sums(logits[:, :-1].flatten(0, 1), held_out[:, 1:].flatten())
    last = {r.quantity: r.value for r in memory.readings if r.layer is None and r.step >= steps - 20}
    numbers = {
        "held-out loss": sums.mean_loss(),
        "entropy": sums.predictive_entropy(),
        "specific heat": sums.output_specific_heat(),
        "attention entropy": last["attn/entropy"],
        "attention specific heat": last["attn/specific_heat"],
    }
    return model, {name: float(value) for name, value in numbers.items()}


def draw(table, errors, path):
    names = list(next(iter(table.values()))[0])
    figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.5), layout="constrained")
    for axis, name in zip(axes.flat, names, strict=False):
        for x, runs in enumerate(table.values()):
            values = [run[name] for run in runs]
            axis.plot([x] * len(values), values, "o", ms=4, alpha=0.7, color=f"C{x}")
            axis.plot([x - 0.25, x + 0.25], [np.mean(values)] * 2, color=f"C{x}")
        axis.set_title(name, fontsize=9)
    axes.flat[-1].bar(range(len(errors)), [fit.error for fit in errors.values()], color=[f"C{i}" for i in range(5)])
    axes.flat[-1].set_title("geometrization error (total variation)", fontsize=9)
    for axis in axes.flat:
        axis.set_xticks(range(len(table)), table, rotation=30, ha="right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main(steps):
    torch.set_num_threads(1)
    seeds, steps = (range(3), steps) if steps >= 300 else (range(1), steps // 4)
    table = {}
    print(f"{'mean (standard deviation over seeds)':14s}")
    for name, shape in SHAPES.items():
        runs = [train(shape, seed, steps) for seed in seeds]
        table[name] = [numbers for _, numbers in runs]
        if name == "R^N":
            usual = runs[0][0]
        shown = []
        for key in table[name][0]:
            values = np.array([numbers[key] for numbers in table[name]])
            spread = f" ({values.std(ddof=1):.3f})" if len(values) > 1 else ""
            shown.append(f"{key} {values.mean():.3f}{spread}")
        print(f"{name:14s} {', '.join(shown)}", flush=True)
    with torch.no_grad():
        prompts = corpus(48, seed=3)
        p = torch.softmax(usual(prompts)[:, -1].double(), -1)
    dimension, errors = 6, {}
    for name, shape in SHAPES.items():
        errors[name] = geometrization_error(p, shape(dimension), steps=2 * steps)
        print(
            f"fit of the predictions of R^N by {errors[name].manifold!s:14s} geometrization error "
            f"{errors[name].error:.3f} (mean {errors[name].mean:.3f}, divergence {errors[name].divergence:.4f} nats)"
        )
    path = Path("runs/examples/07_manifold_heads.png")
    draw(table, errors, path)
    print(f"picture: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    main(parser.parse_args().steps)
