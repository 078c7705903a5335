"""Prompts on their way to a model: encoded, checked, and put together in batches while memory stays what it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from rich.progress import track

from thermo_monitor.analysis.language import LanguageModel

Given = str | Sequence[int]
T = TypeVar("T")

_AHEAD = 8  # batches that are looked through for texts of like length


@dataclass(frozen=True, slots=True)
class Encoded:
    """One prompt.

    Attributes:
        index: its place among the prompts, from 0.
        given: as it was given: a text, or ids as a tuple.
        ids: its tokens.
        reason: why it cannot be read, a key of ``quantities.REASONS``; None if it can.
    """

    index: int
    given: str | tuple[int, ...]
    ids: tuple[int, ...]
    reason: str | None = None


def encode(
    prompts: Iterable[Given], model: LanguageModel, tokenizer: Any = None, begin: int | None = None
) -> Iterator[Encoded]:
    """Ids of prompts, one by one.

    Args:
        prompts: texts, for which a tokenizer is needed, or sequences of ids.
        model: which they are for.
        tokenizer: of transformers, or any callable text -> ids.
        begin: symbol that an empty prompt is replaced with; that of the tokenizer unless given. Without one an empty
            prompt cannot be read (``empty_prompt``).

    Raises:
        ValueError: for a text without a tokenizer, or an id that the model does not have.
    """
    begin = getattr(tokenizer, "bos_token_id", None) if begin is None else begin
    for index, given in enumerate(prompts):
        if isinstance(given, str):
            if tokenizer is None:
                raise ValueError(f"prompt {index} is a text: give a tokenizer, or ids instead of texts")
            out = tokenizer(given)
            ids = tuple(int(i) for i in (out["input_ids"] if hasattr(out, "keys") else out))
        else:
            ids = tuple(int(i) for i in given)
            given = ids
        if not ids and begin is not None:
            ids = (begin,)
        for i in ids:
            if i < 0 or (model.vocabulary is not None and i >= model.vocabulary):
                raise ValueError(
                    f"prompt {index} ({_short(given)}) has the token {i}, and the vocabulary of the model "
                    f"{model.vocabulary} tokens: is the tokenizer that of another model?"
                )
        reason = None if ids else "empty_prompt"
        if model.context is not None and len(ids) > model.context:
            reason = "context_exceeded"
        yield Encoded(index, given, ids, reason)


def _short(given: str | tuple[int, ...]) -> str:
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."


def windows(encoded: Iterable[Encoded], size: int, pads: bool) -> Iterator[tuple[list[Encoded], list[list[Encoded]]]]:
    """Stretches of prompts in their order, and the batches in which the readable ones of a stretch are computed.

    A batch holds texts of like length, of equal length where the model does not pad. No more than ``8 size`` prompts
    are held at once.

    Args:
        encoded: prompts.
        size: most prompts of a batch.
        pads: whether lengths may differ within a batch.

    Example:
        >>> some = [Encoded(i, (1,) * n, (1,) * n) for i, n in enumerate([3, 1, 3, 2])]
        >>> [(len(all), [[e.index for e in b] for b in batches]) for all, batches in windows(some, 2, pads=False)]
        [(4, [[1], [3], [0, 2]])]
    """
    source = iter(encoded)
    while stretch := list(islice(source, _AHEAD * size)):
        batches: list[list[Encoded]] = []
        for one in sorted((e for e in stretch if e.reason is None), key=lambda e: len(e.ids)):
            full = not batches or len(batches[-1]) == size
            if full or (not pads and len(batches[-1][0].ids) != len(one.ids)):
                batches.append([])
            batches[-1].append(one)
        yield stretch, batches


def stop_symbols(stop: int | Sequence[int] | None, model: LanguageModel, tokenizer: Any = None) -> tuple[int, ...]:
    """The symbols that end a text: as given, else that of the tokenizer, else those that the model names.

    Raises:
        ValueError: if a given symbol is none of the model's tokens.
    """
    size = model.vocabulary
    if stop is None:
        named = getattr(tokenizer, "eos_token_id", None)
        found = model.stop if named is None else (int(named),)
        return tuple(s for s in found if size is None or s < size)
    symbols = (stop,) if isinstance(stop, int) else tuple(stop)
    for s in symbols:
        if s < 0 or (size is not None and s >= size):
            raise ValueError(f"stop={s} is no token of the model, which has {size}")
    return symbols


def shown(items: Iterable[T], progress: bool, what: str, total: int | None = None) -> Iterable[T]:
    """The items, with a progress bar if wanted."""
    return track(items, description=what, total=total, transient=True) if progress else items
