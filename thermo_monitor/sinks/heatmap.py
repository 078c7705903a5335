"""A small picture of one quantity over layers and heads, drawn without a plotting library inside a training run."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

# The colour map viridis at 17 even places (S. van der Walt and N. Smith, public domain); linear in between, which
# is within 1 % of it. Safe for the colour-blind, and monotone in lightness, so that it survives a grey print.
_VIRIDIS = (
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c "
    "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725"
)
_SIZE = 480  # pixels that the longer side of the grid aims at
_GREYS = ((236, 236, 236), (150, 150, 150))  # stripes of a head that was not measured


def heat_map(values: NDArray[np.floating], low: float, high: float) -> tuple[bytes, int, int]:
    """Draw a grid as PNG: a row per layer, a column per head, dark for low and bright for high.

    Cells are squares of one colour, at least 4 and at most 40 pixels wide. A cell that is NaN is striped in grey, so
    that "not measured" is never mistaken for a small value.

    Args:
        values: [L, H].
        low: value of the darkest colour.
        high: value of the brightest colour; where it equals `low` everything has the colour of the middle.

    Returns:
        The file, its width and its height in pixels.
    """
    rows, columns = values.shape
    cell = min(40, max(4, _SIZE // max(rows, columns, 1)))
    share = (values - low) / (high - low) if high > low else np.where(np.isnan(values), np.nan, 0.5)
    missing = np.isnan(share)
    index = np.rint(np.clip(np.where(missing, 0.0, share), 0.0, 1.0) * 253).astype(np.uint8)
    pixels = index.repeat(cell, 0).repeat(cell, 1)
    y, x = np.indices(pixels.shape)
    stripes = np.where((x + y) // 3 % 2 == 0, 254, 255).astype(np.uint8)
    pixels = np.where(missing.repeat(cell, 0).repeat(cell, 1), stripes, pixels)
    return png(pixels, _palette()), pixels.shape[1], pixels.shape[0]


def _palette() -> NDArray[np.uint8]:
    anchors = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in _VIRIDIS.split()], float)
    at, places = np.linspace(0, 1, 254), np.linspace(0, 1, len(anchors))
    colours = np.stack([np.interp(at, places, anchors[:, i]) for i in range(3)], axis=1)
    return np.concatenate([np.rint(colours), _GREYS]).astype(np.uint8)


def png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """A PNG with a palette: pixels [height, width] are indices of palette [256, 3]."""
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row starts with its filter, 0: none
    rows[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
