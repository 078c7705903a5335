"""Fisher information of the model's own predictions, on a fixed batch beside the training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from thermo_monitor.physics import fisher as physics
from thermo_monitor.probes.base import Array, Listener, Map, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.fixed import Forward, plain_forward, to_device, undisturbed
from thermo_monitor.probes.layers import layer_of

_MC, _GGN, _SHARE = "fisher/trace_mc", "fisher/trace_ggn", "fisher/share_mc"
_DIMENSION, _PARTICIPATION = "fisher/effective_dimension", "fisher/diag_participation"
_TOP = "fisher/top_eigenvalue"
_SPEED, _LENGTH = "fisher/speed", "fisher/length"
_OUTPUT_SPEED, _OUTPUT_LENGTH = "fisher/output_speed", "fisher/output_length"
_POSSIBLE = (
    _MC, _GGN, _SHARE, _DIMENSION, _PARTICIPATION, _SPEED, _LENGTH, _OUTPUT_SPEED, _OUTPUT_LENGTH, _TOP,
)  # fmt: skip
_DIAGONAL = (_DIMENSION, _PARTICIPATION, _SPEED, _LENGTH)
_OF_SOFTMAX = (_MC, _SHARE, _OUTPUT_SPEED, _OUTPUT_LENGTH)


@dataclass(frozen=True, slots=True)
class FisherProbe:
    """Monte-Carlo Fisher information, GGN, effective dimension, top eigenvalue, and the speed of a run in this metric.

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
            self._backward_passes(trained, parameters)
            if self._wants(_TOP):
                self._sent["top"] = self._lanczos(parameters)
        if self._wants(_SPEED, _LENGTH):
            self._before = [(p, p.detach().clone()) for p in parameters]

    def _forward(self) -> Tensor:
        forward = self._options.forward or plain_forward
        outputs = forward(self._called, self._inputs)
        return outputs.reshape(-1, outputs.shape[-1])

    def _backward_passes(self, trained: Sequence[tuple[str, Tensor]], parameters: Sequence[Tensor]) -> None:
        softmax = self._options.loss == "cross_entropy"
        with torch.enable_grad():
            outputs = self._forward()
        self._outputs = outputs.detach()
        rows = len(outputs)
        self._layers = tuple(dict.fromkeys(layer_of(name) for name, _ in trained))
        place = {layer: k for k, layer in enumerate(self._layers)}
        index = torch.tensor([place[layer_of(name)] for name, _ in trained])
        diagonal = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
        # Labels are drawn where there are any; what needs only a diagonal is content with either.
        kinds = ["mc"] if softmax and self._wants(*_DIAGONAL, _MC, _SHARE) else []
        if self._wants(_GGN) or (not softmax and self._wants(*_DIAGONAL)):
            kinds.append("ggn")
        for kind in kinds:
            traces = []
            for _ in range(self._options.draws):
                if kind == "mc":
                    residual = physics.sampled_residual(self._outputs, self._generator)
                else:
                    residual = physics.ggn_residual(self._outputs, self._options.loss, self._generator)
                gradients = torch.autograd.grad(
                    outputs, parameters, (residual / rows).to(outputs.dtype), retain_graph=True, allow_unused=True
                )
                filled = [
                    torch.zeros_like(d) if g is None else g.float() for g, d in zip(gradients, diagonal, strict=True)
                ]
                squares = physics.one_backward_diagonal(filled, rows)
                traces.append(torch.stack([s.sum() for s in squares]))
                if kind == kinds[0]:
                    torch._foreach_add_(diagonal, squares, alpha=1 / self._options.draws)
            by_layer = torch.zeros(self._options.draws, len(place), device=traces[0].device)
            self._sent[kind] = by_layer.index_add(1, index.to(by_layer.device), torch.stack(traces))
        if kinds:
            self._sent["dimension"] = physics.effective_dimension(diagonal, self._options.damping)
            self._sent["participation"] = physics.participation(diagonal)
            self._diagonal = diagonal

    def _lanczos(self, parameters: Sequence[Tensor]) -> Tensor:
        """The GGN as a product with vectors: down by a backward pass of the backward pass, and up by another."""
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            outputs = self._forward()
            dual = torch.zeros_like(outputs, requires_grad=True)
            pulled = torch.autograd.grad(outputs, parameters, dual, create_graph=True, materialize_grads=True)
            rows = len(outputs)

            def product(vectors: Sequence[Tensor]) -> Sequence[Tensor]:
                (pushed,) = torch.autograd.grad(pulled, dual, list(vectors), retain_graph=True)
                if self._options.loss == "cross_entropy":
                    bent = physics.softmax_metric(outputs.detach(), pushed)
                else:
                    bent = 2 * pushed
                return torch.autograd.grad(outputs, parameters, bent / rows, retain_graph=True, materialize_grads=True)

            start = [torch.empty_like(p).normal_(generator=self._generator) for p in parameters]
            return physics.lanczos(product, [v.detach() for v in start], self._options.lanczos)

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
                errors[key] = float(draws.std(ddof=1)) / math.sqrt(len(draws))
        for kind, key in (("dimension", _DIMENSION), ("participation", _PARTICIPATION)):
            if kind in sent:
                values[key] = float(sent[kind])
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
        measured = Measured()
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
