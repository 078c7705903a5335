"""Train what is missing, then print and draw what came out.

    python studies/specific_heat/run.py                 # the reduced grid, two cores
    python studies/specific_heat/run.py --cells 1       # one more cell of it, and no report
    python studies/specific_heat/run.py --report        # the tables, from the recordings or else from what is kept
    python studies/specific_heat/run.py --grid deep     # its two-layer arm
    python studies/specific_heat/run.py --grid full --device cuda --workers 1 --results DIR

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

from specific_heat import figures, grid, outcome, tables
from specific_heat.grid import Cell

RECORDINGS = Path("runs/specific_heat")
RESULTS = Path(__file__).parent / "results"
GRIDS = {"reduced": grid.reduced, "deep": grid.deep, "full": grid.full}


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
    return f"{cell.name}: {time.process_time() - started:.0f} s of processor"


def main(argv: list[str] | None = None) -> None:
    """Read the options, train, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", choices=GRIDS, default="reduced")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--cells", type=int, help="train at most so many of those that are missing, and do not report")
    parser.add_argument("--recordings", type=Path, default=RECORDINGS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--figures", type=Path, help="a folder to draw into")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    args.recordings.mkdir(parents=True, exist_ok=True)
    cells = GRIDS[args.grid]()
    # The largest first, so that no core is left with it at the end.
    missing = sorted((c for c in cells if not _file(c, args.recordings).exists()), key=lambda c: -c.p)
    missing = [] if args.report else missing[: args.cells]
    if args.workers > 1 and len(missing) > 1:
        with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
            for line in pool.map(train, missing, [args.recordings] * len(missing), [args.device] * len(missing)):
                print(line, flush=True)
    else:
        for cell in missing:
            print(train(cell, args.recordings, args.device), flush=True)
    if args.cells is None:
        report(cells, args.recordings, args.results, args.figures)


def report(cells: list[Cell], recordings: Path, results: Path, pictures: Path | None = None) -> None:
    """Tables of each arm: those of the recordings that are there, otherwise those of the dates that are kept."""
    for arm in dict.fromkeys(cell.arm for cell in cells):
        own = [c for c in cells if c.arm == arm and _file(c, recordings).exists()]
        kept = results / arm
        if own:
            kept.mkdir(parents=True, exist_ok=True)
            outcome.save([run for cell in own for run in outcome.outcomes(cell, _read(cell, recordings))], kept)
        elif not (kept / "runs.csv").exists():
            continue
        # Both ways through the file, so that they give the same.
        runs = outcome.load(kept)
        found = tables.everything(runs)
        (kept / "tables.json").write_text(json.dumps(_plain(found), indent=1) + "\n")
        text = figures.report(arm, runs, found)
        (kept / "tables.md").write_text(text)
        print(text)
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            figures.draw_heights(found, pictures / f"{arm}-heights.png")
            figures.draw_peaks(runs, pictures / f"{arm}-peaks.png")
            if own:
                figures.draw_traces({c: _read(c, recordings) for c in own}, pictures / f"{arm}-traces.png")


def _file(cell: Cell, folder: Path) -> Path:
    return folder / f"{cell.name}.npz"


def _read(cell: Cell, folder: Path) -> dict[str, np.ndarray]:
    with np.load(_file(cell, folder)) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _plain(value: object) -> object:
    """Without what JSON does not know: NaN is null, and digits that say nothing are left out."""
    if isinstance(value, dict):
        return {str(name): _plain(own) for name, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.5g}")
    return value


if __name__ == "__main__":
    main()
