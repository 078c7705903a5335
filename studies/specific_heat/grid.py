"""Which runs: moduli, conditions, seeds of models crossed with seeds of splits."""

from __future__ import annotations

from dataclasses import dataclass

CONDITIONS = ("grokking", "weak decay", "no decay", "shuffled", "fixed scale")
"""What differs within a cell; the last four are the controls of the first.

``weak decay`` and ``no decay`` take away what makes the model generalize in time; ``shuffled`` what there is to
generalize; ``fixed scale`` divides the output logits by their own size, so that nothing can follow from their growth.
"""


@dataclass(frozen=True)
class Cell:
    """Runs of one modulus and train share that are trained as one stack.

    Attributes:
        p: modulus.
        share: of the unordered pairs that is trained on.
        layers: one without normalisation, or two with it and rotary positions.
        width: of the residual stream.
        seeds: (model, split) of the runs of each condition.
        steps: optimizer steps.
        decay: weight decay of ``grokking``, ``shuffled`` and ``fixed scale``.
        lr: learning rate.
        every: steps between measurements.
    """

    p: int
    share: float
    layers: int
    width: int
    seeds: tuple[tuple[int, int], ...]
    steps: int
    decay: float = 1.0
    lr: float = 1e-3
    every: int = 20

    @property
    def name(self) -> str:
        """Of its file."""
        return f"p{self.p}-share{self.share:g}-layers{self.layers}-decay{self.decay:g}"

    def decays(self) -> dict[str, float]:
        """Weight decay of each condition."""
        return {
            condition: {"weak decay": 0.03 * self.decay, "no decay": 0.0}.get(condition, self.decay)
            for condition in CONDITIONS
        }


def reduced() -> list[Cell]:
    """Four moduli, one layer, five seeds: for two cores."""
    seeds = tuple((seed, seed) for seed in range(5))
    return [Cell(p, 0.6, 1, 64, seeds, 2500, lr=3e-3, every=10) for p in (19, 23, 31, 41)]


def full() -> list[Cell]:
    """The whole protocol, for a GPU."""
    seeds = tuple((10 * split + model, split) for split in range(3) for model in range(10))
    return [
        Cell(p, share, layers, 128, seeds, 20_000, decay)
        for p in (19, 23, 31, 41, 53, 67, 79, 97, 113)
        for share in (0.5, 0.6)
        for layers in (1, 2)
        for decay in (1.0, 0.1)
    ]
