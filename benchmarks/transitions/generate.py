"""Train every run of the suite that is not recorded yet, on all cores."""

from __future__ import annotations

import argparse
import re
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

FOLDER = Path(__file__).parent / "recordings"


def path(folder: Path, name: str, seed: int) -> Path:
    """File of one recording."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{seed}.npz"


def one(name: str, seed: int, folder: Path) -> str:
    """Record one run."""
    import torch

    from transitions.record import record
    from transitions.suite import RECIPES
    from transitions.truth import truth

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="thermo-monitor: no ")  # some of these models have no attention to hear
    recipe = next(r for r in RECIPES if r.name == name)
    started = time.process_time()
    recording, _ = record(recipe, seed)
    file = path(folder, name, seed)
    recording.save(file)
    what = truth(recipe, recording)
    what.save(file.with_suffix(".json"))
    changes = ", ".join(f"{c.phase} {c.begin}-{c.end}" for c in what.changes)
    return f"{name}, seed {seed}: {what.outcome}; {changes or 'nothing'} ({time.process_time() - started:.0f} s)"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--only", default="", help="runs whose name contains this")
    parser.add_argument("--seeds", default="", help="such as 0,2; all unless given")
    parser.add_argument("--again", action="store_true", help="also what is recorded already")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)

    from transitions.suite import RECIPES, SEEDS

    seeds = [int(s) for s in args.seeds.split(",") if s] or list(SEEDS)
    wanted = [(r.name, seed) for r in RECIPES if args.only in r.name for seed in seeds]
    if not args.again:
        # The truth is written last: a recording without it was interrupted.
        wanted = [(n, seed) for n, seed in wanted if not path(args.folder, n, seed).with_suffix(".json").exists()]
    args.folder.mkdir(parents=True, exist_ok=True)
    # Forked workers would share the threads of a library that has started some.
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(one, name, seed, args.folder) for name, seed in wanted]):
            print(future.result(), flush=True)


if __name__ == "__main__":
    main()
