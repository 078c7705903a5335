"""Many ticks with flat memory, hooks, threads, and a log that grows by no more than it is said to.

    python -m tests.soak.leaks --ticks 20000

Every tick is a full measurement of a small model, written to an event file and to JSON lines.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import torch

from tests.fingerprint import installed
from tests.models import batches, build, cross_entropy
from thermo_monitor import Monitor

BYTES = 3_700
"""Of the log for each full tick of the default preset: a line of numbers in JSON, a record of TensorBoard and the same
points once more in chunks that no loader thins out. Frames are thinned, so that they do not grow with the run."""


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def watch(ticks: int, looks: int = 10, show: bool = False) -> list[dict[str, float]]:
    """What the process holds at evenly spaced ticks of one run."""
    torch.manual_seed(0)
    found = []
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(scratch)
        model, data = build(), batches(16)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        with Monitor(model, optimizer, every=1, log_dir=folder, strict=True) as monitor:
            for step in range(ticks):
                with monitor.step(step):
                    tokens = data[step % len(data)]
                    loss = cross_entropy(model(tokens), tokens)
                    monitor.loss(loss)
                    loss.backward()
                    monitor.gradients()
                    optimizer.step()
                    optimizer.zero_grad()
                if (step + 1) % (ticks // looks) == 0:
                    gc.collect()
                    for sink in monitor.sinks:
                        if hasattr(sink, "_writer"):
                            sink._writer.flush()
                    left = installed(model)
                    found.append(
                        {
                            "tick": step + 1,
                            "resident": resident(),
                            "blocks": sys.getallocatedblocks(),
                            "hooks": sum(n for name, n in left.items() if "hooks" in name),
                            "threads": threading.active_count(),
                            "log": size(folder),
                            "events": len(monitor.events),
                        }
                    )
                    if show:
                        print(json.dumps(found[-1]), flush=True)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=20_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = watch(args.ticks, show=True)
    first, last = rows[len(rows) // 2 - 1], rows[-1]
    more = (last["resident"] - first["resident"]) / 2**20
    each = (last["log"] - first["log"]) / (last["tick"] - first["tick"])
    print(f"second half: {more:+.1f} MiB resident, {each:.0f} bytes of log a tick")
    assert {row["hooks"] for row in rows} == {first["hooks"]}
    assert {row["threads"] for row in rows} == {first["threads"]}
    assert more < 8, "memory grows"
    assert each < BYTES, "the log grows by more than is said"
