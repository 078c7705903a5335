"""The analyses that ``thermo-monitor analyze`` runs, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from thermo_monitor.analysis.catalogue_predictions import ensemble, entropy, mixtures, models
from thermo_monitor.analysis.catalogue_representations import gain, layers, neighbours, selection, sentences
from thermo_monitor.analysis.material import Material
from thermo_monitor.analysis.results import Result


@dataclass(frozen=True, slots=True)
class Analysis:
    """One entry.

    Attributes:
        about: what it answers, in a line.
        run: gives the result.
    """

    about: str
    run: Callable[[Material], Result]


ANALYSES: dict[str, Analysis] = {
    "entropy": Analysis("entropy function of each prompt: how many ways the model has of going on", entropy),
    "ensemble": Analysis("entropies of 30 generations side by side from the first prompt", ensemble),
    "layers": Analysis("entropy and rank of the representations of each block, beside random tokens", layers),
    "gain": Analysis("what each token adds to those before it", gain),
    "selection": Analysis("tokens that sparse regression selects, against those that are attended", selection),
    "sentences": Analysis("distances between the token covariances of prompts", sentences),
    "neighbours": Analysis("whether prompts that lie close are continued alike", neighbours),
    "mixtures": Analysis("what mixing two prompts does to the entropy of the next token", mixtures),
    "models": Analysis("distances from the models given with --against, and a map of them", models),
}
