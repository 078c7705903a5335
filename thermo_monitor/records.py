"""The two records that leave the monitor: a number that was read, and a change that was found.

Both are frozen and travel as strict JSON in both directions (a NaN is ``null``, an infinity is a string), so that a log
file, a checkpoint and a TensorBoard tensor hold the same thing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

SCHEMA = 1

Kind = Literal["shift", "excursion", "variance", "drift", "collapse", "divergence"]
Direction = Literal["up", "down", "none"]
Level = Literal["info", "warning", "error"]
Phase = Literal["memorization", "generalization", "reorganization", "instability", "scheduled", "unexplained"]

KINDS: tuple[str, ...] = get_args(Kind)
PHASES: tuple[str, ...] = get_args(Phase)
LEVELS: tuple[str, ...] = get_args(Level)


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of one quantity at one optimizer step.

    Attributes:
        step: index of the optimizer step, the first one is 0.
        quantity: ``<family>/<key>`` of the registry, such as ``attn/specific_heat``.
        value: the number, in the unit that the registry gives; NaN where the quantity is not valid.
        layer: index of the layer, ``None`` for the whole model.
        head: index of the attention head, ``None`` for the whole layer.
        error: standard error of an estimate, ``None`` for a number that is exact up to rounding.
        reason: why the value is NaN, one of the reason codes of the registry.

    Example:
        >>> r = Reading(step=10, quantity="attn/specific_heat", value=float("nan"), reason="n_lt_2")
        >>> Reading.from_json(r.to_json()).reason
        'n_lt_2'
    """

    step: int
    quantity: str
    value: float
    layer: int | None = None
    head: int | None = None
    error: float | None = None
    reason: str | None = None

    def to_json(self) -> str:
        """One line of strict JSON; fields that are ``None`` are left out."""
        return _dump({"type": "reading", **{k: v for k, v in _shallow(self).items() if v is not None}})

    @classmethod
    def from_json(cls, text: str) -> Reading:
        """The record that :meth:`to_json` wrote; unknown fields are ignored."""
        return cls(**_known(cls, json.loads(text)))


@dataclass(frozen=True, slots=True)
class Event:
    """A change of the run that was found, dated and confirmed.

    Attributes:
        kind: ``shift`` (sustained), ``excursion`` (a spike that came back), ``variance``, ``drift`` (a trend whose end
            is not in sight), ``collapse`` (of attention entropy or representation), ``divergence`` (non-finite or
            runaway loss).
        step: optimizer step at which the change was confirmed.
        onset: first step of the new regime.
        direction: ``up``, ``down`` or ``none``.
        quantity: the quantity that carries most of the evidence.
        evidence: natural logarithm of the detection statistic; the alarm threshold is in ``details``.
        phase: what the change looks like when the readings are taken together.
        message: one sentence for a person.
        onset_low: first step that the onset may be at.
        onset_high: last step that the onset may be at.
        id: ``<run>:<number>``, unique in a run.
        level: ``info``, ``warning`` or ``error``.
        wall: seconds since the epoch at the confirmation.
        details: further facts, plain JSON: levels before and after, minimum effect, threshold, shares of the evidence.
    """

    kind: Kind
    step: int
    onset: int
    direction: Direction = "none"
    quantity: str = ""
    evidence: float = math.nan
    phase: Phase = "unexplained"
    message: str = ""
    onset_low: int | None = None
    onset_high: int | None = None
    id: str = ""
    level: Level = "warning"
    wall: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of strict JSON."""
        return _dump({"type": "event", "schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Event:
        """The record that :meth:`to_json` wrote; unknown fields are ignored."""
        return cls(**_known(cls, json.loads(text)))


def _shallow(record: Reading) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


def _known(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    known = {k: _float(v) for k, v in data.items() if k in names}
    for name in ("value", "evidence"):  # a float that is null was a NaN
        if name in names and known.get(name, 0.0) is None:
            known[name] = math.nan
    return known


def _float(value: Any) -> Any:
    if isinstance(value, str) and value in ("Infinity", "-Infinity"):
        return float(value)
    return value


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return value


def _dump(data: Mapping[str, Any]) -> str:
    return json.dumps(_strict(data), allow_nan=False, separators=(",", ":"))
