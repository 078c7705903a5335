"""Real text that every Python has, and a language model small enough to be trained on it in a minute or two.

The text is the reference of the language that comes with Python for ``help()``: some hundred thousand words of English.
It is read where it lies and is no part of this package.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermo_monitor.demo.modular import Block

_WORDS = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]")
UNKNOWN = "?"


@dataclass(frozen=True, slots=True)
class Text:
    """A text in tokens.

    Attributes:
        words: word of each token; the first one stands for all rare words.
        train: [N] tokens of the first nine tenths of the topics.
        held_out: [M] tokens of the others.
    """

    words: tuple[str, ...]
    train: Tensor
    held_out: Tensor

    def sentences(self, count: int, length: int, seed: int = 0) -> Tensor:
        """[count, length] stretches of the held-out text, drawn without overlap where there are enough."""
        whole = self.held_out[: len(self.held_out) // length * length].view(-1, length)
        generator = torch.Generator().manual_seed(seed)
        if count <= len(whole):
            return whole[torch.randperm(len(whole), generator=generator)[:count]]
        starts = torch.randint(len(self.held_out) - length, (count, 1), generator=generator)
        return self.held_out[starts + torch.arange(length)]

    def read(self, tokens: Tensor) -> str:
        """Tokens as a text."""
        return " ".join(self.words[int(t)] for t in tokens)


def python_reference(vocabulary: int = 1024) -> Text:
    """The reference of Python, word by word: lower case, digits one by one, signs one by one.

    Args:
        vocabulary: number of tokens; the most frequent words of the training part, and one for all others.

    Example:
        >>> text = python_reference(256)
        >>> len(text.words), int(text.train.max()) < 256, text.words[0]
        (256, True, '?')
    """
    from pydoc_data.topics import topics

    cut = len(topics) * 9 // 10
    parts = [
        _WORDS.findall("\n".join(some).lower()) for some in (list(topics.values())[:cut], list(topics.values())[cut:])
    ]
    common = [word for word, _ in Counter(parts[0]).most_common() if word != UNKNOWN][: vocabulary - 1]
    number = {word: k for k, word in enumerate([UNKNOWN, *common])}
    train, held_out = (torch.tensor([number.get(word, 0) for word in words]) for words in parts)
    return Text((UNKNOWN, *common), train, held_out)


class WordModel(nn.Module):
    """A causal transformer: ids [B, T] to logits [B, T, V]."""

    def __init__(self, vocabulary: int, width: int = 64, layers: int = 2, heads: int = 4, context: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(context, width) * 0.02)
        self.blocks = nn.ModuleList(NormedBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for weight in (self.embedding.weight, self.head.weight):  # a fresh model finds all words alike
            nn.init.normal_(weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits after every token."""
        x = self.embedding(ids) + self.position[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


class NormedBlock(nn.Module):
    """The block of the demo, with its input normalised."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = Block(width, heads, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] to [B, T, d]."""
        y = self.norm(x)
        update: Tensor = self.inner(y) - y
        return x + update


def train(
    model: nn.Module,
    text: Text,
    steps: int,
    *,
    seed: int = 0,
    batch: int = 16,
    length: int = 64,
    lr: float = 3e-3,
    at: Mapping[int, Callable[[], None]] | None = None,
) -> nn.Module:
    """Train in place with AdamW, a short warm-up and a cosine to a tenth; returns the model in evaluation mode.

    Args:
        model: ids -> logits.
        text: what it reads.
        steps: of the optimizer.
        seed: of the order of the text.
        batch: sequences of a step.
        length: their tokens.
        lr: highest learning rate.
        at: what is called after so many steps, to keep a checkpoint, say.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    warm = max(1, min(50, steps // 5))
    scale = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min((k + 1) / warm, 0.55 + 0.45 * math.cos(math.pi * k / max(1, steps)))
    )
    model.train()
    at = at or {}
    for step in range(steps):
        if step in at:
            at[step]()
        starts = torch.randint(len(text.train) - length - 1, (batch, 1), generator=generator)
        ids = text.train[starts + torch.arange(length + 1)]
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scale.step()
    if steps in at:
        at[steps]()
    return model.eval()
