"""All faults at random for ten minutes, kills between them, and a look at what the process holds.

    python -m tests.soak.run --minutes 10        (make soak)

Ends with an error at the first fault that hurt anything: the weights of a training, another part, or a file.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import tempfile
import threading
import time
import warnings
from pathlib import Path

import torch

from tests.faults.cases import TABLE
from tests.soak.killed import kill_many
from tests.soak.leaks import resident


def main(minutes: float, seed: int) -> dict[str, object]:
    """Until the time is over; what was done."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    generator, until, rows = random.Random(seed), time.monotonic() + 60 * minutes, sorted(TABLE)
    done: collections.Counter[str] = collections.Counter()
    killed, first = 0, None
    while time.monotonic() < until:
        if sum(done.values()) % 100 == 99:  # forked here, where no thread of ours runs
            killed += kill_many(4, generator.randrange(10**6))["killed"]
        part, fault = generator.choice(rows)
        run, happens = TABLE[part, fault]
        with tempfile.TemporaryDirectory() as folder:
            found = run(fault, Path(folder))
        assert found == happens, f"{part}, {fault}: {found} where it should be {happens}"
        done[happens] += 1
        if sum(done.values()) == 60:
            first = resident()
    grown = None if first is None else (resident() - first) / 2**20
    time.sleep(1.0)  # the services that were slow to answer have answered
    assert threading.active_count() < 10, [t.name for t in threading.enumerate()]
    assert grown is None or grown < 200, f"{grown:.0f} MiB more than at the beginning"
    return {"seed": seed, "faults": dict(done), "kills": killed, "MiB more": grown, "threads": threading.active_count()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    seed = random.randrange(10**6) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    print(json.dumps(main(args.minutes, seed)))
