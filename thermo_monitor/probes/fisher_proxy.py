"""Fisher information for free: what Adam's moments, which are there anyway, say about it."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from thermo_monitor.physics.adam import adam_fisher
from thermo_monitor.physics.precision import squared_norms, working
from thermo_monitor.probes.base import Array, Listener, Map, Measured, Surroundings, check_quantities, number
from thermo_monitor.probes.batch import Batch, BatchSize, digest, of_digest
from thermo_monitor.probes.layers import layer_of
from thermo_monitor.probes.shards import local, placements, share

_TRACE, _SHARE = "fisher/trace_adam_proxy", "fisher/share_adam_proxy"
_POSSIBLE = (_TRACE, _SHARE)
_SMALL = 2**16  # elements below which putting tensors together costs less than reducing each of them


@dataclass(frozen=True, slots=True)
class FisherProxyProbe:
    """Trace of the empirical Fisher information from the moments of Adam, AdamW, NAdam or RAdam.

    One pass over the optimizer's own state. An example is what one row of the attention's batch is (a sequence), or a
    row of the cross entropy where there is no attention; the loss is the mean over them.

    Attributes:
        examples: examples that one step averages over, on all ranks and in all micro-batches. None: counted from what
            is heard, times the number of ranks.
        reduction: ``mean``, or ``sum`` where the loss is a sum over the examples.
        quantities: keys to measure; the share of each layer makes the trace a reading per layer as well.
    """

    examples: int | None = None
    reduction: Literal["mean", "sum"] = "mean"
    quantities: tuple[str, ...] = (_TRACE,)

    def __post_init__(self) -> None:
        check_quantities(self.quantities, _POSSIBLE, "FisherProxyProbe")
        if self.examples is not None and self.examples < 1:
            raise ValueError(f"examples={self.examples}: give the number of examples of a step, or None")
        if self.reduction not in ("mean", "sum"):
            raise ValueError(f"reduction={self.reduction!r}: give 'mean' or 'sum'")

    @property
    def fast(self) -> bool:
        """One pass over two tensors for each parameter: cheap, but the curve is smooth by construction."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run."""
        return _FisherProxyListener(self, run)


class _Group(NamedTuple):
    """Parameters that share a layer and the constants of the average; their moments as vectors."""

    layer: str
    betas: tuple[float, float]
    step: Any  # as the optimizer counts it
    first: list[Tensor]
    second: list[Tensor]
    share: float = 1.0  # what their sums count in those over all ranks


class _FisherProxyListener(Listener):
    reads = "shards"

    def __init__(self, options: FisherProxyProbe, run: Surroundings) -> None:
        self._options = options
        self._optimizer = run.optimizer
        self._by_layer = _SHARE in options.quantities
        names = run.model.named_parameters()
        self._layers = {id(p): layer_of(name) for name, p in names} if self._by_layer else {}
        self._rows = tuple(dict.fromkeys(self._layers.values()))
        self._batch = BatchSize(run.hub, options.examples)
        self._groups: list[_Group] = []
        self._known: list[Any] = []  # the states that the groups were made of
        self._why = "no_optimizer"
        self._label: list[tuple[str, tuple[float, float], float | None]] = []
        self._sums: list[Tensor] = []
        self._before: Batch | None = None
        self._rank, self._ranks = run.rank, run.ranks

    def on_loss(self, loss: Tensor) -> None:
        """A micro-batch ends."""
        self._batch.end_of_micro_batch()

    def after_step(self) -> None:
        """Two sums over the state of each group: of v, and of the squares of m; and the step, where it is a tensor."""
        if self._optimizer is not None and self._changed(self._optimizer):
            self._why = unsupported(self._optimizer)
            self._groups = [] if self._why else list(self._grouped(self._optimizer))
        self._label, self._sums = [], []
        for group in self._groups:
            step = _known_on_host(group.step)
            self._label.append((group.layer, group.betas, step))
            sums = [_sum(group.second), _sum_of_squares(group.first)]
            self._sums += sums if group.share == 1 else [group.share * x for x in sums]
            if step is None:
                self._sums.append(group.step.detach().clone())

    def _changed(self, optimizer: Optimizer) -> bool:
        """Whether the state is made of other tensors than at the last measurement: a parameter thawed, a resume."""
        states = [state.get("exp_avg") for state in optimizer.state.values()]
        same = len(states) == len(self._known) > 0 and all(map(operator.is_, states, self._known))
        self._known = states
        return not same

    def _grouped(self, optimizer: Optimizer) -> Iterable[_Group]:
        found: dict[Any, _Group] = {}
        for options in optimizer.param_groups:
            betas = options["betas"][0], options["betas"][1]
            for parameter in options["params"]:
                state = optimizer.state.get(parameter)
                if not state:
                    continue  # frozen, or without a gradient so far
                first = state["exp_avg"]
                layer, counts = self._layers.get(id(parameter), ""), share(first, self._ranks)
                # The steps of a group are counted once. One that misses single steps later is not told apart.
                key = layer, betas, _known_on_host(state["step"]), first.device, first.dtype, counts
                group = found.setdefault(key, _Group(layer, betas, state["step"], [], [], counts))
                group.first.append(_flat(first))
                group.second.append(_flat(state["exp_avg_sq"]))
        return found.values()

    def collect(self) -> tuple[Any, list[Tensor]]:
        """The sums, and what they have to be divided by."""
        examples, labels = self._batch.collect()
        sums, self._sums = self._sums, []
        return (self._why, self._label, examples, len(sums)), sums + labels

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Bias-corrected on the host, in double precision."""
        why, groups, examples, count = label
        batch = examples if isinstance(examples, Batch) else Batch(examples, tuple(arrays[count:]))
        examples = batch.examples
        before, self._before = self._before, batch
        if not why and not groups:
            why = "no_gradient"
        if not why and not examples:
            why = "unknown_batch"
        if not why and (before is None or batch.same_as(before)):
            why = "too_early" if before is None else "full_batch"
        if why:
            return Measured([number(step, key, math.nan, reason=why) for key in self._options.quantities])
        layers = dict.fromkeys(self._rows, 0.0)
        numbers, total, reason = iter(arrays), 0.0, "non_finite"
        for layer, (beta1, beta2), known in groups:
            squares, first = float(next(numbers)), float(next(numbers))
            seen = float(next(numbers)) if known is None else known
            fisher = adam_fisher(squares, first, step=seen, beta1=beta1, beta2=beta2, examples=examples)
            # Of a sum, the gradient is examples times that of the mean.
            trace = fisher.trace / (examples**2 if self._options.reduction == "sum" else 1)
            reason = "too_early" if seen < 2 else reason
            total += trace
            if layer in layers:
                layers[layer] += trace
        values = {_TRACE: total, _SHARE: max(layers.values(), default=math.nan) / total if total > 0 else math.nan}
        measured = Measured([number(step, k, values[k], reason=reason) for k in self._options.quantities])
        if self._by_layer:
            traces = np.array(list(layers.values()))[:, None]
            shares = traces / total if total > 0 else np.full_like(traces, np.nan)
            maps = {_TRACE: Map(_TRACE, traces, self._rows), _SHARE: Map(_SHARE, shares, self._rows)}
            measured.maps += [maps[key] for key in self._options.quantities]
        return measured

    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """The sums of every group, the size of the batch and a number for what it holds."""
        _, groups, examples, count = label
        numbers = iter(arrays)
        found = {"examples": np.asarray(float(examples)), "labels": digest(arrays[count:], self._rank)}
        for k, (_, _, known) in enumerate(groups):
            found[f"group {k}"] = np.array([float(next(numbers)), float(next(numbers))])
            if known is None:  # the same on all ranks
                found[f"step {k}"] = np.array([float(next(numbers)), 1.0])
        return found

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """The same sums, if no rank's part is missing."""
        why, groups, _, _ = label
        if present < self._ranks:
            return None
        examples = self._options.examples or int(sums["examples"])
        arrays: list[Array] = []
        for k, (_, _, known) in enumerate(groups):
            arrays += list(sums[f"group {k}"])
            if known is None:
                total, ranks = sums[f"step {k}"]
                arrays.append(total / ranks)
        return (why, groups, of_digest(examples, sums["labels"]), len(arrays)), arrays


def unsupported(optimizer: Optimizer | None) -> str:
    """Why the state of an optimizer holds no moments of the gradient of the loss; the empty string if it does."""
    if optimizer is None:
        return "no_optimizer"
    for group in optimizer.param_groups:
        betas = group.get("betas")
        if betas is None or any(isinstance(b, Tensor) for b in betas) or not betas[0] > 0:
            return "unsupported_optimizer"
        decoupled = group.get("decoupled_weight_decay", type(optimizer).__name__ == "AdamW")
        if group.get("weight_decay", 0) and not decoupled:
            return "l2_in_gradient"
    states = [state for state in optimizer.state.values() if state]
    if not states:
        return "no_gradient"
    for state in states:
        moments = state.get("exp_avg"), state.get("exp_avg_sq")
        if "step" not in state or any(type(m) is not Tensor and not placements(m) for m in moments):  # quantised, say
            return "unsupported_optimizer"
    return ""


def _known_on_host(step: Any) -> float | None:
    if not isinstance(step, Tensor):
        return float(step)
    return float(step.numpy()) if step.is_cpu else None


def _flat(x: Tensor) -> Tensor:
    """A view as a vector, or the tensor itself where only a copy could be one, which would not follow the optimizer."""
    x = local(x)
    return x.view(-1) if x.is_contiguous() else x


def _pieces(vectors: Sequence[Tensor]) -> list[Tensor]:
    """The same elements in few vectors: small ones are put together."""
    vectors = [x if x.dim() == 1 else x.reshape(-1) for x in vectors]
    small = [x for x in vectors if x.numel() <= _SMALL]
    large = [x for x in vectors if x.numel() > _SMALL]
    return ([torch.cat(small)] if small else []) + large


def _sum(vectors: Sequence[Tensor]) -> Tensor:
    sums = [working(piece).sum() for piece in _pieces(vectors)]
    return sums[0] if len(sums) == 1 else torch.stack(sums).sum()


def _sum_of_squares(vectors: Sequence[Tensor]) -> Tensor:
    pieces = [working(piece) for piece in _pieces(vectors)]
    if len(pieces) == 1 and pieces[0].numel() <= _SMALL:
        return torch.dot(pieces[0], pieces[0])
    return torch.stack(squared_norms(pieces)).sum()
