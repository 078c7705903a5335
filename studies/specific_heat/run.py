"""Train what is missing, then print and draw what came out.

    python studies/specific_heat/run.py                 # the reduced grid, two cores
    python studies/specific_heat/run.py --full          # the whole protocol, on a GPU
    python studies/specific_heat/run.py --report        # from what is there

Each cell is a file; one that is there is not trained again. On the same machine the files repeat to the digit.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from specific_heat.grid import Cell, full, reduced

FOLDER = Path("runs/specific_heat")


def train(cell: Cell, folder: Path, device: str) -> str:
    """All runs of a cell, into one file."""
    import torch

    from specific_heat.stacked import train as steps_of

    if device == "cpu":
        torch.set_num_threads(1)
    started = time.process_time()
    steps, found = zip(*steps_of(cell, device), strict=True)
    arrays = {name: np.stack([values[name] for values in found]) for name in found[0]}
    unfinished = folder / f"{cell.name}.part.npz"
    np.savez_compressed(unfinished, steps=np.array(steps), **arrays)
    unfinished.rename(folder / f"{cell.name}.npz")
    return f"{cell.name}: {time.process_time() - started:.0f} s"


def main(argv: list[str] | None = None) -> None:
    """Read the options, train, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figures", type=Path)
    args = parser.parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    cells = full() if args.full else reduced()
    missing = [] if args.report else [c for c in cells if not (args.folder / f"{c.name}.npz").exists()]
    if args.device == "cpu" and len(missing) > 1:
        # The largest first, so that no core is left with it at the end.
        missing.sort(key=lambda c: -c.p)
        with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
            for line in pool.map(train, missing, [args.folder] * len(missing), [args.device] * len(missing)):
                print(line, flush=True)
    else:
        for cell in missing:
            print(train(cell, args.folder, args.device), flush=True)
    report(cells, args.folder, args.json, args.figures)


def report(cells: list[Cell], folder: Path, out: Path | None, pictures: Path | None) -> None:
    """Print the tables of what is there."""
    from specific_heat import figures, tables

    runs: list[tables.Trace] = []
    for cell in cells:
        file = folder / f"{cell.name}.npz"
        if file.exists():
            with np.load(file) as arrays:
                runs += tables.traces(cell, {name: arrays[name] for name in arrays.files})
    print(figures.outcomes(runs))
    found = {"all": tables.announcements(runs)}
    for name, half in zip(("first half of the seeds", "second half"), tables.halves(runs), strict=True):
        found[name] = tables.announcements(half)
    for name, rows in found.items():
        print(f"\n### {name}\n\n{figures.table(rows)}")
    print(f"\n{figures.scaling(found['all'])}")
    if out is not None:
        out.write_text(json.dumps(found, indent=1, default=_plain) + "\n")
    if pictures is not None:
        figures.draw(runs, pictures)


def _plain(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else str(value)


if __name__ == "__main__":
    main()
