"""One face for every language model: prompts go in, logits of the next token come out, token by token.

:func:`adapt` takes a causal model of transformers, which is stepped with its key-value cache, or any callable that maps
ids ``[B, T]`` to logits ``[B, T, V]`` (or ``[B, V]`` of the last position), which is called again with the longer ids.
The model is read in evaluation mode and without gradients, and is left in the mode that it was in; no random number is
drawn from a global generator.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Prompt = Sequence[int]


class Session(Protocol):
    """Some texts that grow token by token: B rows."""

    @property
    def logits(self) -> Tensor:
        """[B, V] logits of the next token of every row."""

    def repeat(self, times: int) -> None:
        """Every row becomes ``times`` equal rows that follow each other."""

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows [b] (indices) only."""

    def feed(self, tokens: Tensor) -> None:
        """Append one token [B] to every row, and compute the logits after it."""


class LanguageModel(Protocol):
    """What the analyses need of a model."""

    @property
    def device(self) -> torch.device:
        """Where ids have to be."""

    @property
    def context(self) -> int | None:
        """Most tokens of a text, if there is a limit."""

    @property
    def vocabulary(self) -> int | None:
        """Number of tokens, if it is known before the first call."""

    @property
    def pads(self) -> bool:
        """Whether prompts of several lengths may be opened together."""

    @property
    def stop(self) -> tuple[int, ...]:
        """Stop symbols that the model names itself."""

    def open(self, prompts: Sequence[Prompt]) -> Session:
        """Start from prompts, each of at least one token."""

    def all_logits(self, prompts: Sequence[Prompt]) -> Tensor:
        """[B, T, V] logits after every token of prompts of one length."""

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Evaluation mode and no gradients, inside the ``with`` only."""


Model = LanguageModel | nn.Module | Callable[[Tensor], Any]


def adapt(model: Model, *, context: int | None = None, device: torch.device | str | None = None) -> LanguageModel:
    """The face of a model.

    Args:
        model: a causal model of transformers, any callable ids -> logits, or something adapted already.
        context: most tokens of a text; from the configuration of a transformers model unless given.
        device: where ids have to be; where the first parameter is unless given, the host without parameters.

    Raises:
        ValueError: for an encoder-decoder, or for something that cannot be called.

    Example:
        >>> coin = adapt(lambda ids: torch.zeros(*ids.shape, 2))
        >>> session = coin.open([[0], [1]])
        >>> session.feed(torch.tensor([1, 1]))
        >>> session.logits.tolist()
        [[0.0, 0.0], [0.0, 0.0]]
    """
    if hasattr(model, "open") and hasattr(model, "all_logits"):
        return model  # type: ignore[return-value]
    if not callable(model):
        raise ValueError(f"{type(model).__name__} is no language model: give a callable ids [B, T] -> logits [B, T, V]")
    transformers = sys.modules.get("transformers")
    if transformers is not None and isinstance(model, transformers.PreTrainedModel):
        if getattr(model.config, "is_encoder_decoder", False):
            raise ValueError(f"{type(model).__name__} is an encoder-decoder: give a causal (decoder only) model")
        return Cached(model, context, device)
    return Called(model, context, device)


class _Face:
    """What both kinds of model share."""

    def __init__(self, model: Any, context: int | None, device: torch.device | str | None) -> None:
        self._model = model
        self._module = model if isinstance(model, nn.Module) else None
        if device is None:
            first = next(self._module.parameters(), None) if self._module is not None else None
            device = torch.device("cpu") if first is None else first.device
        self.device = torch.device(device)
        self.context = context

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Evaluation mode and no gradients, inside the ``with`` only."""
        training = [] if self._module is None else [part for part in self._module.modules() if part.training]
        for part in training:
            part.training = False
        try:
            with torch.no_grad():
                yield
        finally:
            for part in training:
                part.training = True


class Called(_Face):
    """Any callable ids -> logits. Each step costs a pass over the whole text; rows of a batch have one length."""

    pads = False
    vocabulary: int | None = None
    stop: tuple[int, ...] = ()

    def logits(self, ids: Tensor, every: bool = False) -> Tensor:
        """[B, V] after the last token, or [B, T, V] after every token."""
        out = self._model(ids)
        out = getattr(out, "logits", out)
        if not isinstance(out, Tensor) or out.dim() not in (2, 3) or out.shape[0] != ids.shape[0]:
            what = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"ids {tuple(ids.shape)} gave {what}: logits [B, T, V] or [B, V] are needed")
        if not every:
            return out[:, -1] if out.dim() == 3 else out
        if out.dim() == 3:
            return out
        return torch.stack([self.logits(ids[:, : t + 1]) for t in range(ids.shape[1])], 1)

    def open(self, prompts: Sequence[Prompt]) -> Session:
        """Start from prompts of one length."""
        return _CalledSession(self, torch.tensor([list(p) for p in prompts], dtype=torch.int64, device=self.device))

    def all_logits(self, prompts: Sequence[Prompt]) -> Tensor:
        """[B, T, V] logits after every token."""
        return self.logits(torch.tensor([list(p) for p in prompts], dtype=torch.int64, device=self.device), True)


class _CalledSession:
    def __init__(self, model: Called, ids: Tensor) -> None:
        self._face, self._ids = model, ids
        self.logits = model.logits(ids)

    def repeat(self, times: int) -> None:
        self._ids, self.logits = (x.repeat_interleave(times, 0) for x in (self._ids, self.logits))

    def keep(self, rows: Tensor) -> None:
        self._ids, self.logits = self._ids[rows], self.logits[rows]

    def feed(self, tokens: Tensor) -> None:
        self._ids = torch.cat([self._ids, tokens.unsqueeze(-1)], 1)
        self.logits = self._face.logits(self._ids)


class Cached(_Face):
    """A causal model of transformers: prompts are padded on the left, and each step is one token with cached keys."""

    def __init__(self, model: Any, context: int | None, device: torch.device | str | None) -> None:
        config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
        super().__init__(model, context or getattr(config, "max_position_embeddings", None), device)
        self._accepts = set(inspect.signature(model.forward).parameters)
        self.pads = {"attention_mask", "position_ids"} <= self._accepts
        self.vocabulary: int | None = getattr(config, "vocab_size", None)
        named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        named = getattr(config, "eos_token_id", None) if named is None else named
        self.stop: tuple[int, ...] = () if named is None else tuple(named) if isinstance(named, list) else (int(named),)

    def forward(self, ids: Tensor, present: Tensor | None, cache: Any, every: bool = False) -> tuple[Tensor, Any]:
        """Logits and cache after new ids [B, t]; ``present`` [B, all] is False where a text is padded."""
        extra: dict[str, Any] = {}
        if present is not None:
            extra["attention_mask"] = present.to(torch.int64)
            extra["position_ids"] = (present.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if "logits_to_keep" in self._accepts and not every:
            extra["logits_to_keep"] = 1  # the head of a large vocabulary, at one position instead of all
        if "use_cache" in self._accepts:
            extra["use_cache"] = not every
        if "past_key_values" in self._accepts and cache is not None:
            extra["past_key_values"] = cache
        out = self._model(input_ids=ids, **extra)
        return (out.logits if every else out.logits[:, -1]), getattr(out, "past_key_values", None)

    def open(self, prompts: Sequence[Prompt]) -> Session:
        """Start from prompts of any lengths."""
        longest = max(map(len, prompts))
        rows = [[0] * (longest - len(p)) + list(p) for p in prompts]
        ids = torch.tensor(rows, dtype=torch.int64, device=self.device)
        lengths = torch.tensor([len(p) for p in prompts], device=self.device).unsqueeze(-1)
        same = min(map(len, prompts)) == longest
        present = None if same else torch.arange(longest, device=self.device) >= longest - lengths
        return _CachedSession(self, ids, present)

    def all_logits(self, prompts: Sequence[Prompt]) -> Tensor:
        """[B, T, V] logits after every token."""
        ids = torch.tensor([list(p) for p in prompts], dtype=torch.int64, device=self.device)
        return self.forward(ids, None, None, every=True)[0]


class _CachedSession:
    def __init__(self, model: Cached, ids: Tensor, present: Tensor | None) -> None:
        self._face, self._ids, self._present = model, ids, present
        self.logits, self._cache = model.forward(ids, present, None)
        if hasattr(self._cache, "batch_select_indices"):
            from thermo_monitor.analysis.cache import growing  # loads transformers, which is loaded already

            self._cache = growing(self._cache)
        else:
            self._cache = None  # another kind of state: every step reads the whole text

    def repeat(self, times: int) -> None:
        self._ids, self.logits = (x.repeat_interleave(times, 0) for x in (self._ids, self.logits))
        if self._present is not None:
            self._present = self._present.repeat_interleave(times, 0)
        if self._cache is not None:
            self._cache.batch_repeat_interleave(times)

    def keep(self, rows: Tensor) -> None:
        self._ids, self.logits = self._ids[rows], self.logits[rows]
        if self._present is not None:
            self._present = self._present[rows]
        if self._cache is not None:
            self._cache.batch_select_indices(rows)

    def feed(self, tokens: Tensor) -> None:
        new = tokens.unsqueeze(-1)
        self._ids = torch.cat([self._ids, new], 1)
        if self._present is not None:
            self._present = torch.cat([self._present, torch.ones_like(new, dtype=torch.bool)], 1)
        ids = self._ids if self._cache is None else new
        self.logits, cache = self._face.forward(ids, self._present, self._cache)
        self._cache = None if self._cache is None else cache
