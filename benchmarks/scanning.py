"""How fast logs are read and searched, and what that takes.

    python benchmarks/scanning.py [--runs 200] [--logs DIRECTORY] [--json FILE]

1. One million scalars (20 tags, 50,000 steps, one scalar an event, four levels that move) in one event file: reading,
   reading and searching, the processor time of the whole process with its imports (which a busy machine does not
   change much), and its largest resident memory.
2. Many runs through joblib: wall time, and processor time over wall time, which is the number of busy cores.

The same file read by TensorBoard's own EventAccumulator is timed for comparison. Writing the logs takes longer than all
of this: with ``--logs`` they are kept, and found the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

ONE = """
import json, resource, sys, time
from thermo_monitor.eventlog.runs import find
from thermo_monitor.scan import scan_run
import thermo_monitor.detect.finished
started = time.perf_counter()
(log,) = find(sys.argv[1])
log.read()
read = time.perf_counter() - started
found = scan_run(log)  # finds nothing new to read
whole = time.perf_counter() - started
used = resource.getrusage(resource.RUSAGE_SELF)
row = {"points": found.points, "events": len(found.events), "read": read, "whole": whole}
print(json.dumps({**row, "processor": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}))
"""
THEIRS = """
import json, resource, sys, time
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
started = time.perf_counter()
log = EventAccumulator(sys.argv[1], {"scalars": 0})
log.Reload()
points = sum(len(log.Scalars(tag)) for tag in log.Tags()["scalars"])
used = resource.getrusage(resource.RUSAGE_SELF)
row = {"points": points, "whole": time.perf_counter() - started}
print(json.dumps({**row, "processor": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}))
"""


def write(directory: Path, tags: int, steps: int, seed: int = 0) -> None:
    if directory.exists():
        return
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((tags, steps)) * 0.1 + 1.0
    values[:4, steps // 2 :] -= 0.6
    directory.mkdir(parents=True)
    with (directory / "events.out.tfevents.1.benchmark").open("wb") as file:
        writer = RecordWriter(file)
        for step in range(steps):
            for tag in range(tags):
                summary = Summary(value=[Summary.Value(tag=f"group/tag{tag}", simple_value=values[tag, step])])
                writer.write(Event(summary=summary, step=step, wall_time=1e9 + step).SerializeToString())


def child(program: str, *arguments: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def fleet(directory: Path) -> dict[str, float]:
    out = {}
    for jobs in (1, -1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        command = [sys.executable, "-m", "thermo_monitor", "scan", str(directory), "--json", "--jobs", str(jobs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found = json.loads(done.stdout)
        assert done.returncode == 3, done.stderr
        counts = {"runs": len(found["runs"]), "found": found["found"]}
        out[f"jobs {jobs}"] = {"wall": wall, "busy_cores": busy / wall, **counts}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--logs", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only-write", action="store_true")
    args = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        directory = args.logs or Path(temporary)
        write(directory / "one", 20, 50_000)
        for n in range(args.runs):
            write(directory / "fleet" / f"run-{n:03d}", 4, 2000, seed=n)
        if args.only_write:
            return
        print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
        tasks = {
            "scan of a million scalars": lambda: child(ONE, f"{directory}/one"),
            f"{args.runs} runs of 8,000 scalars": lambda: fleet(directory / "fleet"),
            "EventAccumulator, reading alone": lambda: child(THEIRS, f"{directory}/one"),
        }
        for name, measure in tasks.items():
            rows[name] = measure()
            print(f"{name}: {json.dumps(rows[name])}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
