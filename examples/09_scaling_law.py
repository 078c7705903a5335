"""Loss and representation entropy against model size, beside the null that no model is needed for.

Seven transformers of different width read the reference of Python, and are measured on the same held-out sentences of
48 words. You will see, for the loss, for the entropy of the last block's representations, and for three series that say
what its fall with size is worth, the exponent of a power law with two intervals: over sentences (how well it is
measured) and over models (how well the line holds). At a fixed number of tokens, random directions in the same widths
have a power law of their own; whoever leaves that out sees a law of nature in the width of a matrix.

    python examples/09_scaling_law.py

The models stand for a family such as Pythia. With its weights on your disk, give the folders instead:

    python examples/09_scaling_law.py --family pythia-70m pythia-160m pythia-410m pythia-1b pythia-1.4b

Nothing is downloaded. The picture is runs/examples/09-scaling-law.png.
"""

import argparse
from pathlib import Path

import torch

from thermo_monitor.analysis import scaling_law as scaling
from thermo_monitor.demo.text import WordModel, python_reference, train

WIDTHS = (16, 24, 32, 48, 64, 96, 128)
NAMES = {
    "loss": "held-out loss [nats]",
    "representation_entropy": "representation entropy H_norm",
    "random_tokens": "H_norm of random tokens (null)",
    "entropy_over_cap": "H_norm over its cap",
    "effective_rank": "effective rank",
}
COLOURS = {"representation_entropy": "#1A1A1A", "random_tokens": "#B5A000", "entropy_over_cap": "#56A5DC"}


def trained_family(steps, seeds, count):
    text = python_reference()
    sentences = text.sentences(count, 48)
    for width in WIDTHS:
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = train(WordModel(len(text.words), width, layers=2, heads=4), text, steps, seed=seed)
            # Without embeddings: they are most of a small model, and grow with the vocabulary only.
            size = scaling.measure(model, sentences, parameters=scaling.count_parameters(model, embeddings=False))
            print(
                f"  width {width:4d}  {size.parameters:8,d} parameters  loss {size.loss.mean():.3f}  "
                f"H_norm {size.representation_entropy.mean():.4f}  rank {size.effective_rank.mean():.1f}",
                flush=True,
            )
            yield size


def draw(sizes, laws, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
    from matplotlib import ticker

    x = np.array([size.parameters for size in sizes])
    order = np.argsort(x)
    series = scaling.series(sizes)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), constrained_layout=True)
    panels = (("loss",), ("representation_entropy", "random_tokens", "entropy_over_cap"), ("effective_rank",))
    for axis, names in zip(axes, panels, strict=True):
        for name in names:
            law, colour = laws[name], COLOURS.get(name, "#1A1A1A")
            axis.loglog(
                x, series[name].mean(1), "o", ms=4, color=colour, mfc="none" if name == "random_tokens" else colour
            )
            line = law.factor * x[order] ** law.exponent
            axis.loglog(
                x[order],
                line,
                color=colour,
                lw=1,
                label=f"{NAMES[name]}\nexponent {law.exponent:+.3f}, R2 {law.r2:.3f}",
            )
        axis.set_xlabel("parameters without embeddings")
        axis.legend(fontsize=7, frameon=False)
        axis.margins(y=0.35)
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.yaxis.set_major_locator(ticker.MaxNLocator(6))
        axis.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        for one in (axis.xaxis, axis.yaxis):
            one.set_minor_locator(ticker.NullLocator())
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sentences", type=int, default=256)
    parser.add_argument("--family", nargs="+", help="folders of local models instead")
    parser.add_argument("--prompts", default="prompts.txt", help="with --family: a file of long lines")
    options = parser.parse_args()
    torch.set_num_threads(1)
    family = (
        scaling.local_family(options.family, options.prompts, tokens=48)
        if options.family
        else trained_family(options.steps, options.seeds, options.sentences)
    )
    sizes = list(family)
    laws = scaling.scaling_law(sizes)
    for name, law in laws.items():
        print(f"{NAMES[name]:34s} {law}")
    path = Path("runs/examples/09-scaling-law.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(sizes, laws, path)
    print(path)


if __name__ == "__main__":
    main()
