"""Cached keys and values that grow in place.

A dynamic cache of transformers is copied as a whole for every new token, which for many short continuations of one
prompt costs more than the model. Here a layer keeps room for tokens to come, and copies when that is used up.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

_ROOM = 32  # tokens that there is room for, at least


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values [B, H, T, D] of one layer, at the beginning of larger buffers."""

    _buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values [B, H, t, D]; gives all of them."""
        assert self.keys is not None and self.values is not None  # noqa: PT018 - one fact: the prompt was read
        seen, new = self.keys.shape[-2], key_states.shape[-2]
        buffers = self._buffers
        # Rows that were chosen or repeated since then are tensors of their own.
        mine = buffers is not None and buffers[0].data_ptr() == self.keys.data_ptr()
        if buffers is None or not mine or buffers[0].shape[-2] < seen + new:
            buffers = _roomy(self.keys, seen + new), _roomy(self.values, seen + new)
        for buffer, states in zip(buffers, (key_states, value_states), strict=True):
            buffer[..., seen : seen + new, :] = states
        self._buffers = buffers
        self.keys, self.values = (buffer[..., : seen + new, :] for buffer in buffers)
        return self.keys, self.values


def _roomy(x: Tensor, length: int) -> Tensor:
    room = max(_ROOM, length // 4)
    out = torch.empty(*x.shape[:-2], length + room, x.shape[-1], dtype=x.dtype, device=x.device)
    out[..., : x.shape[-2], :] = x
    return out


def growing(cache: Any) -> Any:
    """The cache, its plain layers grown in place from now on; layers of other kinds are left as they are."""
    for i, layer in enumerate(getattr(cache, "layers", ())):
        if type(layer) is DynamicLayer and isinstance(layer.keys, Tensor) and layer.keys.dim() == 4:
            fresh = GrowingLayer.__new__(GrowingLayer)
            fresh.__dict__.update(layer.__dict__)
            cache.layers[i] = fresh
    return cache
