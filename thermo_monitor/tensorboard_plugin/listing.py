"""What a log holds: runs, tags, and a token that changes when any of it does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# The names that sinks/summaries.py writes.
EVENTS, HEADS, SERIES = "thermo_monitor", "thermo_monitor_heads", "thermo_monitor_series"
PREFIX = "thermo/"  # of the tags of readings


@dataclass(frozen=True, slots=True)
class Log:
    """A data provider of TensorBoard as one request sees it."""

    provider: Any
    context: Any
    experiment: str

    def listed(self, what: str, plugin: str) -> Mapping[str, Mapping[str, Any]]:
        """Time series of a plugin by run and tag; ``what`` is ``scalars`` or ``tensors``."""
        call = getattr(self.provider, f"list_{what}")
        return call(self.context, experiment_id=self.experiment, plugin_name=plugin) or {}

    def read(
        self, what: str, plugin: str, runs: Iterable[str] | None, tags: Iterable[str] | None, most: int
    ) -> Mapping[str, Mapping[str, Any]]:
        """Data by run and tag, at most ``most`` of a tag, the newest always among them."""
        from tensorboard.data.provider import RunTagFilter

        chosen = RunTagFilter(runs=None if runs is None else list(runs), tags=None if tags is None else list(tags))
        call = getattr(self.provider, f"read_{what}")
        return (
            call(
                self.context,
                experiment_id=self.experiment,
                plugin_name=plugin,
                downsample=most,
                run_tag_filter=chosen,
            )
            or {}
        )


@dataclass(slots=True)
class Found:
    """One run.

    Attributes:
        scalars: tags of numbers.
        heads: metadata of frames by tag.
        monitored: whether it has readings or events of the monitor.
        step: largest step.
        wall: newest wall time.
        newer: whether something was written in a later format than this reader knows.
        mark: what the token is made of.
    """

    scalars: list[str] = field(default_factory=list)
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    monitored: bool = False
    step: int = -1
    wall: float = 0.0
    newer: bool = False
    mark: list[Any] = field(default_factory=list)

    def _saw(self, tag: str, series: Any) -> None:
        self.step = max(self.step, int(series.max_step))
        self.wall = max(self.wall, float(series.max_wall_time))
        self.mark.append((tag, int(series.max_step), float(series.max_wall_time)))


SCHEMA = 1


def find(log: Log) -> dict[str, Found]:
    """Every run that has numbers or data of ours."""
    runs: dict[str, Found] = {}
    for run, tags in log.listed("scalars", "scalars").items():
        found = runs.setdefault(run, Found())
        for tag, series in tags.items():
            found.scalars.append(tag)
            found.monitored |= tag.startswith(PREFIX)
            found._saw(tag, series)
        found.scalars.sort()
    for plugin in (EVENTS, HEADS):
        for run, tags in log.listed("tensors", plugin).items():
            found = runs.setdefault(run, Found())
            found.monitored = True
            for tag, series in tags.items():
                content = _metadata(series.plugin_content)
                found.newer |= not _known(content)
                if plugin == HEADS:
                    found.heads[tag] = content
                found._saw(tag, series)
    return dict(sorted(runs.items()))


def token(runs: Mapping[str, Found]) -> str:
    """A short text that is the same as long as nothing was added."""
    marks = [[run, sorted(found.mark)] for run, found in runs.items()]
    return hashlib.blake2b(json.dumps(marks).encode(), digest_size=12).hexdigest()


def state(runs: Mapping[str, Found]) -> dict[str, Any]:
    """What the page needs to know first; tags are written once and then named by number."""
    tags = sorted({tag for found in runs.values() for tag in found.scalars})
    number = {tag: n for n, tag in enumerate(tags)}
    return {
        "tags": tags,
        "runs": [
            {
                "name": run,
                "tags": [number[tag] for tag in found.scalars],
                "heads": [{**_heads(content), "tag": tag} for tag, content in sorted(found.heads.items())],
                "monitored": found.monitored,
                "newer": found.newer,
                "step": found.step,
                "wall": found.wall,
            }
            for run, found in runs.items()
        ],
    }


def _heads(content: Mapping[str, Any]) -> dict[str, Any]:
    layers = content.get("layers")
    return {
        "quantity": str(content.get("quantity", "")),
        "unit": str(content.get("unit", "")),
        "scale": "log10" if content.get("scale") == "log10" else "linear",
        "layers": [str(name) for name in layers] if isinstance(layers, list) else [],
    }


def _metadata(content: bytes) -> dict[str, Any]:
    try:
        data = json.loads(content) if content else {}
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _known(content: Mapping[str, Any]) -> bool:
    schema = content.get("schema", SCHEMA)
    return isinstance(schema, int) and schema <= SCHEMA
