"""Readings, frames, events and pictures in the form that TensorBoard stores.

What is written here is read by ``tensorboard_plugin`` and by stock dashboards; the names of the two data streams and
the JSON in their metadata are a file format, and stay as they are.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_DOUBLE, DT_HALF, DT_STRING

from thermo_monitor.quantities import REGISTRY
from thermo_monitor.records import SCHEMA
from thermo_monitor.sinks.heatmap import heat_map

EVENTS = "thermo_monitor"  # plugin name of event data
HEADS = "thermo_monitor_heads"  # plugin name of frames: another name has another cap in the loader
SERIES = "thermo_monitor_series"  # plugin name of curves with all their points, for the same reason
_HALF_MAX = float(np.finfo(np.float16).max)


def describe(quantity: str) -> str:
    """One line for the tooltip of a chart: meaning and unit, empty for a quantity that is not in the registry."""
    known = REGISTRY.get(quantity)
    return "" if known is None else f"{known.name}: {known.meaning} (unit: {known.unit})"


def is_log(quantity: str) -> bool:
    """Whether frames hold the decimal logarithm: a float16 ends at 65504, a norm or a noise scale does not."""
    return quantity in REGISTRY and REGISTRY[quantity].scale == "log"


def stored(quantity: str, values: NDArray[np.floating]) -> NDArray[np.float16]:
    """Values [L, H] as they are stored: float16, the decimal logarithm where the scale is ``log``.

    NaN stays NaN, and so becomes what has no logarithm; larger numbers than a float16 holds become its largest one.
    """
    grid = np.asarray(values, np.float64)
    grid = grid[:, None] if grid.ndim == 1 else grid
    if is_log(quantity):
        with np.errstate(all="ignore"):
            grid = np.where(grid > 0, np.log10(grid), np.nan)
    return np.minimum(np.maximum(grid, -_HALF_MAX), _HALF_MAX).astype(np.float16)  # as np.clip, in half the time


def heads_metadata(quantity: str, layers: Sequence[str]) -> SummaryMetadata:
    """Metadata of the frames of one quantity; TensorBoard keeps those of the first frame for ever."""
    known, limits = REGISTRY.get(quantity), None
    if known is not None and math.isfinite(known.low) and math.isfinite(known.high) and not is_log(quantity):
        limits = [known.low, known.high]
    content = {
        "schema": SCHEMA,
        "quantity": quantity,
        "unit": "" if known is None else known.unit,
        "scale": "log10" if is_log(quantity) else "linear",
        "layers": list(layers),
        "range": limits,
    }
    return _metadata(HEADS, json.dumps(content).encode(), describe(quantity))


def events_metadata() -> SummaryMetadata:
    """Metadata of the vector of events."""
    return _metadata(
        EVENTS, json.dumps({"schema": SCHEMA}).encode(), "events that were found, as JSON; the last ones again"
    )


def text_metadata() -> SummaryMetadata:
    """Metadata of a markdown text."""
    return _metadata("text", b"", "events that were found, newest first")


def scalar(tag: str, value: float, description: str = "") -> Summary.Value:
    """One number; the description only has to come with the first one of a tag."""
    metadata = _described("scalars", description) if description else None
    return Summary.Value(tag=tag, simple_value=value, metadata=metadata)


def grid(tag: str, values: NDArray[np.float16], metadata: SummaryMetadata | None) -> Summary.Value:
    """A grid of float16 as bytes: filling the list of a protobuf takes longer than all the rest."""
    tensor = TensorProto(
        dtype=DT_HALF, tensor_shape=_shape(values.shape), tensor_content=values.astype("<f2").tobytes()
    )
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def series(tag: str, points: NDArray[np.float64], quantity: str) -> Summary.Value:
    """Points [k, 3] of a curve: step, wall time, value."""
    content = points.astype("<f8").tobytes()
    tensor = TensorProto(dtype=DT_DOUBLE, tensor_shape=_shape(points.shape), tensor_content=content)
    about = json.dumps({"schema": SCHEMA, "quantity": quantity}).encode()
    return Summary.Value(tag=tag, tensor=tensor, metadata=_metadata(SERIES, about, "every point of the curve"))


def strings(tag: str, texts: Sequence[str], metadata: SummaryMetadata) -> Summary.Value:
    """A vector of texts."""
    data = [t.encode("utf-8", "replace") for t in texts]
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=_shape((len(data),)), string_val=data)
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def picture(tag: str, quantity: str, values: NDArray[np.float16], limits: tuple[float, float]) -> Summary.Value:
    """A heat map of one frame, for those who have no tab of ours."""
    png, width, height = heat_map(values.astype(np.float64), *limits)
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    scale = " (decimal logarithm)" if is_log(quantity) else ""
    words = (
        f"{describe(quantity)}{scale}. Row: layer, column: head; dark is low, yellow is high, striped was not measured."
    )
    return Summary.Value(tag=tag, image=image, metadata=_described("images", words))


# Charts of the stock "Custom Scalars" dashboard: title, and the quantities that are drawn together in it.
_CHARTS = (
    ("loss", ("loss/train",)),
    ("specific heat and entropy of attention", ("attn/specific_heat_norm", "attn/entropy_fraction")),
    ("temperature of attention", ("attn/reduced_temperature", "attn/freezing_ratio")),
    ("output", ("out/predictive_entropy", "out/calibration_gap")),
    ("representations", ("repr/representation_entropy", "repr/spectral_entropy")),
    ("gradient coherence", ("fisher/gradient_coherence",)),
    ("Fisher information", ("fisher/trace.*",)),
    ("norms", ("opt/gradient_norm", "opt/update_norm", "opt/weight_norm")),
    ("detection: transitions so far, and progress to the next alarm", ("detect/regime", "detect/score")),
)


LAYOUT = "custom_scalars__config__"  # the tag that TensorBoard looks for


def layout(namespace: str) -> Summary.Value:
    """Charts that belong together, for TensorBoard's own dashboard of custom scalars."""
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

    charts = [
        Chart(title=title, multiline=MultilineChartContent(tag=[f"^{re.escape(namespace)}/{key}$" for key in keys]))
        for title, keys in _CHARTS
    ]
    content = Layout(category=[Category(title=namespace, chart=charts)]).SerializeToString()
    tensor = TensorProto(dtype=DT_STRING, string_val=[content])
    metadata = _metadata("custom_scalars", b"", "")
    return Summary.Value(tag=LAYOUT, tensor=tensor, metadata=metadata)


def _described(plugin: str, description: str) -> SummaryMetadata:
    # Metadata that name no plugin make older readers complain about each tag.
    return SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin), summary_description=description)


def _metadata(plugin: str, content: bytes, description: str) -> SummaryMetadata:
    data = SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return SummaryMetadata(plugin_data=data, data_class=DATA_CLASS_TENSOR, summary_description=description)


@functools.lru_cache(maxsize=64)  # those of the frames of a model are few, and a message that holds one copies it
def _shape(shape: tuple[int, ...]) -> Any:
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=n) for n in shape])
