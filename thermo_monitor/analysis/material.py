"""What an analysis works on: a model, and prompts from a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from thermo_monitor.analysis.language import LanguageModel, adapt
from thermo_monitor.analysis.loading import Loaded
from thermo_monitor.analysis.prompts import Encoded, Given, encode


@dataclass(frozen=True)
class Material:
    """A model with its prompts.

    Attributes:
        loaded: the model.
        others: further models, to be compared with it.
        face: the model as the generating analyses see it.
        encoded: all prompts, those that cannot be read with the reason.
        ids: [N, n] first n tokens of the prompts that have as many, for what compares at equal length.
        seed: of everything that is drawn.
    """

    loaded: Loaded
    face: LanguageModel
    encoded: tuple[Encoded, ...]
    ids: Tensor
    others: tuple[Loaded, ...] = ()
    seed: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def readable(self) -> list[Encoded]:
        """Prompts that can be read."""
        return [one for one in self.encoded if one.reason is None]


def read_prompts(path: str | Path, ids: bool = False) -> list[Given]:
    """Prompts of a file: one a line, or a JSON text, list of ids, or object with ``prompt`` or ``text``, one a line.

    Args:
        path: the file; JSON if its name ends in ``.jsonl``.
        ids: whether a line is a list of ids, such as ``3 17 4``, because there is no tokenizer.

    Raises:
        ValueError: the file cannot be read, has no prompts, or a line is not what it should be.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text in UTF-8") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    found = [
        _prompt(line, f"{path}, line {k}", str(path).endswith(".jsonl"), ids)
        for k, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not found:
        raise ValueError(f"{path} has no prompts: give one a line")
    return found


def _prompt(line: str, where: str, as_json: bool, ids: bool) -> Given:
    given: object = line
    if as_json:
        try:
            given = json.loads(line)
        except ValueError:
            raise ValueError(f"{where}: no JSON") from None
        if isinstance(given, dict):
            given = given.get("prompt", given.get("text"))
    elif ids:
        given = line.replace(",", " ").split()
        if not all(part.lstrip("-").isdigit() for part in given):
            raise ValueError(f"{where}: the model has no tokenizer, so a prompt is a list of ids, such as 3 17 4")
        given = [int(part) for part in given]
    if isinstance(given, str) and not ids:
        return given
    if isinstance(given, list) and all(isinstance(part, int) for part in given):
        return tuple(given)
    raise ValueError(f"{where}: neither a list of ids nor a text with a tokenizer for it")


def prepare(
    loaded: Loaded,
    prompts: Sequence[Given],
    *,
    others: Sequence[Loaded] = (),
    length: int | None = None,
    context: int | None = None,
    seed: int = 0,
) -> Material:
    """Encode prompts and check them against the model.

    Args:
        loaded: the model.
        prompts: texts or ids.
        others: further models.
        length: n; the length that keeps most tokens unless given.
        context: most tokens of a prompt; that of the model's configuration unless given.
        seed: of what is drawn later.

    Raises:
        ValueError: a token that the model does not have, or no prompt that can be read.
    """
    face = adapt(loaded.model, context=context)
    encoded = tuple(encode(prompts, face, loaded.tokenizer))
    _vocabulary(loaded, encoded)
    reasons = Counter(one.reason for one in encoded if one.reason is not None)
    rows = sorted((one.ids for one in encoded if one.reason is None), key=len, reverse=True)
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        raise ValueError(f"none of the {len(encoded)} prompts can be read ({why})")
    if length is None:
        length = max(range(1, len(rows[0]) + 1), key=lambda n: (n * sum(len(row) >= n for row in rows), -n))
    kept = [one.ids[:length] for one in encoded if one.reason is None and len(one.ids) >= length]
    ids = torch.tensor(kept, dtype=torch.int64).reshape(len(kept), length)
    return Material(loaded, face, encoded, ids, tuple(others), seed, dict(reasons))


def _vocabulary(loaded: Loaded, encoded: Sequence[Encoded]) -> None:
    """Where no configuration says how many tokens there are, the embedding does."""
    sizes = [m.num_embeddings for m in loaded.model.modules() if isinstance(m, torch.nn.Embedding)]
    highest = max((max(one.ids) for one in encoded if one.ids), default=0)
    if sizes and highest >= max(sizes):
        raise ValueError(f"a prompt has the token {highest}, and the model {max(sizes)}: is it the right tokenizer?")
