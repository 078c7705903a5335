"""A long generation drifts in entropy; a temperature schedule holds it.

A small model learns a language of eight topics, each with words of its own, that changes its topic once in a hundred
words. Thirty generations start from one word. You will see the marginal entropy (that of the mean prediction of all
runs) rise by more than a quarter at a fixed temperature, as the runs leave the first topic one after the other, while
the conditional entropy (that of a single run) says nothing of it; and the same under three schedules that shall hold
it: fitted from left to right, by feedback while generating, and by least squares on the first 300 of 1000 positions.
The picture is ``runs/examples/06_temperature_schedule.png``.

    python examples/06_temperature_schedule.py
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from thermo_monitor.analysis.least_squares import least_squares_schedule
from thermo_monitor.analysis.parallel import ensemble_entropy
from thermo_monitor.analysis.temperature_schedule import Feedback, fit_schedule, held, smooth

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TOPICS, WORDS, LEAVE, RUNS, PROMPT = 8, 8, 0.01, 30, [0]


def corpus(rows, length, seed=0):
    """Texts [rows, length]: inside a topic the next word follows from the last one."""
    generator = torch.Generator().manual_seed(seed)
    table = np.random.default_rng(seed).dirichlet(np.full(WORDS, 0.4), size=(TOPICS, WORDS))
    chain = torch.from_numpy(table)
    topic, word = (torch.randint(n, (rows,), generator=generator) for n in (TOPICS, WORDS))
    text = [topic * WORDS + word]
    for _ in range(length - 1):
        leaves = torch.rand(rows, generator=generator) < LEAVE
        topic = torch.where(leaves, torch.randint(TOPICS, (rows,), generator=generator), topic)
        word = torch.multinomial(chain[topic, word], 1, generator=generator).squeeze(-1)
        text.append(topic * WORDS + word)
    return torch.stack(text, 1)


def train(steps, length=64):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=TOPICS * WORDS, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=2048, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model, texts = LlamaForCausalLM(config), corpus(512, length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        batch = texts[torch.randint(len(texts), (16,))]
        loss = F.cross_entropy(model(batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    print(f"trained for {steps} steps, loss {loss.item():.3f}")
    return model


def show(name, found, target):
    off = np.abs(found.marginal / target - 1)
    print(
        f"{name:34s} marginal {found.marginal[:20].mean():.2f} -> {found.marginal[-100:].mean():.2f} nats, "
        f"largest deviation {off.max():6.1%} (mean over 50 positions {np.abs(smooth(off, 50)).max():6.1%}), "
        f"within 5 % for {held(found.marginal, target)} of {len(off)} positions"
    )


def draw(curves, target, path):
    figure, axes = plt.subplots(3, 1, figsize=(7.5, 7.5), sharex=True, layout="constrained")
    for name, found in curves.items():
        axes[0].plot(smooth(found.marginal, 10), label=name, lw=1.2)
        axes[1].plot(smooth(found.conditional, 10), lw=1.2)
        axes[2].plot(smooth(found.temperature, 10), lw=1.2)
    axes[0].axhspan(0.95 * target, 1.05 * target, color="0.85", zorder=0, label="target ± 5 %")
    axes[0].legend(fontsize=8, ncols=2)
    for axis, label in zip(axes, ("marginal entropy, nats", "conditional entropy, nats", "temperature"), strict=True):
        axis.set_ylabel(label)
    axes[2].set_xlabel("position")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=72)


def main(steps):
    torch.set_num_threads(1)
    full = steps >= 300
    tokens, fitted, evaluations, seeds = (1000, 300, 16, (0, 1, 2)) if full else (60, 20, 4, (0,))
    model = train(steps)
    generate = {"runs": RUNS, "tokens": tokens, "report": (10, 20)}
    curves = {"fixed, T = 1": ensemble_entropy(model, PROMPT, **generate)}
    fixed = curves["fixed, T = 1"]
    target = float(fixed.marginal[1:20].mean())
    print(f"target {target:.3f} nats: the mean over positions 1 to 19 at T = 1")
    show("fixed, T = 1, seed 0", fixed, target)
    last = slice(-100, None)
    print("  marginal of the last positions by number of runs:", end=" ")
    print(", ".join(f"B = {b}: {x[last].mean():.3f}" for b, x in fixed.by_runs.items()), end="; ")
    print(f"jackknife {fixed.jackknife[last].mean():.3f}, B to infinity {fixed.extrapolated[last].mean():.3f}")
    for seed in seeds:
        found = ensemble_entropy(model, PROMPT, temperature=Feedback(target), seed=seed, **generate)
        show(f"feedback, seed {seed}", found, target)
        curves.setdefault("feedback", found)
    fit = fit_schedule(model, PROMPT, target, **generate)
    show("fitted left to right, seed 0", fit.ensemble, target)
    again = ensemble_entropy(model, PROMPT, temperature=fit.temperatures, seed=1, **generate)
    show("the same schedule, seed 1", again, target)
    curves["fitted, applied to other runs"] = again
    squares = least_squares_schedule(
        model, PROMPT, target, fitted=fitted, tokens=tokens, runs=RUNS, evaluations=evaluations
    )
    show(f"least squares on the first {fitted}", squares.ensemble, target)
    curves[f"least squares on the first {fitted}"] = squares.ensemble
    print(f"rank correlation of logit variance and marginal entropy at T = 1: {fixed.proxy_correlation:.2f}")
    path = Path("runs/examples/06_temperature_schedule.png")
    draw(curves, target, path)
    print(f"picture: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    main(parser.parse_args().steps)
