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
KEYS = (
    ("1 … 5", "views"),
    ("n, p", "next, previous event"),
    ("l", "linear or logarithmic steps"),
    ("Esc", "whole run, no event"),
    ("drag", "zoom into steps"),
    ("double click", "whole run"),
    ("arrows", "choose a head; move the scrubber"),
)
MARKS = (
    "A solid line is the onset of a change, the shade around it the interval that the onset may be in, thin dashes the "
    "step at which it was confirmed, and the colour of a stretch its phase. Dotted grey lines were scheduled; short "
    "ticks are spikes that came back."
)
START = {
    "callback": "from lightning import Trainer\nfrom thermo_monitor.lightning import ThermoMonitor\n\n"
    "trainer = Trainer(callbacks=[ThermoMonitor()])\ntrainer.fit(model, data)",
    "demo": "thermo-monitor demo --dir runs/demo\ntensorboard --logdir runs",
    "plain": "Logs without the callback work as well: changes are then looked for in whatever numbers they hold.",
}


def words() -> dict[str, Any]:
    """Names, units, meanings and help; they change with the version only."""
    return {
        "version": __version__,
        "keys": KEYS,
        "marks": MARKS,
        "start": START,
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
