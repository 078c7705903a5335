"""Words and curves for a terminal: nothing from a log may move its cursor."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def printable(text: str) -> str:
    """A text without control characters.

    Example:
        >>> printable("a" + chr(27) + "[2Jb")
        'a?[2Jb'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def sparkline(values: Sequence[float], width: int, log: bool = False) -> str:
    """A curve as blocks, one for each stretch of it; a dot where nothing was measured.

    Example:
        >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8)
        '▁▂▃▄▅▆▇█'
        >>> sparkline([1, 10, 100, float("nan")], 4, log=True)
        '▁▅█·'
    """
    if not len(values) or width < 1:
        return ""
    width = min(width, len(values))
    heights = []
    for n in range(width):
        part = values[n * len(values) // width : (n + 1) * len(values) // width]
        good = sorted(math.log(v) if log else v for v in part if math.isfinite(v) and (v > 0 or not log))
        heights.append(good[len(good) // 2] if good else math.nan)
    finite = [h for h in heights if math.isfinite(h)]
    if not finite:
        return "·" * width
    low, high = min(finite), max(finite)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[math.floor((h - low) * scale + 0.5)] if math.isfinite(h) else "·" for h in heights)


def short(value: float) -> str:
    """A number in few characters.

    Example:
        >>> short(0.000123), short(12345.0), short(float("nan"))
        ('0.000123', '1.23e+04', '-')
    """
    return "-" if math.isnan(value) else f"{value:.3g}"
