"""Which planes a model's rotary positions turn, and by how much: asked of the model, never guessed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Layout = Literal["half", "interleaved"]
_TURNS = ("rotate_half", "rotate_every_two")


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary positions of a model.

    Attributes:
        layout: ``half`` or ``interleaved``.
        theta: [J] angle by which each plane turns from one position to the next.
    """

    layout: Layout
    theta: Tensor


def rotary_of(model: nn.Module) -> Rotary | None:
    """Layout and angles of a transformers model; None where they are not told beyond doubt.

    The layout is what the model file's own function that turns a vector by 90 degrees does to one; the angles are the
    buffer ``inv_freq``, which must be the same throughout the model.
    """
    found = [x for m in model.modules() if isinstance(x := getattr(m, "inv_freq", None), Tensor)]
    if not found or any(not _same(found[0], other) for other in found[1:]):
        return None
    angles: Tensor = found[0]
    layouts = {_layout(function) for function in _turning_functions(model)}
    layout = layouts.pop() if len(layouts) == 1 else None
    return None if layout is None else Rotary(layout, angles.detach().clone())


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.shape == other.shape and torch.equal(one.detach().cpu(), other.detach().cpu()))


def _turning_functions(model: nn.Module) -> list[Any]:
    files = {type(module).__module__ for module in model.modules()}
    functions = [getattr(sys.modules.get(file), name, None) for file in sorted(files) for name in _TURNS]
    return [function for function in functions if callable(function)]


def _layout(turn: Any) -> Layout | None:
    x = torch.arange(1.0, 9.0).view(1, 1, 1, 8)
    try:
        turned = turn(x).flatten().tolist()
    except Exception:
        return None
    if turned == [-5, -6, -7, -8, 1, 2, 3, 4]:
        return "half"
    return "interleaved" if turned == [-2, 1, -4, 3, -6, 5, -8, 7] else None
