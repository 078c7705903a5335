"""How attention moves, on a fixed batch: with training, with depth, with the length of the context, with a rotation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from thermo_monitor import physics
from thermo_monitor.probes.base import Array, Listener, Measured, Surroundings, check_quantities
from thermo_monitor.probes.calls import AttentionCall
from thermo_monitor.probes.geometry_readings import ALL_GEOMETRY, DEPTH, KAPPA, OF_ROWS, ROTARY, Facts, readings
from thermo_monitor.probes.paths import Path
from thermo_monitor.probes.rotary import Rotary, rotary_of

_FAR = 997  # positions that the common rotation of the check turns by


@dataclass(frozen=True, slots=True)
class GeometryProbe:
    """Information geometry and first law of attention, between readings of the monitor's ``probe_batch``.

    Some rows of some examples of the batch are kept from one reading to the next, on the device. The work of new
    inputs takes the second half of the batch as the new input of the first half, example by example, so it needs an
    even number of examples of one length. Lengths and costs of the path start anew when a run is resumed.

    Attributes:
        rows: query rows of each example.
        sequences: examples of the batch, evenly spaced.
        kept: most logits that are kept of a layer; fewer examples, then fewer rows, are read where this is not enough.
        layout: of the rotary planes, ``half`` or ``interleaved``; empty: asked of a transformers model.
        angles: by which each rotary plane turns from one position to the next; empty: asked of the model.
        quantities: keys to measure.
    """

    rows: int = 32
    sequences: int = 8
    kept: int = 2**21
    layout: Literal["", "half", "interleaved"] = ""
    angles: tuple[float, ...] = ()
    quantities: tuple[str, ...] = (*OF_ROWS, DEPTH)

    def __post_init__(self) -> None:
        check_quantities(self.quantities, ALL_GEOMETRY, "GeometryProbe")
        for name in ("rows", "sequences", "kept"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")
        if self.layout not in ("", "half", "interleaved"):
            raise ValueError(f"layout={self.layout!r}: give 'half' or 'interleaved', or leave it out")
        if bool(self.layout) != bool(self.angles):
            raise ValueError("give both layout= and angles= of the rotary planes, or neither")

    @property
    def fast(self) -> bool:
        """A forward pass, so no."""
        return False

    def listen(self, run: Surroundings) -> Listener:
        """Attach to a run: nothing is installed on the model."""
        if run.fixed is None:
            raise ValueError("GeometryProbe compares the same inputs over time: give the monitor a probe_batch=")
        return _GeometryListener(self, run)


class _GeometryListener(Listener):
    def __init__(self, options: GeometryProbe, run: Surroundings) -> None:
        self._options = options
        self._paths: dict[str, Path] = {}
        self._moved: dict[str, Tensor] = {}
        self._depth: dict[str, Tensor] = {}
        self._above: dict[str, tuple[str, Tensor, Tensor | None, Tensor | None]] = {}  # by kind of layer
        self._octaves: Tensor | None = None
        self._turned: dict[str, list[Tensor]] = {}
        self._rank = run.rank
        self._layers: list[str] = []  # in the order of the pass; grows, never reordered
        self._number = 0
        self._steps: dict[int, int] = {}
        self._rotary: Rotary | None = None
        if self._wants(*ROTARY):
            if options.layout:
                self._rotary = Rotary(options.layout, torch.tensor(options.angles))
            else:
                self._rotary = rotary_of(run.model)
        assert run.fixed is not None
        run.fixed.on_attention.append(self._hear)

    def _wants(self, *keys: str) -> bool:
        return any(key in self._options.quantities for key in keys)

    # ---------------------------------------------------------------------------------------------- on the device
    def _hear(self, call: AttentionCall) -> None:
        batch, heads, queries, _ = call.query.shape
        batch, keys = max(batch, call.key.shape[0]), call.key.shape[2]
        if not (batch and heads and queries and keys):
            return
        rows, part = self._sample(batch, heads, queries, keys)
        index = rows.index(call.query.device)
        z, mask = call.logits(index, part)
        mask = None if mask is None else mask.expand(z.shape)
        valid = call.valid(rows, part)
        if call.name not in self._layers:
            self._layers.append(call.name)
        if self._wants(*OF_ROWS):
            path = self._paths.get(call.name)
            if path is not None and path.fits(z, mask):
                self._moved[call.name] = path.move(z, mask, valid)
            else:
                self._paths[call.name] = Path(z, mask)
        if self._wants(DEPTH):
            self._down(call.name, physics.weights(z, mask).mean(1), mask, valid)
        if self._wants(*KAPPA):
            self._count(physics.row_statistics(z, mask), valid)
        if self._wants(*ROTARY) and self._rotary is not None and call.score is None:
            self._turn(call, physics.weights(z, mask), mask, index, part, valid)

    def _sample(self, batch: int, heads: int, queries: int, keys: int) -> tuple[physics.EvenRows, slice]:
        """Rows and examples, so many that what is kept of them has room."""
        room = max(1, self._options.kept // (heads * keys))  # rows of examples
        count = min(self._options.rows, queries)
        examples = min(self._options.sequences, batch, max(2, room // count))
        every = -(-batch // examples)
        count = max(1, min(count, room // examples))
        return physics.EvenRows(queries, count), slice((every - 1) // 2, batch, every)

    def _down(self, name: str, p: Tensor, mask: Tensor | None, valid: Tensor | None) -> None:
        """From the layer above of the same kind to this one: names that differ in their numbers only."""
        kind = re.sub(r"\d+", "*", name.partition("#")[0])
        # Masks and validity of heads are the same in all layers that are compared, or the layers do not count.
        mask = None if mask is None else mask.all(1)
        valid = None if valid is None else valid.expand(len(p), -1, p.shape[1]).all(1)
        above, self._above[kind] = self._above.get(kind), (name, p, mask, valid)
        if above is None or above[1].shape != p.shape or (above[2] is None) != (mask is None):
            return
        move = physics.kinetic(physics.fisher_rao_distance(above[1], p, mask))
        keep = ~torch.zeros_like(move, dtype=torch.bool)
        for one in (valid, above[3]):
            keep = keep if one is None else keep & one
        if mask is not None and above[2] is not None:
            keep = keep & (mask.sum(-1) >= 2) & (mask == above[2]).all(-1)
        self._depth[above[0]] = torch.stack([keep.sum().to(p.dtype), torch.where(keep, move, 0.0).sum()])

    def _count(self, row: physics.RowStatistics, valid: Tensor | None) -> None:
        """Rows by the length of their context, all layers and heads together."""
        sums = [physics.octave_sums(candidate(row), row.n, valid) for candidate in physics.CANDIDATES.values()]
        table = torch.stack([torch.stack(tuple(one)) for one in sums])
        self._octaves = table if self._octaves is None else self._octaves + table

    def _turn(
        self, call: AttentionCall, p: Tensor, mask: Tensor | None, index: Tensor, part: slice, valid: Tensor | None
    ) -> None:
        assert self._rotary is not None
        rotary, width = self._rotary, 2 * len(self._rotary.theta)
        if width > call.query.shape[-1]:
            return
        theta = rotary.theta
        if theta.device != call.query.device:
            theta = theta.to(call.query.device)
            self._rotary = Rotary(rotary.layout, theta)
        batch = max(call.query.shape[0], call.key.shape[0])
        q, k = (x.detach().expand(batch, -1, -1, -1)[part] for x in (call.query, call.key))
        q = q.index_select(2, index)
        if call.sinks is not None:  # a state without a key: turning the query does not change it
            k = torch.cat([torch.zeros_like(k[:, :, :1]), k], 2)
        keep = torch.full_like(p[..., 0], p.shape[-1]) >= 2 if mask is None else mask.sum(-1) >= 2
        keep = keep if valid is None else keep & valid
        p = torch.where(keep.unsqueeze(-1), p, 0.0)
        masses, shifts, flat = [], [], []
        for i in range(len(q)):  # one example after the other: the products are taken in double precision
            one = slice(i, i + 1)
            mass = physics.rope_mass(p[one], q[one], k[one], scale=call.scale, layout=rotary.layout, rotary=width)
            shift = physics.rope_shift_response(
                p[one], q[one], k[one], theta, scale=call.scale, layout=rotary.layout, rotary=width
            )
            masses.append(torch.where(keep[one].unsqueeze(-1), mass, 0.0).sum((0, 2)))
            shifts.append(shift.sum((0, 2)))
            both = physics.working(q[one]), physics.working(k[one])
            flat.append(
                physics.rope_flat_residual(
                    *both, _FAR * theta, scale=call.scale, layout=rotary.layout, rotary=width
                ).amax()
            )
        count = keep.sum((0, 2)).to(p.dtype)
        self._turned[call.name] = [
            torch.stack(masses).sum(0) / count.unsqueeze(-1),
            torch.stack(shifts).sum(0) / count,
            torch.stack(flat).amax(),
        ]

    def collect(self) -> tuple[Any, list[Tensor]]:
        """What was heard in the pass; the logits that the next reading is compared with stay on the device."""
        moved, depth, turned, octaves = self._moved, self._depth, self._turned, self._octaves
        self._moved, self._depth, self._turned, self._octaves, self._above = {}, {}, {}, None, {}
        facts = Facts(self._number, tuple(moved), tuple(depth), tuple(turned), octaves is not None)
        self._number += 1
        counted = [] if octaves is None else [octaves]
        return facts, [*moved.values(), *depth.values(), *(x for three in turned.values() for x in three), *counted]

    # ------------------------------------------------------------------------------------------------ on the host
    def shares(self, label: Any, arrays: Sequence[Array]) -> Mapping[str, Array]:
        """Model and batch are the same on every rank: what rank zero has counts."""
        return {} if self._rank else {f"{k} of {len(arrays)}": array for k, array in enumerate(arrays)}

    def pooled(self, label: Any, sums: Mapping[str, Array], present: int) -> tuple[Any, Sequence[Array]] | None:
        """What rank zero has, by what every rank knows of the pass."""
        facts: Facts = label
        count = len(facts.moved) + len(facts.depth) + 3 * len(facts.rotary) + facts.counted
        names = [f"{k} of {count}" for k in range(count)]
        return (facts, [sums[name] for name in names]) if all(name in sums for name in names) else None

    def read(self, step: int, label: Any, arrays: Sequence[Array]) -> Measured:
        """Means over rows for each head, then over heads, then over layers."""
        facts: Facts = label
        before = self._steps.pop(facts.number - 1, None)
        self._steps = {facts.number: step}
        return readings(self._options.quantities, step, before, tuple(self._layers), facts, arrays)
