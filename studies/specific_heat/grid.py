"""Which runs: moduli, conditions, seeds of models crossed with seeds of splits."""

from __future__ import annotations

from dataclasses import dataclass, replace

CONDITIONS = ("grokking", "weak decay", "no decay", "little data", "shuffled", "fixed scale")
"""What differs within a cell; the last five are the controls of the first.

``weak decay`` and ``no decay`` take away what makes the model generalize in time, ``little data`` what it would find
the rule from, ``shuffled`` the rule itself: no trivial difference tells all of them from the first. ``fixed scale``
divides the output logits by their own size, so that nothing can follow from their growth; it may grok.
"""
LITTLE = 0.25  # share of the pairs in training of ``little data``
WEAK = 0.03  # of the decay of the others


@dataclass(frozen=True)
class Cell:
    """Runs of one modulus and train share that are trained as one stack.

    Attributes:
        arm: what they are judged together with: other moduli and seeds.
        p: modulus.
        share: of the unordered pairs that is trained on.
        layers: one without normalisation, or two with it and rotary positions.
        width: of the residual stream.
        seeds: (model, split) of the runs that may grok.
        controls: so many of the seeds, the first ones, for each control.
        steps: optimizer steps.
        decay: weight decay of ``grokking``, ``shuffled`` and ``fixed scale``.
        lr: learning rate.
        every: steps between measurements.
    """

    arm: str
    p: int
    share: float
    layers: int
    width: int
    seeds: tuple[tuple[int, int], ...]
    controls: int
    steps: int
    decay: float = 1.0
    lr: float = 1e-3
    every: int = 20

    @property
    def name(self) -> str:
        """Of its file."""
        first, last = self.seeds[0], self.seeds[-1]
        return f"{self.arm}-p{self.p}-share{self.share:g}-seeds{first[0]}.{first[1]}-{last[0]}.{last[1]}"

    def runs(self) -> list[tuple[str, tuple[int, int]]]:
        """Condition and seeds of each run, condition after condition."""
        return [(c, seed) for c in CONDITIONS for seed in self.seeds[: None if c == CONDITIONS[0] else self.controls]]

    def decays(self) -> dict[str, float]:
        """Weight decay of each condition."""
        return {
            condition: {"weak decay": WEAK * self.decay, "no decay": 0.0}.get(condition, self.decay)
            for condition in CONDITIONS
        }

    def shares(self) -> dict[str, float]:
        """Train share of each condition."""
        return {condition: LITTLE if condition == "little data" else self.share for condition in CONDITIONS}


SETS = (tuple((seed, seed) for seed in range(5)), tuple((seed, seed) for seed in range(5, 10)))
"""Seeds of models and splits of the reduced grid: two disjoint sets, so that a conclusion can be looked at twice."""
PLAN = {19: (0.8, 2500), 23: (0.8, 2000), 31: (0.7, 1500), 41: (0.7, 1100)}
"""Train share and steps of each modulus of the reduced grid, chosen on seeds from 100 on so that most runs generalize,
and long after they have memorized: small moduli need more of the pairs for that."""


def reduced() -> list[Cell]:
    """Four moduli, one layer, twice five seeds: for two cores; with the decay and the learning rate that this takes."""
    return [
        Cell("one-layer", p, share, 1, 64, seeds, 2, steps, 3.0, 3e-3, 10)
        for p, (share, steps) in PLAN.items()
        for seeds in SETS
    ]


def deep() -> list[Cell]:
    """The same with two layers."""
    return [replace(cell, arm="two-layers", layers=2) for cell in reduced()]


def full() -> list[Cell]:
    """The whole protocol, for a GPU."""
    seeds = tuple((10 * split + model, split) for split in range(3) for model in range(10))
    return [
        Cell(f"layers{layers}-share{share:g}-decay{decay:g}", p, share, layers, 128, seeds, 10, 20_000, decay)
        for p in (19, 23, 31, 41, 53, 67, 79, 97, 113)
        for share in (0.5, 0.6)
        for layers in (1, 2)
        for decay in (1.0, 0.1)
    ]
