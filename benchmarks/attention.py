"""What the statistics of attention cost: three ways to compute them, the fused forward pass, and a matrix.

    python benchmarks/attention.py [--lengths 512 1024 2048] [--limit SECONDS] [--json FILE]

Time is the median over repeats, of the calls in turn, on a CPU that of the process; memory is the peak beyond what is
held before, as the device counts it on CUDA, and as the kernel of the system counts the process on Linux. A call that
would take longer than the limit, by what it took at the length before, or more memory than there is, is left out; its
repeats are as many as the limit allows, seven at most. Columns:

* fused: ``scaled_dot_product_attention``, what the model itself computes.
* rows: 64 evenly spaced rows, exact; what the monitor does by default.
* ln Z: all rows from three calls of the fused attention.
* kernel: all rows, and 128 of them, by the Triton kernel; on a device only.
* matrix: entropy of all rows from materialised weights, as ``output_attentions=True`` gives them.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
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

LARGEST_MATRIX = 2**28  # weights that are materialised at most on a CPU, 1 GB in single precision
REPEATS = 7


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
    weights = q.shape[0] * q.shape[1] * length**2
    room = torch.cuda.mem_get_info()[0] // 14 if q.device.type == "cuda" else LARGEST_MATRIX  # bytes of one weight
    if weights <= room:
        found["matrix"] = matrix
    return found


def measure(
    length: int, batch: int, heads: int, width: int, device: str, expected: dict[str, float], limit: float
) -> dict[str, Any]:
    """Milliseconds and peak megabytes of each way at one length, of those that are expected to take no longer."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    q, k, v = (torch.randn(batch, heads, length, width, device=device, dtype=dtype) for _ in range(3))
    calls = {name: call for name, call in ways(q, k, v).items() if expected.get(name, 0.0) <= limit}
    row: dict[str, Any] = {"length": length}
    repeats = {}
    for name, call in calls.items():  # the first round warms up, and shows the memory
        started = _now(device)
        mb = _peak(call, device)
        repeats[name] = int(min(REPEATS, max(1.0, 4 * limit / max(_now(device) - started, 1e-9))))
        row[name] = {"mb": mb}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(REPEATS):
        for name, call in calls.items():
            if repeat < repeats[name]:
                started = _now(device)
                call()
                times[name].append(_now(device) - started)
    for name, found in times.items():
        row[name]["ms"] = 1e3 * sorted(found)[len(found) // 2]
    return row


def _peak(call: Callable[[], Any], device: str) -> float | None:
    """Megabytes that a call holds at most beyond what is held before it; None where nobody counts."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    status = Path("/proc/self/status")
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was given back is not to be used again unseen
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
        before = _kilobytes(status, "VmRSS")
    except OSError:
        call()
        return None
    call()
    return max(0.0, (_kilobytes(status, "VmHWM") - before) / 1024)


def _kilobytes(status: Path, what: str) -> float:
    return next(float(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{what}:"))


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()  # of the one thread: what else the machine does is not counted


def table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds, their share of those of the fused forward pass, and megabytes."""
    names = [name for name in max(rows, key=len) if name != "length"]
    lines = ["| length | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for row in rows:
        cells = []
        for name in names:
            found = row.get(name)
            if found is None:
                cells.append("")
                continue
            share = f" ({found['ms'] / row['fused']['ms']:.3f})" if name != "fused" and "fused" in row else ""
            memory = "" if found["mb"] is None else f", {found['mb']:.1f} MB"
            cells.append(f"{found['ms']:.1f} ms{share}{memory}")
        lines.append(f"| {row['length']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--limit", type=float, default=2.0, help="seconds that one call may take")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    batch, heads, width = (8, 16, 128) if device == "cuda" else (1, 8, 64)
    batch, heads, width = args.batch or batch, args.heads or heads, args.width or width
    machine = torch.cuda.get_device_name() if device == "cuda" else "CPU, 1 thread"
    print(f"{machine}, torch {torch.__version__}, {batch} x {heads} heads of {width}, causal\n")
    with torch.no_grad():
        rows: list[dict[str, Any]] = []
        expected: dict[str, float] = {}
        for length in args.lengths:
            rows.append(measure(length, batch, heads, width, device, expected, args.limit))
            growth = 4.0  # of all rows, when the length doubles; a fixed number of rows grows as the length
            for name, found in rows[-1].items():
                if name != "length":
                    expected[name] = found["ms"] / 1e3 * (2.0 if "rows" in name else growth)
            expected |= {name: float("inf") for name in expected if name not in rows[-1]}
    print(table(rows))
    out = {
        "device": machine,
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
