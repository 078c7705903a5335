"""A recorded run with what happened in it and what the live detector said about it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from thermo_monitor.records import Event
from transitions.follow import follow
from transitions.generate import path
from transitions.matching import Outcome, match
from transitions.problem import Recipe
from transitions.record import EVERY, OPTIONS
from transitions.recording import Curve, Recording
from transitions.suite import RECIPES, SEEDS
from transitions.truth import Truth, truth


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        recipe: how it went.
        seed: of it.
        recording: what the detector was given.
        truth: what happened.
        events: what was told.
        scores: the detector's own scores along the run, by name.
        outcome: the events compared with the truth.
    """

    recipe: Recipe
    seed: int
    recording: Recording
    truth: Truth
    events: Sequence[Event]
    scores: dict[str, Curve]
    outcome: Outcome


def load(recipe: Recipe, seed: int, folder: Path) -> Run | None:
    """One run, if it is recorded."""
    file = path(folder, recipe.name, seed)
    if not file.exists():
        return None
    recording = Recording.load(file)
    what = truth(recipe, recording)
    followed = follow(recording, OPTIONS, EVERY)
    return Run(recipe, seed, recording, what, followed.events, followed.scores, match(what, followed.events))


def _load(index: int, seed: int, folder: Path) -> Run | None:
    # In another process: the recipe stays behind, as its functions do not travel.
    run = load(RECIPES[index], seed, folder)
    return None if run is None else replace(run, recipe=None)  # type: ignore[arg-type]


def load_all(folder: Path, only: str = "", seeds: Sequence[int] = SEEDS) -> list[Run]:
    """All recorded runs, replayed on all cores."""
    wanted = [(i, seed, folder) for i, r in enumerate(RECIPES) if only in r.name for seed in seeds]
    with ProcessPoolExecutor() as pool:
        loaded = pool.map(_load, *zip(*wanted, strict=True), chunksize=4)
        pairs = zip(wanted, loaded, strict=True)
        return [replace(run, recipe=RECIPES[i]) for (i, _, _), run in pairs if run is not None]
