"""Which way the statistics of rows are computed, chosen for each call: all ways have one signature."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any, Literal

from torch import Tensor

from thermo_monitor.physics.attention import Rows
from thermo_monitor.physics.canonical import RowStatistics
from thermo_monitor.physics.lse import attention_rows_from_log_partition
from thermo_monitor.probes.calls import AttentionCall

Way = Literal["exact", "log_partition", "kernel", "auto"]
WAYS: tuple[str, ...] = ("exact", "log_partition", "kernel", "auto")
NAMES = {"exact": "exact rows", "log_partition": "log partition", "kernel": "kernel"}

FROM_LOG_PARTITION = frozenset(
    f"attn/{name}"
    for name in (
        "log_partition", "internal_energy", "entropy", "free_energy", "specific_heat", "specific_heat_norm",
        "entropy_fraction", "n_eff",
    )
)  # fmt: skip
"""What follows from ln Z alone; the spread of the logits and the largest one do not."""


def statistics(
    call: AttentionCall, rows: Rows, part: slice, wanted: Way
) -> tuple[RowStatistics, Tensor | None, str, str]:
    """Statistics [b, H, R] of some rows of some examples.

    Args:
        call: what was heard.
        rows: which queries.
        part: which examples.
        wanted: the way to compute them; ``auto`` takes the kernel on a CUDA device where it reads the call.

    Returns:
        The statistics, which rows are no padding, the way that was taken, and why not the wanted one.
    """
    why = ""
    if wanted == "kernel" or (wanted == "auto" and call.query.device.type == "cuda"):
        arguments = call.arguments(part)
        why = _why_no_kernel(arguments)
        if not why:
            from thermo_monitor.kernels import attention as kernel

            given = {name: arguments[name] for name in ("q", "k", "scale", "causal")}
            mask = arguments["mask"]
            return kernel.attention_rows(**given, mask=mask, rows=rows), call.valid(rows, part), "kernel", ""
        why = "" if wanted == "auto" else why
    elif wanted == "log_partition":
        arguments = call.arguments(part)
        why = _why_no_log_partition(arguments)
        if not why:
            given = {name: arguments[name] for name in ("q", "k", "scale", "mask", "bias", "causal")}
            return attention_rows_from_log_partition(**given, rows=rows), call.valid(rows, part), "log_partition", ""
    stats, valid = call.statistics(rows, part)
    return stats, valid, "exact", why


def _why_no_log_partition(arguments: dict[str, Any]) -> str:
    if arguments["score"] is not None or arguments["sinks"] is not None or callable(arguments["mask"]):
        return "soft caps, sinks and masks that are rules are read from exact rows"
    return ""


def _why_no_kernel(arguments: dict[str, Any]) -> str:
    query = arguments["q"]
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if importlib.util.find_spec("triton.knobs") is None:  # as that of torch 2.6
        return f"the kernel does not run with triton {importlib.metadata.version('triton')}"
    from triton import knobs

    if query.device.type != "cuda" and not knobs.runtime.interpret:
        return f"the kernel does not run on {query.device.type}"
    if any(arguments[name] is not None for name in ("score", "sinks", "bias")):
        return "soft caps, sinks and biases are read from exact rows"
    from thermo_monitor.kernels import attention as kernel

    mask = arguments["mask"]
    if isinstance(mask, Tensor) and mask.dim() == 2 and len(mask) > 1:  # [Q, K] here, [B, K] to the kernel
        return "the kernel does not read a mask that is more than key padding"
    why = kernel.why_not(query, arguments["k"], mask)
    return f"the kernel does not read {why}" if why else ""
