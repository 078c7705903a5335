"""What squared gradient norms of single examples come to, on the host: units, error bars, and what is not valid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from thermo_monitor.physics.coherence import gradient_coherence
from thermo_monitor.physics.noise_scale import SmoothedNoise, noise_parts
from thermo_monitor.physics.temperature import sgd_noise_scale, sgd_temperature
from thermo_monitor.probes.base import Array, Map, Measured, number
from thermo_monitor.probes.batch import Batch
from thermo_monitor.probes.example_sums import HeardStep, StepSums, sums_of

TRACE, SHARE = "fisher/trace_empirical", "fisher/share_empirical"
COVERED, NOISE, SCALE = "fisher/covered_share", "fisher/noise_trace", "fisher/gradient_noise_scale"
COHERENCE, RATIO = "fisher/gradient_coherence", "fisher/proxy_ratio"
HEAT, HEAT_SCALE = "opt/sgd_temperature", "opt/sgd_noise_scale"
POSSIBLE = (TRACE, SHARE, COVERED, NOISE, SCALE, COHERENCE, HEAT, HEAT_SCALE, RATIO)
NEARLY_ALL = 0.9  # share of the parameters that has to be covered for the coherence of all
ROUNDING = 8.0  # units of rounding in a loss below which the residuals of a softmax are rounding


class ExampleReadings:
    """Turns what one step sent into readings; remembers the averages of the noise scale.

    Args:
        quantities: keys asked for.
        per: whether the loss of an example is the mean or the sum over its tokens.
        dataset: number of examples that batches are drawn from, where it is known.
        layers: of the model, in its order.
    """

    def __init__(
        self, quantities: Sequence[str], per: str, dataset: int | None = None, layers: Sequence[str] = ()
    ) -> None:
        self._quantities = quantities
        self._layers = tuple(layers)
        self._per = per
        self._dataset = dataset
        self._smoothed = SmoothedNoise()
        self._before: Batch | None = None

    def read(self, step: int, label: HeardStep, arrays: Sequence[Array], loss: float = math.inf) -> Measured:
        """Readings of one step, on one rank; ``loss`` in units of its rounding."""
        return self.from_sums(step, label, sums_of(label, arrays, self._per), loss)

    def from_sums(self, step: int, label: HeardStep, sums: StepSums, loss: float = math.inf) -> Measured:
        """Readings of one step."""
        seen, batch = sums.batch, sums.batch.examples
        repeated, self._before = seen.same_as(self._before), seen
        if sums.why:
            return Measured([number(step, key, math.nan, reason=sums.why) for key in self._quantities])
        traces = {layer: value / sums.count for layer, value in sums.traces.items()}
        total = sum(traces.values())
        error = math.sqrt(sums.error) / sums.count if math.isfinite(sums.error) else None
        whole, covered = sums.whole, sums.covered
        gradient = covered / sums.weight**2 if sums.weight else math.nan
        noise = noise_parts(total, gradient, small_batch=1, big_batch=batch)
        finite = math.isfinite(total)
        if finite:
            self._smoothed.add(noise)
        smoothed = self._smoothed.parts
        coherence = gradient_coherence(total, gradient, batch=batch, examples=self._dataset)
        incoherent = "partly_covered" if sums.size < NEARLY_ALL * sums.parameters else ""
        incoherent = incoherent or ("rounding" if loss < ROUNDING else "")
        heat, heat_scale, cold = self._heat(label, sums.size, batch, repeated)
        reasons = {
            HEAT: cold or noise.reason,
            HEAT_SCALE: cold or "unknown_dataset",
            NOISE: noise.reason or "non_finite",
            SCALE: noise.reason or ("degenerate" if finite else "non_finite"),
            COHERENCE: incoherent or noise.reason or ("degenerate" if finite else "non_finite"),
            COVERED: "non_finite" if not math.isfinite(whole) else "degenerate",
        }
        values = {
            TRACE: total,
            SHARE: max(traces.values()) / total if total > 0 else math.nan,
            COVERED: covered / whole if whole > 0 else math.nan,
            NOISE: noise.noise,
            SCALE: smoothed.scale if finite and not noise.reason else math.nan,
            COHERENCE: math.nan if incoherent else coherence,
            RATIO: math.nan,  # from the proxy, below
            HEAT: heat,
            HEAT_SCALE: heat_scale,
        }
        errors = {TRACE: error, COHERENCE: self._error(coherence, error, total, batch, sums.all_read)}
        measured = Measured(
            [
                number(step, key, values[key], reason=reasons.get(key, "non_finite"), error=errors.get(key))
                for key in self._quantities
            ]
        )
        if SHARE in self._quantities and finite and total > 0:
            column = np.array([traces.get(layer, math.nan) for layer in self._layers])[:, None]
            measured.maps += [Map(TRACE, column, self._layers), Map(SHARE, column / total, self._layers)]
        return measured

    def _error(self, coherence: float, error: float | None, mean: float, batch: int, all_read: bool) -> float | None:
        """Standard error of the coherence, which goes as ``1/mean`` but for what is known exactly.

        Of a batch whose examples were all read nothing is estimated, and of the data that it is from only the scale.
        """
        if error is None or not mean > 0 or batch < 2:
            return None
        examples = max(self._dataset or batch, batch)
        if all_read:
            return abs(coherence - 1.0) * error / mean if examples > batch else None
        return abs(coherence - 1.0 + (examples - 1) / (batch - 1)) * error / mean

    def _heat(self, label: HeardStep, parameters: int, batch: int, repeated: bool) -> tuple[float, float, str]:
        """Temperature of the noise, the noise scale of the settings, and why there are none."""
        settings = {(d.lr, d.momentum) for d in label.descent}
        if not label.optimizer:
            return math.nan, math.nan, "no_optimizer"
        if len(settings) != 1 or not all(d.plain for d in label.descent):
            return math.nan, math.nan, "unsupported_optimizer"
        dataset = math.inf if self._dataset is None else self._dataset
        if repeated or batch >= dataset:
            return math.nan, math.nan, "full_batch"
        ((lr, momentum),) = settings
        heat = sgd_temperature(
            lr, self._smoothed.parts.noise, batch=batch, parameters=parameters, momentum=momentum, dataset=dataset
        )
        scale = sgd_noise_scale(lr, batch=batch, dataset=dataset, momentum=momentum)
        return heat, scale if self._dataset is not None else math.nan, "" if math.isfinite(heat) else "too_early"
