"""Do the tokens that explain the last one get its attention? Sparse regression beside attention, over many sentences.

A small transformer reads the reference of Python, and then 200 held-out sentences of 24 words. In each, Lasso, ridge
and elastic net write the last word's representation as a mixture of those before it. You will see, block by block, how
far the words that they pick are the words that the block attends to (top-5 Jaccard index with its interval), and beside
it the two numbers that it has to beat: chance, and the attention of another sentence, which is what positions explain
alone. Then what each word of one sentence adds to those before it, in nats, and how far sentences lie apart.

    python examples/08_token_selection.py

The picture is runs/examples/08-token-selection.png.
"""

import argparse
from pathlib import Path

import torch

from thermo_monitor.analysis.capture import hearing
from thermo_monitor.analysis.token_selection import METHODS, token_selection
from thermo_monitor.demo.text import WordModel, python_reference, train
from thermo_monitor.physics import information_gains, sentence_distances

COLOURS = dict(zip(METHODS, ("#1A1A1A", "#B5A000", "#56A5DC"), strict=True))


def unit(z):
    return z / z.norm(dim=-1, keepdim=True)


def draw(found, words, gains, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), constrained_layout=True)
    layers = list(dict.fromkeys(one.layer for one in found))
    for k, method in enumerate(METHODS):
        some = [one for one in found if one.method == method]
        x = np.arange(len(layers)) + 0.2 * (k - 1)
        y = np.array([one.jaccard.value for one in some])
        error = np.abs([[one.jaccard.low for one in some], [one.jaccard.high for one in some]] - y)
        left.errorbar(x, y, error, fmt="o", ms=4, color=COLOURS[method], label=method.replace("_", " "))
        left.plot(x, [one.jaccard_mismatched.value for one in some], "_", ms=14, color=COLOURS[method])
    left.plot([], [], "_", ms=14, color="0.3", label="attention of another sentence")
    left.axhline(found[0].by_chance, color="0.6", lw=1, ls=":", label="random words")
    left.set(xticks=range(len(layers)), xticklabels=layers, ylabel="top-5 Jaccard index", ylim=(0, None))
    left.legend(fontsize=8, frameon=False)
    right.bar(range(len(words)), gains, color="#56A5DC")
    right.set_ylabel("information gain [nats]")
    right.set_xticks(range(len(words)), words, rotation=90, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=600, help="of the training")
    parser.add_argument("--sentences", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    text = python_reference()
    model = train(WordModel(len(text.words), width=64, layers=3), text, options.steps)
    ids = text.sentences(options.sentences, 24)

    found = token_selection(model, ids)
    print("block     method       Jaccard               beyond positions      chance  Spearman              support")
    for one in found:
        print(
            f"{one.layer}  {one.method:11s}  {one.jaccard}  {one.gain}  {one.by_chance:.3f}   "
            f"{one.spearman}  {one.support:.1f}"
        )
    print(f"of the fits {min(one.converged for one in found):.0%} or more converged")

    with hearing(model) as hear:
        hidden = list(hear(ids).hidden.values())[-1].double()
    gains = information_gains(unit(hidden))
    by_position = gains.mean(0)
    print(f"information gain of a word: {by_position[0]:.2f} nats for the first, {by_position[-1]:.2f} for the last")
    apart = sentence_distances(unit(hidden[::2]), unit(hidden[1::2]))
    print("sentences lie apart: " + ", ".join(f"{name} {float(d.mean()):.3f}" for name, d in apart.items()))

    path = Path("runs/examples/08-token-selection.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(found, [text.words[int(t)] for t in ids[0]], gains[0].numpy(), path)
    print(path)


if __name__ == "__main__":
    main()
