"""What the statistics of attention cost: three ways to compute them, the fused forward pass, and a matrix.

    python benchmarks/attention.py [--lengths 512 1024 2048] [--json FILE]

Time is the median over repeats, of the calls in turn, on a CPU that of the process; memory is the peak beyond what the
inputs take, on CUDA only, where the device counts it. Columns:

* fused: ``scaled_dot_product_attention``, what the model itself computes.
* rows: 64 evenly spaced rows, exact; what the monitor does by default.
* ln Z: all rows from three calls of the fused attention.
* kernel: all rows, the Triton kernel; on a device only.
* matrix: entropy of all rows from materialised weights, as ``output_attentions=True`` gives them.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from thermo_monitor.physics.attention import EvenRows, attention_rows
from thermo_monitor.physics.lse import attention_rows_from_log_partition

LARGEST_MATRIX = 2**28  # weights that are materialised at most, 1 GB in single precision


def ways(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable[[], Any]]:
    """The calls that are compared."""
    scale, length = q.shape[-1] ** -0.5, q.shape[2]

    def matrix() -> Tensor:
        z = (scale * q @ k.mT).masked_fill(torch.ones(length, length, device=q.device).triu(1).bool(), -torch.inf)
        p = z.float().softmax(-1)
        return torch.special.entr(p).sum(-1)

    def rows(count: int) -> Callable[[], Any]:
        return lambda: attention_rows(q, k, scale=scale, causal=True, rows=EvenRows(length, count))

    found: dict[str, Callable[[], Any]] = {
        "fused": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "rows": rows(64),
        "ln Z": lambda: attention_rows_from_log_partition(q, k, scale=scale, causal=True),
    }
    if q.device.type == "cuda":
        from thermo_monitor.kernels import attention as kernel

        found["kernel"] = lambda: kernel.attention_rows(q, k, scale=scale, causal=True)
        found["kernel, 128 rows"] = lambda: kernel.attention_rows(
            q, k, scale=scale, causal=True, rows=EvenRows(length, 128)
        )
    if q.shape[0] * q.shape[1] * length**2 <= LARGEST_MATRIX:
        found["matrix"] = matrix
    return found


def measure(length: int, batch: int, heads: int, width: int, device: str, repeats: int) -> dict[str, Any]:
    """Milliseconds and peak megabytes of each way at one length."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q, k, v = (torch.randn(batch, heads, length, width, device=device, dtype=dtype) for _ in range(3))
    calls = ways(q, k, v)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):  # the first round warms up
        for name, call in calls.items():
            started = _now(device)
            call()
            if repeat:
                times[name].append(_now(device) - started)
    row: dict[str, Any] = {"length": length}
    for name, call in calls.items():
        row[name] = {"ms": 1e3 * sorted(times[name])[len(times[name]) // 2]}
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            row[name]["mb"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return row


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()  # of the one thread: what else the machine does is not counted


def table(rows: list[dict[str, Any]]) -> str:
    """Time as a share of the fused forward pass, with the milliseconds of the latter."""
    names = [name for name in max(rows, key=len) if name not in ("length", "fused")]
    lines = ["| length | fused, ms | " + " | ".join(f"{name} / fused" for name in names) + " |"]
    lines.append("|" + "---|" * (len(names) + 2))
    for row in rows:
        base = row["fused"]["ms"]
        cells = [f"{row[name]['ms'] / base:.3f}" if name in row else "" for name in names]
        lines.append(f"| {row['length']} | {base:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch, heads, width = (8, 16, 128) if device == "cuda" else (1, 8, 64)
    batch, heads, width = args.batch or batch, args.heads or heads, args.width or width
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU, 1 thread"
    print(f"{name}, torch {torch.__version__}, {batch} x {heads} heads of {width}, causal\n")
    with torch.no_grad():
        rows = [measure(length, batch, heads, width, device, args.repeats) for length in args.lengths]
    print(table(rows))
    out = {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "shape": {"batch": batch, "heads": heads, "width": width},
        "rows": rows,
    }
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n")
    return out


if __name__ == "__main__":
    main()
