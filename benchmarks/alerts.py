"""What alerts cost a training while nobody answers: step time, memory, and the end.

    python benchmarks/alerts.py [--seconds 60] [--json FILE]

A small model trains on one thread. 10,000 events a minute are handed to the alert sink in turn, in blocks of steps, of
which every other one goes without: neighbouring blocks are compared, so that a machine whose speed drifts drifts for
both. Services: a port that nobody listens on, and one that takes the connection and never answers. No cooldown, so
that as many alerts as possible are tried. `sinks` is what the call of the sink itself takes.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from thermo_monitor.demo.modular import Transformer, modular_addition
from thermo_monitor.records import Event
from thermo_monitor.sinks import AlertSink

RATE = 10_000 / 60  # events a second
BLOCK = 10  # steps


def event(n: int) -> Event:
    return Event(
        "shift", n, n, "up", "loss/train", 10.0, "instability", "loss was thrown up", id=f"run:{n}", level="error"
    )


def measure(targets: list[str], seconds: float) -> dict[str, Any]:
    train, _ = modular_addition()
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    sink = AlertSink(targets, "benchmark", cooldown=0.0)
    times: dict[bool, list[float]] = {True: [], False: []}
    calls: list[float] = []
    told = 0
    memory = []
    end = time.perf_counter() + seconds
    on, owed, last = True, 0.0, time.perf_counter()
    while time.perf_counter() < end:
        started = time.perf_counter()
        for _ in range(BLOCK):
            F.cross_entropy(model(train.tokens), train.answers).backward()
            optimizer.step()
            optimizer.zero_grad()
            now = time.perf_counter()
            owed, last = owed + 2 * RATE * (now - last) * on, now  # twice as many while on: the rate holds over both
            while owed >= 1.0:
                before = time.perf_counter()
                sink.event(event(told))
                calls.append(time.perf_counter() - before)
                told, owed = told + 1, owed - 1.0
        times[on].append((time.perf_counter() - started) / BLOCK)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        on = not on
    waiting = sink._outbox.waiting
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        started = time.perf_counter()
        sink.close()
        closing = time.perf_counter() - started
    pairs = min(map(len, times.values()))
    ratios = np.array(times[True][:pairs]) / np.array(times[False][:pairs])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {
        "events": told,
        "step_ms": 1e3 * float(np.median(times[False])),
        "ratio": [round(float(v), 4) for v in (low, middle, high)],
        "sink_us": [round(1e6 * float(np.quantile(calls, q)), 1) for q in (0.5, 0.99, 1)] if calls else [],
        "waiting": waiting,
        "memory_mb_after_a_fifth_and_at_the_end": [round(memory[len(memory) // 5], 1), round(memory[-1], 1)],
        "closing_s": round(closing, 2),
        "said": [str(w.message)[:160] for w in said][:2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            gone = closed.getsockname()[1]
        services = {
            "nobody to tell": [],
            "unreachable": [f"json://127.0.0.1:{gone}"],
            "never answers": [f"json://127.0.0.1:{silent.getsockname()[1]}"],
        }
        rows = {name: measure(targets, args.seconds) for name, targets in services.items()}
    for name, row in rows.items():
        print(f"{name}: {json.dumps(row)}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
