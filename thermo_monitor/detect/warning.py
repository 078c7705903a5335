"""Is something building up? An experimental score between 0 and 1, to look at and never to be alarmed by.

Three parts, each between 0 and 1, and their mean:

* *slowing down*: before some transitions a system recovers more and more slowly from its own noise, so that the lag-one
  correlation and the variance of its fluctuations rise together. Kendall's tau of each against time, in the halves that
  a window contains, and the smaller of the two is compared with the same number for stationary AR(1) noise with the
  coefficient of the series (a surrogate test). The plain recipe, tau > .5, is wrong for every fifth stationary series.
* *simplification*: the fall of the representation entropy from its highest level in the window; 1 is three minimum
  effects.
* *progress*: ``log F / log A`` of the fused statistic, on its way to an alarm.

Nothing published shows that slowing down of logged scalars precedes grokking; the score is there to find out.

Source: Dakos et al. 2012, PLoS ONE 7(7) e41010 (indicators and surrogates); Dablander & Bury 2022 (why to de-trend).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from thermo_monitor.streaming import autoregression, scale

LENGTHS = (256, 128, 64)  # of the window, the longest that there are readings for
POSITIONS = 16  # rolling halves of it that are compared
SURROGATES = 499
SURE = 0.01  # p-value that counts as 1
LARGE = 3.0  # minimum effects of a fall of the representation entropy that count as 1
SMOOTH = 5
Matrix = NDArray[np.float64]
State = dict[str, Any]


@functools.lru_cache(maxsize=8)
def _curves(n: int) -> Matrix:
    """Orthonormal basis of the parabolas on n readings, shape (n, 3)."""
    return np.asarray(np.linalg.qr(np.vander(np.linspace(-1.0, 1.0, n), 3))[0])


def detrended(rows: Matrix) -> Matrix:
    """Rows without their best parabola, what is further than four robust deviations out brought in.

    Example:
        >>> bool(np.allclose(detrended(np.arange(64.0)[None] ** 2), 0.0, atol=1e-9))
        True
    """
    basis = _curves(rows.shape[1])
    rest = rows - (rows @ basis) @ basis.T
    size = np.median(np.abs(rest), axis=1, keepdims=True) / scale.NORMAL_QUARTILE
    return np.asarray(np.clip(rest, -4.0 * size, 4.0 * size))


def kendall(rows: Matrix) -> Matrix:
    """Kendall's tau of each row against time: concordant minus discordant pairs, over all pairs.

    Example:
        >>> kendall(np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])).round(3).tolist()
        [1.0, -0.333]
    """
    early, late = np.triu_indices(rows.shape[1], 1)
    return np.asarray(np.mean(np.sign(rows[:, late] - rows[:, early]), axis=1))


def indicators(rows: Matrix) -> tuple[Matrix, Matrix]:
    """Lag-one correlation and variance in each rolling half of each row, both of shape (rows, POSITIONS + 1).

    With prefix sums; ``sum (r_t - m)(r_{t-1} - m)`` is ``sum r_t r_{t-1} - m (sum of both) + (half - 1) m^2``.
    """
    half = rows.shape[1] // 2
    first = np.arange(0, rows.shape[1] - half + 1, half // POSITIONS)
    last = first + half

    def prefix(terms: Matrix) -> Matrix:
        return np.pad(np.cumsum(terms, axis=1), ((0, 0), (1, 0)))

    sums, squares, products = prefix(rows), prefix(rows**2), prefix(rows[:, 1:] * rows[:, :-1])
    total = sums[:, last] - sums[:, first]
    mean = total / half
    variance = np.maximum((squares[:, last] - squares[:, first]) / half - mean**2, 1e-300)
    both = 2.0 * total - rows[:, first] - rows[:, last - 1]
    together = products[:, last - 1] - products[:, first] - mean * both + (half - 1) * mean**2
    return np.asarray(together / (half * variance)), np.asarray(variance)


def trend(rows: Matrix) -> Matrix:
    """The smaller tau of the two indicators, for each row: large only if correlation *and* variance rise."""
    correlation, variance = indicators(detrended(rows))
    return np.minimum(kendall(correlation), kendall(variance))


@functools.lru_cache(maxsize=64)
def _stationary(n: int, percent: int) -> Matrix:
    """The trend of stationary AR(1) noise with coefficient ``percent / 100``, sorted. Computed once, milliseconds."""
    rng, phi = np.random.default_rng([n, percent]), percent / 100.0
    rows = np.empty((SURROGATES, n))
    level = rng.standard_normal(SURROGATES)
    for t, innovation in enumerate(rng.standard_normal((n, SURROGATES)) * math.sqrt(1.0 - phi * phi)):
        rows[:, t] = level = phi * level + innovation
    return np.sort(trend(rows))


def p_value(values: Matrix) -> float:
    """Probability that stationary AR(1) noise as correlated as ``values`` shows such a rise of both indicators.

    ``(1 + surrogates with a trend as large) / (1 + surrogates)``. The coefficient is that of the de-trended values, its
    bias undone, to the next twentieth.

    Args:
        values: shape (n,), equally spaced, 64 or more; the last 64, 128 or 256 are used.

    Returns:
        Within (0, 1]; NaN for fewer values, or such as do not vary.

    Example:
        >>> noise = np.random.default_rng(0).standard_normal(256)
        >>> slower = np.zeros(256)
        >>> for t in range(1, 256):
        ...     slower[t] = t / 256 * slower[t - 1] + noise[t]  # the coefficient rises from 0 to 1
        >>> p_value(noise) > 0.05 > p_value(slower)
        True
    """
    n = next((length for length in LENGTHS if len(values) >= length), 0)
    if n == 0:
        return math.nan
    rows = np.asarray(values[-n:], dtype=np.float64)[None]
    rest = detrended(rows)[0]
    if not np.ptp(rest) > 1e-9 * np.max(np.abs(rows)):
        return math.nan
    phi = autoregression.lag_one(rest)
    phi = min(phi + (3.0 + 7.0 * phi) / n, autoregression.LARGEST)  # three fitted coefficients lower it further
    null = _stationary(n, min(5 * round(20.0 * phi), 98))
    above = null.size - int(np.searchsorted(null, trend(rows)[0], side="left"))
    return (1 + above) / (1 + null.size)


def fresh() -> State:
    """The state that has seen nothing: for each series its window, its p-value and when that is due again."""
    return {}


def add(state: State, key: str, value: float) -> None:
    """One more finite reading, to six digits, in place."""
    own = state.setdefault(key, {"window": [], "p": None, "due": LENGTHS[-1]})
    own["window"].append(float(f"{value:.6g}"))
    own["due"] -= 1
    if len(own["window"]) > LENGTHS[0] + 32:
        del own["window"][:32]


def cut(state: State, key: str | None = None) -> None:
    """Forget the past of one series, or of all: what came before an intervention or a change is not compared."""
    for name in [key] if key is not None else list(state):
        state.pop(name, None)


def slowing(state: State) -> float:
    """The smallest p-value of all series times their number, at most 1; NaN where no window is long enough.

    A p-value is computed again when a quarter of its window is new.
    """
    values = []
    for own in state.values():
        if own["due"] <= 0:
            p = p_value(np.array(own["window"]))
            own["p"] = None if math.isnan(p) else p
            own["due"] = min(len(own["window"]), LENGTHS[0]) // 4
        if own["p"] is not None:
            values.append(own["p"])
    return min(min(values) * len(values), 1.0) if values else math.nan


def fall(window: list[float]) -> float:
    """How far the level, a running median of five, is below its highest in the window.

    Example:
        >>> round(fall([0.5] * 10 + [0.4] * 10), 9), fall([0.4] * 10 + [0.5] * 10)
        (0.1, 0.0)
    """
    if len(window) < SMOOTH:
        return 0.0
    levels = np.median(sliding_window_view(np.array(window), SMOOTH), axis=1)
    return float(levels.max() - levels[-1])


def score(p: float, decline: float, progress: float) -> float:
    """Mean of three parts within [0, 1]: ``log p / log .01``, a third of ``decline``, ``progress``.

    Args:
        p: of :func:`slowing`; NaN counts as no sign.
        decline: fall of the representation entropy in minimum effects.
        progress: ``log F / log A``.

    Example:
        >>> score(1.0, 0.0, 0.0), score(0.01, 3.0, 1.0), round(score(0.1, 0.0, 1.0), 9)
        (0.0, 1.0, 0.5)
    """
    slow = 0.0 if math.isnan(p) else math.log(p) / math.log(SURE)
    return sum(min(max(part, 0.0), 1.0) for part in (slow, decline / LARGE, progress)) / 3.0
