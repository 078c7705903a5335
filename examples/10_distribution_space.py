"""A training run as a path through the space of what it predicts, and two questions to the trained model.

A small transformer reads the reference of Python twice, from two seeds, and leaves checkpoints at growing distances in
time. Their predictions on 256 held-out prompts are compared pair by pair. You will see the two runs as paths on a map
that keeps the Fisher-Rao distances (classical multidimensional scaling): they start together, since neither knows
anything, and where they end says how alike two models of the same text become. Then, for the trained model, whether
prompts that lie close are continued alike, block by block, and what mixing two prompts does to the entropy of the next
word; both with their intervals, and neither as a claim.

    python examples/10_distribution_space.py

The picture is runs/examples/10-distribution-space.png.
"""

import argparse
from pathlib import Path

import torch

from thermo_monitor.analysis.convexity import convexity_probe
from thermo_monitor.analysis.distances import METRICS, Checkpoints, embed, model_distances
from thermo_monitor.analysis.distributional import distributional_hypothesis
from thermo_monitor.demo.text import WordModel, python_reference, train

COLOURS = ("#1A1A1A", "#56A5DC")


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def run(text, marks, seed):
    """States of one run at the given steps."""
    torch.manual_seed(seed)
    model, states = WordModel(len(text.words), width=64, layers=2), []
    train(model, text, marks[-1], seed=seed, at={step: lambda: states.append(copied(model)) for step in marks})
    return model, states


def draw(marks, found, mapped, correlations, probe, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), constrained_layout=True)
    for k, colour in enumerate(COLOURS):
        part = mapped.points[k * len(marks) : (k + 1) * len(marks)]
        left.plot(part[:, 0], part[:, 1], "o-", ms=4, color=colour, label=f"seed {k}")
        for step, point in list(zip(marks, part, strict=True))[:: 1 if k == 0 else len(marks) - 1]:
            left.annotate(str(step), point, fontsize=7, xytext=(3, 3), textcoords="offset points", color=colour)
    left.set(xlabel=f"map of Fisher-Rao distances, stress {mapped.stress:.2f}", aspect="equal", adjustable="datalim")
    left.legend(fontsize=8, frameon=False)
    for k, one in enumerate(correlations):
        c = one.correlation
        middle.errorbar(k, c.value, [[c.value - c.low], [c.high - c.value]], fmt="o", ms=4, color="#1A1A1A")
        middle.plot(
            [k - 0.3, k + 0.3], [one.by_chance] * 2, color="0.6", lw=1, label="95 % of permutations" if k == 0 else None
        )
    middle.axhline(0, color="0.8", lw=0.8)
    middle.set(xticks=range(len(correlations)), ylabel="rank correlation of distances")
    middle.set_xticklabels([one.layer for one in correlations])
    middle.legend(fontsize=8, frameon=False)
    right.hist(probe.gaps, bins=30, color="#56A5DC")
    right.axvline(0, color="#1A1A1A", lw=1)
    right.set(xlabel="g = S(mixture) - mean S [nats]", ylabel="pairs of prompts")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--prompts", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = python_reference()
    marks = sorted({round(options.steps * share) for share in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1)})
    runs = [run(text, marks, seed) for seed in range(2)]
    model, states = runs[0][0], [state for _, run_states in runs for state in run_states]
    prompts = text.sentences(options.prompts, 24)

    names = [f"seed {seed} step {step}" for seed in range(2) for step in marks]
    found = model_distances(Checkpoints(model, states), prompts.tolist(), names=names)
    last, first = len(marks) - 1, 0
    for metric in METRICS:
        d, most = found.mean[metric], found.largest[metric]
        print(
            f"{metric:10s} start to end {d[first, last]:.3f} (largest {most[first, last]:.3f}), "
            f"starts of two seeds {d[first, last + 1]:.3f}, ends of two seeds {d[last, -1]:.3f} "
            f"(largest {most[last, -1]:.3f})"
        )
    mapped = embed(found.mean["fisher_rao"])
    print(f"map: {mapped.kept:.0%} of the squared distances kept, stress {mapped.stress:.2f}")

    model.load_state_dict(runs[0][1][-1])
    correlations = distributional_hypothesis(model, prompts[:128], resamples=200)
    for one in correlations:
        print(f"rank correlation of distances, {one.layer:9s} {one.correlation}, by chance up to {one.by_chance:.3f}")
    probe = convexity_probe(model, prompts)
    print(
        f"mixing two prompts: g = {probe.mean} nats, g > 0 in {probe.positive}, g < 0 in {probe.negative} of the pairs"
    )

    path = Path("runs/examples/10-distribution-space.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(marks, found, mapped, correlations, probe, path)
    print(path)


if __name__ == "__main__":
    main()
