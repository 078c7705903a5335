"""Run chosen analyses on a model from this disk, and write what they find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from thermo_monitor import __version__
from thermo_monitor.analysis.catalogue import ANALYSES
from thermo_monitor.analysis.loading import load
from thermo_monitor.analysis.material import prepare, read_prompts
from thermo_monitor.analysis.results import Result, write


def chosen(only: Sequence[str], others: bool) -> list[str]:
    """Names of analyses, in the order of the catalogue.

    Raises:
        ValueError: for a name that is none.

    Example:
        >>> chosen(["gain", "entropy"], False)
        ['entropy', 'gain']
    """
    wanted = [name for part in only for name in part.replace(",", " ").split()]
    for name in wanted:
        if name not in ANALYSES:
            raise ValueError(f"there is no analysis {name!r}: give some of {', '.join(ANALYSES)}")
    return [name for name in ANALYSES if name in wanted or (not wanted and (others or name != "models"))]


def analyze(
    place: str,
    prompts: Path,
    out: Path,
    *,
    only: Sequence[str] = (),
    build: str | None = None,
    tokenizer: Path | None = None,
    against: Sequence[str] = (),
    length: int | None = None,
    context: int | None = None,
    seed: int = 0,
    told: Callable[[str, Result | None], None] = lambda name, result: None,
) -> dict[str, Result]:
    """Load, run and write; what one analysis cannot do stops none of the others.

    Args:
        place: folder of transformers, or a checkpoint.
        prompts: file of prompts.
        out: folder that is written to.
        only: names of analyses; empty: all that apply.
        build: what makes the model of a checkpoint.
        tokenizer: folder of a tokenizer.
        against: further models, loaded in the same way.
        length: tokens that prompts are cut to where lengths have to be equal.
        context: most tokens of a prompt.
        seed: of what is drawn.
        told: called with a name when it starts (None) and when it ends.

    Raises:
        ValueError: with one line that says what is wrong with the model, the prompts or the place to write.
    """
    names = chosen(only, bool(against))
    loaded = load(place, build, tokenizer)
    given = read_prompts(prompts, ids=loaded.tokenizer is None)
    others = [load(one, build, tokenizer) for one in against]
    material = prepare(loaded, given, others=others, length=length, context=context, seed=seed)
    about = {
        "thermo_monitor": __version__,
        "model": place,
        "prompts": str(prompts),
        "prompts_given": len(given),
        "prompts_unread": material.left_out,
        "equal_length": {"tokens": material.ids.shape[1], "prompts": len(material.ids)},
        "seed": seed,
    }
    found = {}
    for name in names:
        told(name, None)
        try:
            result = ANALYSES[name].run(material)
        except (ValueError, RuntimeError, IndexError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            result = Result(undefined=lines[0])
        write(result, name, about, out)
        found[name] = result
        told(name, result)
    return found
