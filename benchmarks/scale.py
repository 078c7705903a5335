"""What several ranks cost and how exact their samples are: measured constants, and what follows for other sizes.

Run ``python benchmarks/scale.py``. It measures the vector that goes round, the time that packing takes, and all-reduces
between 2, 4 and 8 ranks on this machine; fits the time of a ring, ``2 (W - 1) (latency + bytes / (W rate))`` times the
ranks for each core that they share, to 2 and 4 ranks and holds it against 8; prints what that makes of 1 to 10,000
ranks and 1 to 500 layers; and simulates the error of reading a part of the layers, heads, ranks or rows. ``--json
FILE`` keeps the figures, ``--from FILE`` prints them.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import threading
import time
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from language import Language

from thermo_monitor import Monitor
from thermo_monitor.exchange import Exchange
from thermo_monitor.sinks import MemorySink

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
LAYERS = (1, 2, 4)
WIDTH, HEADS, LENGTH, BATCH = 64, 8, 64, 2


# ---------------------------------------------------------------------------------------------- measured, on ranks
def reduced(worlds=(2, 4, 8)) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds of an all-reduce of so many numbers, by number of ranks: each a thread with a gloo group of its own.

    The least of 40 is what the fit is made to: what else runs on a machine only adds to it.
    """
    found = {}
    for world in worlds:
        store, times = dist.HashStore(), {}

        def rank(index: int, world: int = world, store=store, times=times) -> None:
            group = dist.ProcessGroupGloo(store, index, world, datetime.timedelta(seconds=60))
            for size in SIZES:
                x, taken = torch.ones(size, dtype=torch.float64), []
                for _ in range(40):
                    group.barrier().wait()
                    start = time.perf_counter()
                    group.allreduce([x]).wait()
                    taken.append(time.perf_counter() - start)
                if index == 0:
                    times[str(size)] = {"least": min(taken), "median": statistics.median(taken)}

        threads = [threading.Thread(target=rank, args=(index,)) for index in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found[str(world)] = times
    return found


class Twins(Exchange):
    """An exchange with one other rank that always has the same numbers: what goes round, without a way to go."""

    def __init__(self, rank: int, ranks: int, head: int) -> None:
        with mock.patch.object(dist.distributed_c10d, "_get_default_store", dist.HashStore):
            super().__init__(0, 1, head)
        self.ranks = ranks

    def start(self, head, named) -> None:
        super().start(head, named)
        self._work.wait()
        self._vector *= self.ranks

    def _ring(self, tensor, *how) -> None:
        super()._ring(tensor, *how)
        if tensor is getattr(self, "_vector", None):
            tensor *= self.ranks


def vector(layers: int, steps: int = 71) -> dict[str, float]:
    """Length of what goes round for the default probes, and the milliseconds that a turn keeps the host busy."""
    torch.manual_seed(0)
    model, turns = Language(width=WIDTH, length=LENGTH, layers=layers), []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(1000, (BATCH, LENGTH))
    with contextlib.ExitStack() as stack:
        for room in ("assembly", "ranked"):
            stack.enter_context(mock.patch(f"thermo_monitor.{room}.ranks", return_value=(0, 2)))
        stack.enter_context(mock.patch("thermo_monitor.pooling.Exchange", Twins))
        monitor = stack.enter_context(Monitor(model, optimizer, every=10, sinks=[], strict=True))
        turn = monitor._pool.turn

        def timed(arrivals):
            start = time.perf_counter()
            found = turn(arrivals)
            turns.append(time.perf_counter() - start)
            return found

        monitor._pool.turn = timed
        for step in range(steps):
            with monitor.step(step):
                loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()
                optimizer.step()
                optimizer.zero_grad()
        numbers = monitor._pool._exchange._vector.numel()
    # The first turns agree on the names.
    return {"numbers": numbers, "least": 1e3 * min(turns[3:]), "median": 1e3 * statistics.median(turns[3:])}


class Ring(NamedTuple):
    """Time of an all-reduce in a ring of W: 2 (W - 1) (latency + bytes / (W rate))."""

    latency: float  # seconds of a hop
    rate: float  # bytes a second

    def seconds(self, ranks: int, numbers: float, cores: int | None = None) -> float:
        """Of ``numbers`` in double precision; where all ranks share some cores, their hops wait for each other."""
        shared = 1.0 if cores is None else ranks / min(ranks, cores)
        return shared * 2 * (ranks - 1) * (self.latency + 8 * numbers / (ranks * self.rate))


def fitted(found: dict[str, dict]) -> Ring:
    """The two constants, from 2 and 4 processes, with the same weight for every relative error."""
    rows, ones = [], []
    for world in ("2", "4"):
        for size, seconds in found["reduce"][world].items():
            w, seconds = int(world), seconds["least"]
            hops = 2 * (w - 1) * w / min(w, found["cores"])
            rows.append(np.array([hops, hops * 8 * int(size) / w]) / seconds)
            ones.append(1.0)
    (latency, cost), *_ = np.linalg.lstsq(np.array(rows), np.array(ones), rcond=None)
    return Ring(float(latency), float(1 / cost))


def length(found: dict[str, dict], layers: int, heads: int, width: int) -> float:
    """Numbers in the vector of the default probes; fixed, for each layer, and for the sample of representations.

    The fixed part and that of a layer are read from the measured lengths; a layer's grows with its heads, and the
    sample of 256 representations with the width.
    """
    lengths = {int(k): v["numbers"] for k, v in found["vector"].items()}
    layer = (lengths[4] - lengths[2]) / 2  # 1 + 7 H: a mark, the count and six sums of every head
    sample = 256 * (1 + WIDTH)
    fixed = lengths[1] - layer - sample
    of_head = (layer - 1) / HEADS
    return fixed + layers * (1 + of_head * heads) + 256 * (1 + width)


# ------------------------------------------------------------------------------------------------------- counted
class Shape(NamedTuple):
    """A model and the batch of one rank."""

    name: str
    layers: int
    heads: int
    width: int
    tokens: int  # of a sequence
    sequences: int
    vocabulary: int

    @property
    def parameters(self) -> float:
        """Of the blocks and one embedding."""
        return 12 * self.layers * self.width**2 + self.vocabulary * self.width


SHAPES = (
    Shape("one layer", 1, 8, 512, 1024, 8, 32_000),
    Shape("GPT-2 small", 12, 12, 768, 1024, 8, 50_257),
    Shape("7B", 32, 32, 4096, 4096, 2, 32_000),
    Shape("70B", 80, 64, 8192, 8192, 1, 128_000),
    Shape("500 layers", 500, 128, 12_288, 8192, 1, 128_000),
)


def flops(shape: Shape) -> tuple[float, float]:
    """Of a training step of one rank, and of a full measurement of the default probes.

    A step is 6 N for each token and the products of causal attention. A measurement is the logits of 64 rows of every
    sequence and head with 25 operations for their statistics; as many for the logits of the output sample; norms of
    gradients, weights and Adam's moments, 8 for each parameter; and on the host two Gram matrices of 256 rows and their
    eigenvalues.
    """
    tokens = shape.tokens * shape.sequences
    step = 6 * shape.parameters * tokens + 6 * shape.layers * shape.width * tokens * shape.tokens
    logits = min(shape.sequences, 128) * shape.layers * shape.heads * 64 * shape.tokens / 2
    attention = logits * (2 * shape.width / shape.heads + 25)
    output = max(256, 2**18 // shape.vocabulary) * shape.vocabulary * 25
    sample = 2 * 2 * 256**2 * shape.width + 2 * 10 * 256**3
    return step, attention + output + 8 * shape.parameters + sample


# ------------------------------------------------------------------------------------------------------ simulated
def frames(seed: int = 0, layers: int = 8, sequences: int = 32, steps: int = 40) -> dict[str, np.ndarray]:
    """Specific heat of every [sequence, layer, head] of a small model after some steps, from all rows and from 64."""
    torch.manual_seed(seed)
    model = Language(vocabulary=200, width=WIDTH, length=256, layers=layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    text = torch.randint(200, (sequences, 256)).sort(1).values.roll(7, 1)
    for _ in range(steps):
        rows = text[torch.randint(sequences, (8,))]
        F.cross_entropy(model(rows)[:, :-1].flatten(0, 1), rows[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    from thermo_monitor.probes import AttentionProbe

    found = {}
    for name, rows in (("all rows", 256), ("64 rows", 64)):
        sink = MemorySink()
        probe = AttentionProbe(rows=rows, quantities=("attn/specific_heat",))
        with Monitor(model, every=1, preset=[probe], sinks=[sink]) as monitor:
            for step, sequence in enumerate(text):
                with monitor.step(step), torch.no_grad():
                    model(sequence[None])
        found[name] = np.stack([frame.values for frame in sink.frames])
    return found


def errors(values: dict[str, np.ndarray], draws: int = 2000) -> list[tuple[str, str, float]]:
    """Root mean square relative error of the model's mean from a part of it: what is sampled, how much, error."""
    rng, whole = np.random.default_rng(0), values["all rows"]
    truth, (sequences, layers, heads) = whole.mean(), whole.shape

    def error(axis: int, count: int) -> float:
        size = whole.shape[axis]
        means = np.apply_over_axes(np.mean, whole, [a for a in range(3) if a != axis]).reshape(size)
        picks = np.array([means[rng.permutation(size)[:count]].mean() for _ in range(draws)])
        return float(np.sqrt(np.mean((picks / truth - 1) ** 2)))

    def rotation(count: int) -> float:
        """Evenly spaced layers, another offset each time: the error of a single turn."""
        by_layer, every = whole.mean((0, 2)), layers // count
        turns = [by_layer[offset::every].mean() for offset in range(every)]
        return float(np.sqrt(np.mean((np.array(turns) / truth - 1) ** 2)))

    out = [("query rows, evenly spaced", "64 of 256", abs(float(values["64 rows"].mean() / truth) - 1))]
    out += [("ranks of one sequence", f"{n} of {sequences}", error(0, n)) for n in (16, 8, 2, 1) if n < sequences]
    out += [("layers in rotation", f"{n} of {layers}", rotation(n)) for n in (4, 2, 1)]
    out += [("heads, at random", f"{n} of {heads}", error(2, n)) for n in (4, 2, 1) if n < heads]
    return out


# -------------------------------------------------------------------------------------------------------- tables
def tables(found: dict[str, dict], sampled: list[tuple[str, str, float]]) -> str:
    """Everything in markdown."""
    ring, lines = fitted(found), []
    lines += [f"A hop takes {1e6 * ring.latency:.0f} us, and the rate is {ring.rate / 1e6:.0f} MB/s.", ""]
    lines += ["| ranks | numbers | least, ms | median, ms | ring, ms |", "|---|---|---|---|---|"]
    for world, of_world in found["reduce"].items():
        for size, seconds in of_world.items():
            predicted = ring.seconds(int(world), int(size), found["cores"])
            least, median = 1e3 * seconds["least"], 1e3 * seconds["median"]
            lines.append(f"| {world} | {int(size):,} | {least:.2f} | {median:.2f} | {1e3 * predicted:.2f} |")
    lines += ["", "| layers | numbers | bytes | an exchange, host, least, ms | median |", "|---|---|---|---|---|"]
    for layers, v in found["vector"].items():
        lines.append(f"| {layers} | {v['numbers']:,} | {8 * v['numbers']:,} | {v['least']:.1f} | {v['median']:.1f} |")
    worlds = (1, 2, 8, 64, 512, 1_000, 10_000)
    head = " | ".join(f"{w:,}" for w in worlds)
    lines += ["", f"| model | KB | of which sample | {head} |", "|---" * (3 + len(worlds)) + "|"]
    for shape in SHAPES:
        numbers = length(found, shape.layers, shape.heads, shape.width)
        cells = " | ".join(_time(ring.seconds(w, numbers)) if w > 1 else "none" for w in worlds)
        part = 256 * (1 + shape.width) / numbers
        lines.append(f"| {shape.name} | {8 * numbers / 1e3:,.0f} | {part:.0%} | {cells} |")
    lines += [
        "",
        "| model | layers | a step, FLOP | a full measurement | share, every 10 steps |",
        "|---|---|---|---|---|",
    ]
    for shape in SHAPES:
        step, tick = flops(shape)
        lines.append(f"| {shape.name} | {shape.layers} | {step:.1e} | {tick:.1e} | {tick / step / 10:.4%} |")
    lines += ["", "| what is read | part | relative error of the mean |", "|---|---|---|"]
    lines += [f"| {what} | {part} | {error:.2%} |" for what, part, error in sampled]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds >= 1
        else f"{1e3 * seconds:.0f} ms"
        if seconds >= 0.01
        else f"{1e3 * seconds:.1f} ms"
    )


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--from", dest="source", type=Path, help="print the tables of such a file")
    given = parser.parse_args(arguments)
    if given.source:
        kept = json.loads(given.source.read_text())
        print(tables(kept["ranks"], kept["sampled"]))
        return kept
    torch.set_num_threads(1)
    kept = {
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, ranks as threads of one machine, over loopback",
        "ranks": {"cores": os.cpu_count(), "reduce": reduced(), "vector": {str(n): vector(n) for n in LAYERS}},
        "sampled": errors(frames()),
    }
    print(tables(kept["ranks"], kept["sampled"]))
    if given.json:
        given.json.write_text(json.dumps(kept, indent=1) + "\n")
    return kept


if __name__ == "__main__":
    main()
