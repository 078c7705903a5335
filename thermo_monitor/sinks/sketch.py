"""A small picture of one quantity around an event, drawn without a plotting library beside a training run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from thermo_monitor.sinks.heatmap import png

_WIDTH, _HEIGHT, _EDGE = 640, 220, 12
# Paper, frame, curve, shade of the interval, onset, confirmation.
_PALETTE = ((255, 255, 255), (223, 227, 230), (32, 38, 45), (252, 228, 212), (201, 79, 0), (235, 170, 130))
_PAPER, _FRAME, _CURVE, _SHADE, _ONSET, _CONFIRMED = range(6)


def sketch(
    steps: NDArray[np.float64], values: NDArray[np.float64], onset: tuple[float, float, float], confirmed: float
) -> bytes:
    r"""A PNG of 640 by 220 pixels.

    Args:
        steps: (n,), rising.
        values: (n,), already a logarithm where that says more.
        onset: the onset and the ends of its interval.
        confirmed: step of the confirmation.

    Returns:
        The file; nothing where there are fewer than two finite values.

    Example:
        >>> sketch(np.arange(9.0), np.arange(9.0), (4.0, 3.0, 5.0), 6.0)[:4]
        b'\x89PNG'
    """
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if steps.size < 2 or steps[-1] <= steps[0]:
        return b""
    pixels = np.full((_HEIGHT, _WIDTH), _PAPER, np.uint8)
    inner = _WIDTH - 2 * _EDGE

    def across(step: float) -> int:
        share = (min(max(step, steps[0]), steps[-1]) - steps[0]) / (steps[-1] - steps[0])
        return _EDGE + round(float(share) * (inner - 1))

    first, low, high = onset
    pixels[_EDGE:-_EDGE, across(low) : across(high) + 1] = _SHADE
    pixels[_EDGE:-_EDGE:6, across(confirmed)] = _CONFIRMED
    pixels[_EDGE:-_EDGE, across(first) : across(first) + 2] = _ONSET
    pixels[[_EDGE, -_EDGE], _EDGE:-_EDGE] = _FRAME
    bottom, top = float(values.min()), float(values.max())
    at = np.linspace(steps[0], steps[-1], inner)
    curve = np.interp(at, steps, values)
    share = (curve - bottom) / (top - bottom) if top > bottom else np.full(inner, 0.5)
    rows = np.rint(_HEIGHT - _EDGE - 4 - share * (_HEIGHT - 2 * _EDGE - 8)).astype(int)
    for column in range(inner):  # joined to the neighbour, so that a jump is a line
        other = rows[column - 1] if column else rows[column]
        a, b = sorted((int(rows[column]), int(other)))
        pixels[a : b + 2, _EDGE + column] = _CURVE
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(_PALETTE)] = _PALETTE
    return png(pixels, palette)
