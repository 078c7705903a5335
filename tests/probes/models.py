"""Small models, and what it takes to listen to them without a monitor around."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermo_monitor.guard import Guard
from thermo_monitor.probes.base import Listener, Measured, Probe, Surroundings
from thermo_monitor.probes.calls import AttentionCall, OutputCall, RepresentationCall
from thermo_monitor.probes.ear import Ear

VOCABULARY = 29


class Attention(nn.Module):
    """Causal self-attention through scaled_dot_product_attention."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Sequence[Tensor]:
        b, t, w = x.shape
        return [y.view(b, t, self.heads, w // self.heads).transpose(1, 2) for y in self.qkv(x).chunk(3, -1)]

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.norm(x))


class Decoder(nn.Module):
    """Token logits [B, T, V] from blocks in an nn.ModuleList."""

    def __init__(self, layers: int = 2, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def tokens(batch: int = 3, length: int = 9, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(seed))


class Heard:
    """Every call that arrived, with what the softmax made of it."""

    def __init__(self, ear: Ear) -> None:
        self.ear = ear
        self.attention: list[AttentionCall] = []
        self.output: list[OutputCall] = []
        self.representation: list[RepresentationCall] = []
        ear.hub.on_attention.append(self.attention.append)
        ear.hub.on_output.append(self.output.append)
        ear.hub.on_representation.append(self.representation.append)

    @property
    def names(self) -> list[str]:
        return [call.name for call in self.attention]

    def probabilities(self) -> dict[str, Tensor]:
        return {call.name: softmax(call) for call in self.attention}


def softmax(call: AttentionCall) -> Tensor:
    """The attention weights that follow from a call; 0 in rows without a state."""
    z, allowed = call.logits()
    if allowed is not None:
        z = torch.where(allowed, z, -torch.inf)
    return z.softmax(-1).nan_to_num(0.0)


@contextlib.contextmanager
def listening(model: nn.Module) -> Iterator[Heard]:
    """A hub that is open, with every route installed."""
    ear = Ear(model, Guard(strict=True))
    ear.install()
    heard = Heard(ear)
    ear.open()
    try:
        yield heard
    finally:
        ear.close()


class Measuring:
    """One probe on one model, driven as a monitor drives it, without its sinks and detectors."""

    def __init__(self, model: nn.Module, probe: Probe, seed: int = 0) -> None:
        self.ear = Ear(model, Guard(strict=True))
        self.listener: Listener = probe.listen(Surroundings(model, None, self.ear.hub, seed))
        self.ear.install()

    def __enter__(self) -> Measuring:
        self.ear.open()
        return self

    def __exit__(self, *failure: object) -> None:
        self.listener.close()
        self.ear.close()

    def read(self, step: int = 0) -> Measured:
        label, tensors = self.listener.collect()
        return self.listener.read(step, label, [t.detach().double().numpy() for t in tensors])

    def values(self) -> dict[str, float]:
        return {reading.quantity: reading.value for reading in self.read().readings}


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def twin(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model)


@contextlib.contextmanager
def one_line() -> Iterator[list[str]]:
    """Collects what is told to the user."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lines: list[str] = []
        yield lines
        lines += [str(w.message) for w in caught if "thermo-monitor" in str(w.message)]
