"""What the page says about quantities, phases and kinds: one source for names and meanings, the registry."""

from __future__ import annotations

from typing import Any

from thermo_monitor import __version__
from thermo_monitor.quantities import REGISTRY

PHASES = {
    "memorization": "The training loss fell to a tenth of where it began and stays there, "
    "and the model is sure of its answers.",
    "generalization": "After the training set was fitted, representations became simpler and weights smaller, "
    "the loss undisturbed.",
    "reorganization": "Attention, representations or outputs moved to another level.",
    "instability": "Loss or gradient was thrown up, or the change came with such a throw.",
    "scheduled": "Explained by a change of settings that was noticed or declared.",
    "unexplained": "A change that no rule has a name for.",
}
KINDS = {
    "shift": "a level that moved and stayed",
    "excursion": "a spike that came back",
    "variance": "a spread that changed around the same level",
    "drift": "a trend whose end is not in sight",
    "collapse": "attention or representations lost nearly all of their entropy",
    "divergence": "numbers that are no longer finite, or a runaway loss",
}


def words() -> dict[str, Any]:
    """Names, units and meanings; they change with the version only."""
    return {
        "version": __version__,
        "phases": PHASES,
        "kinds": KINDS,
        "quantities": {
            key: {
                "name": q.name,
                "symbol": q.symbol,
                "unit": q.unit,
                "scale": q.scale,
                "formula": q.formula,
                "meaning": q.meaning,
            }
            for key, q in REGISTRY.items()
        },
    }
