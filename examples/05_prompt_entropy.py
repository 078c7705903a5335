"""Where a language model has memorised: prompts whose continuations have no entropy.

A family of five small models learns a book in which half of the names have one answer, and the other half go on in
many ways. You will see, for each size, the mean entropy of a prompt and the share of prompts that are nearly without
entropy, which are those that the model has learned by heart; that questions with low entropy are the ones answered
right; and the free energy of the training of the largest model, F = U - T S, in its two parts. The picture is
``runs/examples/05_prompt_entropy.png``.

    python examples/05_prompt_entropy.py
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from thermo_monitor import Monitor
from thermo_monitor.analysis.prompt_study import against_answers, against_size
from thermo_monitor.probes import OutputProbe
from thermo_monitor.sinks import MemorySink

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STOP, ASK, LETTERS, NAMES = 0, 1, 14, 60
WIDTHS = (4, 8, 12, 16, 32)
PARTS = ("out/cross_entropy", "out/entropy_term", "out/training_free_energy")


def book():
    """Names of three letters; a fact of three letters for each of the first half."""
    random = np.random.default_rng(0)
    codes = random.choice(LETTERS**3, size=2 * NAMES, replace=False)
    names = np.stack([codes // LETTERS**2, codes // LETTERS % LETTERS, codes % LETTERS], 1) + 2
    return names, random.integers(LETTERS, size=(NAMES, 3)) + 2


def pages(names, facts, rows, random):
    """Texts [rows, 8]: name, ASK, what follows, STOP, and STOP again where it is short."""
    which = random.integers(len(names), size=rows)
    text = np.full((rows, 8), STOP)
    text[:, :3], text[:, 3], text[:, 4:7] = names[which], ASK, random.integers(LETTERS, size=(rows, 3)) + 2
    length = random.integers(1, 4, size=rows)
    text[:, 4:7][np.arange(3) >= length[:, None]] = STOP
    known = which < NAMES
    text[known, 4:7] = facts[which[known]]
    return torch.from_numpy(text)


def train(width, steps, names, facts):
    torch.manual_seed(0)
    random = np.random.default_rng(1)
    config = LlamaConfig(
        vocab_size=LETTERS + 2, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=32, bos_token_id=None, eos_token_id=STOP, pad_token_id=None,
    )  # fmt: skip
    model, memory = LlamaForCausalLM(config), MemorySink()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    with Monitor(model, optimizer, preset=[OutputProbe(quantities=PARTS)], every=10, sinks=[memory]) as monitor:
        for step in range(steps):
            batch = pages(names, facts, 128, random)
            with monitor.step(step):
                # What follows the name is learned, up to the first STOP.
                labels = batch[:, 4:].clone()
                labels[:, 1:][batch[:, 4:-1] == STOP] = -100
                loss = F.cross_entropy(model(batch).logits[:, 3:-1].flatten(0, 1), labels.flatten())
                monitor.loss(loss)
                loss.backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    return model, memory


def draw(study, answers, memory, path):
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for limit in (0.01, 0.1):
        shares = [scan.shares[limit] for scan in study.scans]
        low = [s.value - s.low for s in shares]
        high = [s.high - s.value for s in shares]
        values = [s.value for s in shares]
        axes[0].errorbar(study.parameters, values, (low, high), fmt="o-", capsize=3, label=f"S < {limit} nats")
    axes[0].plot(
        study.parameters,
        [s.mean / study.scans[0].mean for s in study.scans],
        "k--",
        label="mean S / that of the smallest",
    )
    axes[0].set(xscale="log", xlabel="parameters", ylabel="share of the prompts", title="memorised prompts")
    axes[0].legend(fontsize=8)
    entropy = np.array([record.entropy for record in answers.records])
    edges = np.linspace(0, 1.02 * entropy.max(), 26)
    for right, word in ((True, "right"), (False, "wrong")):
        axes[1].hist(entropy[answers.right == right], edges, alpha=0.6, label=word)
    axes[1].set(xlabel="prompt entropy, nats", ylabel="questions", title="questions with one answer")
    axes[1].legend(fontsize=8)
    for key, word in zip(PARTS, ("U, cross entropy", "T S, T = 1", "F = U - T S"), strict=True):
        readings = [(r.step, r.value) for r in memory.readings if r.quantity == key]
        axes[2].plot(*zip(*readings, strict=True), label=word)
    axes[2].set(xlabel="step", ylabel="nats", title="free energy of training, largest model")
    axes[2].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main(steps):
    torch.set_num_threads(1)
    names, facts = book()
    family, memories = {}, {}
    widths, steps = (WIDTHS, steps) if steps >= 300 else (WIDTHS[1:4:2], steps // 3)
    for width in widths:
        family[f"width {width}"], memories[width] = train(width, steps, names, facts)
    prompts = [[*name, ASK] for name in names.tolist()]
    samples = 32 if len(widths) > 2 else 4
    study = against_size(family, prompts, samples=samples, tokens=8)
    for name, size, scan in zip(study.names, study.parameters, study.scans, strict=True):
        near = ", ".join(
            f"S < {limit:g}: {s.value:.2f} [{s.low:.2f}, {s.high:.2f}] ({s.undecided} undecided)"
            for limit, s in scan.shares.items()
        )
        print(f"{name:9s} {size:6d} parameters, mean entropy {scan.mean:.3f} +- {scan.error:.3f} nats, {near}")
    print(f"rank correlation with size: mean entropy {study.entropy_correlation:.2f}", end="")
    print("".join(f", share below {limit:g}: {r:.2f}" for limit, r in study.share_correlation.items()))
    largest = study.scans[-1]
    known = sum(record.index < NAMES for record in largest.lowest)
    print(f"of the {len(largest.lowest)} prompts named as nearly without entropy {known} have one answer in the book")
    asked = widths[1] if len(widths) > 2 else widths[0]
    answers = against_answers(family[f"width {asked}"], prompts[:NAMES], facts.tolist(), samples=samples, tokens=8)
    print(
        f"width {asked}: {answers.right.mean():.2f} answered right, mean entropy {answers.mean_right:.3f} where right, "
        f"{answers.mean_wrong:.3f} where wrong, AUROC {answers.auroc:.3f} [{answers.low:.3f}, {answers.high:.3f}]"
    )
    last = {r.quantity: r.value for r in memories[widths[-1]].readings}
    print("free energy of training at the end: U {:.3f} - T S {:.3f} = F {:.3f} nats".format(*(last[k] for k in PARTS)))
    path = Path("runs/examples/05_prompt_entropy.png")
    draw(study, answers, memories[widths[-1]], path)
    print(f"picture: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    main(parser.parse_args().steps)
