"""Fisher information of the model's own predictions, on a fixed batch beside the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from thermo_monitor.physics import fisher as physics
from thermo_monitor.probes.base import Array, Listener, Map, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.draws import drawn, ggn_tridiagonal
from thermo_monitor.probes.fixed import Forward, plain_forward, to_device, undisturbed
from thermo_monitor.probes.layers import layer_of

_MC, _GGN, _SHARE = "fisher/trace_mc", "fisher/trace_ggn", "fisher/share_mc"
_DIMENSION, _PARTICIPATION = "fisher/effective_dimension", "fisher/diag_participation"
_MEAN, _MAX = "fisher/diag_mean", "fisher/diag_max"
_TOP = "fisher/top_eigenvalue"
_SPEED, _LENGTH = "fisher/speed", "fisher/length"
_OUTPUT_SPEED, _OUTPUT_LENGTH = "fisher/output_speed", "fisher/output_length"
_POSSIBLE = (
    _MC, _GGN, _SHARE, _DIMENSION, _PARTICIPATION, _SPEED, _LENGTH, _OUTPUT_SPEED, _OUTPUT_LENGTH,
    _MEAN, _MAX, _TOP,
)  # fmt: skip
_SUMMARY = (_MEAN, _MAX, _PARTICIPATION)
_DIAGONAL = (_DIMENSION, *_SUMMARY, _SPEED, _LENGTH)
_OF_SOFTMAX = (_MC, _SHARE, _OUTPUT_SPEED, _OUTPUT_LENGTH)


@dataclass(frozen=True, slots=True)
class FisherProbe:
    """Monte-Carlo Fisher information and its diagonal, GGN, top eigenvalue, and the speed of a run in this metric.

    A fixed batch goes through the model in evaluation mode, and some backward passes with labels drawn from the model
    follow, into tensors of their own: gradients, random streams, modes and buffers of the training stay as they are.
    Each measurement costs ``draws`` backward passes over that batch, and two forward passes.

    Attributes:
        inputs: what the model is called with: a tensor, a tuple of arguments or a mapping of named ones.
        forward: gives outputs [..., V] from the model and the inputs; None: calls the model.
        loss: ``cross_entropy``, or ``squared_error`` where a row's loss is the sum of its squared errors.
        draws: of labels; each is one backward pass.
        damping: of the effective dimension, in the unit of the Fisher information of one row.
        lanczos: matrix products for the top eigenvalue of the GGN, each of two backward passes; 0: not measured.
        quantities: keys to measure.
    """

    inputs: Any
    forward: Forward | None = None
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    draws: int = 8
    damping: float = 1e-3
    lanczos: int = 0
    quantities: tuple[str, ...] = _POSSIBLE[:-1]

    def __post_init__(self) -> None:
        check_quantities(self.quantities, _POSSIBLE, "FisherProbe")
        if self.loss not in ("cross_entropy", "squared_error"):
            raise ValueError(f"loss={self.loss!r}: give 'cross_entropy' or 'squared_error'")
        if self.draws < 2:
            raise ValueError(f"draws={self.draws}: an error bar needs at least 2 draws")
        if not self.damping > 0:
            raise ValueError(f"damping={self.damping}: give a positive number")
        if self.lanczos < 0 or (_TOP in self.quantities and not self.lanczos):
            raise ValueError(f"lanczos={self.lanczos}: {_TOP} needs some matrix products, 8 say")

    @property
    def fast(self) -> bool:
        """Several backward passes, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run: nothing is installed."""
        return _FisherListener(self, run)


class _Facts(NamedTuple):
    """What is known on the host: how many tensors of each kind were sent."""

    sent: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(slots=True)
class _Lengths:
    """What the run has come along so far."""

    last: int | None = None
    total: dict[str, float] = field(default_factory=dict)


class _FisherListener(Listener):
    reads = "whole"

    def __init__(self, options: FisherProbe, run: Surroundings) -> None:
        self._options = options
        self._model = run.model
        module = run.model.module if isinstance(run.model, nn.parallel.DistributedDataParallel) else run.model
        self._called: nn.Module = module
        self._seed, self._rank = run.seed, run.rank
        self._generator: torch.Generator | None = None
        self._inputs = options.inputs
        self._sent: dict[str, Tensor] = {}
        self._layers: tuple[str, ...] = ()
        self._outputs: Tensor | None = None
        self._diagonal: list[Tensor] = []
        self._before: list[tuple[Tensor, Tensor]] = []
        self._lengths = _Lengths()

    def _wants(self, *keys: str) -> bool:
        return any(key in self._options.quantities for key in keys)

    # ---------------------------------------------------------------------------------------------- on the device
    def before_step(self) -> None:
        """Outputs of the fixed batch, and gradients for labels drawn from them, at the weights that the step saw."""
        if self._outputs is not None or self._rank:
            return  # a second optimizer of the same step; another rank, which would only find the same
        trained = [(name, p) for name, p in self._called.named_parameters() if p.requires_grad]
        if not trained:
            return
        device = trained[0][1].device
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self._seed)
            self._inputs = to_device(self._options.inputs, device)
        parameters = [p for _, p in trained]
        with undisturbed(self._called), torch.autocast(device.type, enabled=False):
            self._draw(trained, parameters)
            if self._wants(_TOP):
                self._sent["top"] = ggn_tridiagonal(
                    self._forward, parameters, self._options.loss, self._options.lanczos, self._generator
                )
        if self._wants(_SPEED, _LENGTH):
            self._before = [(p, p.detach().clone()) for p in parameters]

    def _forward(self) -> Tensor:
        forward = self._options.forward or plain_forward
        outputs = forward(self._called, self._inputs)
        return outputs.reshape(-1, outputs.shape[-1])

    def _draw(self, trained: Sequence[tuple[str, Tensor]], parameters: Sequence[Tensor]) -> None:
        assert self._generator is not None
        loss = self._options.loss
        # Labels are drawn where there are any; what needs only a diagonal is content with either.
        kinds = ["mc"] if loss == "cross_entropy" and self._wants(*_DIAGONAL, _MC, _SHARE) else []
        if self._wants(_GGN) or (loss != "cross_entropy" and self._wants(*_DIAGONAL)):
            kinds.append("ggn")
        found = drawn(self._forward, parameters, kinds, loss, self._options.draws, self._generator)
        self._outputs, self._diagonal = found.outputs, found.diagonal
        layers = [layer_of(name) for name, _ in trained]
        self._layers = tuple(dict.fromkeys(layers))
        index = torch.tensor([self._layers.index(layer) for layer in layers], device=found.outputs.device)
        for kind, traces in found.traces.items():
            by_layer = torch.zeros(len(traces), len(self._layers), device=traces.device)
            self._sent[kind] = by_layer.index_add(1, index, traces)
        if kinds:
            self._sent["dimension"] = physics.effective_dimension(self._diagonal, self._options.damping)
            if self._wants(*_SUMMARY):
                by = [
                    [d for d, at in zip(self._diagonal, layers, strict=True) if at == layer] for layer in self._layers
                ]
                # One row for each layer, and the last for the whole model.
                self._sent["summary"] = torch.stack([physics.diagonal_summary(d) for d in (*by, self._diagonal)])

    def after_step(self) -> None:
        """How far the step went, by the diagonal of the metric and by the outputs themselves."""
        if self._outputs is None:
            return
        with torch.no_grad():
            if self._before and self._diagonal:
                parts = [
                    (f * (p - before).float().square()).sum()
                    for f, (p, before) in zip(self._diagonal, self._before, strict=True)
                ]
                self._sent["speed"] = torch.stack(parts).sum().sqrt()
            if self._wants(_OUTPUT_SPEED, _OUTPUT_LENGTH) and self._options.loss == "cross_entropy":
                with undisturbed(self._called), torch.autocast(self._outputs.device.type, enabled=False):
                    distance = physics.fisher_rao_distance(self._outputs, self._forward())
                self._sent["output"] = distance.square().mean().sqrt()
        self._outputs, self._diagonal, self._before = None, [], []

    def collect(self) -> tuple[Any, list[Tensor]]:
        """What was measured; then forget."""
        sent, self._sent = self._sent, {}
        self._outputs, self._diagonal, self._before = None, [], []
        return _Facts(tuple(sent), self._layers), list(sent.values())

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Model and batch are the same on every rank, so that rank zero measures alone."""
        found: dict[str, Array] = dict(zip(label.sent, arrays, strict=True))
        return found

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """What rank zero has sent."""
        layers = tuple(dict.fromkeys(layer_of(n) for n, p in self._called.named_parameters() if p.requires_grad))
        return _Facts(tuple(sums), layers), list(sums.values())

    # ------------------------------------------------------------------------------------------------ on the host
    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Traces with the errors of their draws, and lengths added up."""
        facts: _Facts = label
        sent = dict(zip(facts.sent, arrays, strict=True))
        values: dict[str, float] = {}
        errors: dict[str, float] = {}
        for kind, key in (("mc", _MC), ("ggn", _GGN)):
            if kind in sent:
                draws = sent[kind].sum(1)
                values[key] = float(draws.mean())
                spread = float(draws.std(ddof=1))
                # A model that is sure draws the same labels each time: of the rare ones nothing is known.
                if spread > 0:
                    errors[key] = spread / math.sqrt(len(draws))
        if "dimension" in sent:
            values[_DIMENSION] = float(sent["dimension"])
        maps = []
        if "summary" in sent:
            for key, column in zip(_SUMMARY, sent["summary"].T, strict=True):
                values[key] = float(column[-1])
                maps += [Map(key, column[:-1, None], facts.layers)] if self._wants(key) else []
        if "top" in sent:
            values[_TOP] = float(physics.largest_eigenvalue(torch.from_numpy(np.array(sent["top"]))))
        passed = 1 if self._lengths.last is None else max(1, step - self._lengths.last)
        self._lengths.last = step
        for kind, speed, length in (("speed", _SPEED, _LENGTH), ("output", _OUTPUT_SPEED, _OUTPUT_LENGTH)):
            if kind in sent:
                values[speed] = float(sent[kind])
                if math.isfinite(values[speed]):
                    # The steps since the last measurement were not looked at; each counts as long as this one.
                    self._lengths.total[length] = self._lengths.total.get(length, 0.0) + passed * values[speed]
                values[length] = self._lengths.total.get(length, math.nan)
        measured = Measured(maps=maps)
        if "mc" in sent:
            traces = sent["mc"].mean(0)[:, None]
            shares = traces / traces.sum() if traces.sum() > 0 else np.full_like(traces, np.nan)
            values[_SHARE] = float(shares.max())
            if self._wants(_SHARE):
                measured.maps += [Map(_MC, traces, facts.layers), Map(_SHARE, shares, facts.layers)]
        why = "no_gradient" if not sent else "non_finite"
        for key in self._options.quantities:
            reason = "unsupported_loss" if key in _OF_SOFTMAX and self._options.loss == "squared_error" else why
            value = values.get(key, math.nan)
            measured.readings.append(number(step, key, value, reason=reason, error=errors.get(key)))
        return measured
