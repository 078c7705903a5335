"""What the monitor costs: step time with the Lightning callback over step time without it.

    python benchmarks/overhead.py [--pairs 15] [--models demo large] [--json FILE]

Trainings with and without the callback alternate in one process, in blocks of steps, and each block is compared with
its neighbour, so that a machine whose speed drifts drifts for both. The figures are the ratios: median and quartiles
over the pairs. The callback writes to TensorBoard and to a JSON-lines file, as by default.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import tempfile
import time
import timeit
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from language import Language
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from thermo_monitor import Monitor
from thermo_monitor.demo.modular import Transformer, modular_addition
from thermo_monitor.lightning import ThermoMonitor

WARM_UP = 10


class Module(L.LightningModule):
    """Trains either model on a batch that never changes, so that only the work is measured."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if name == "demo":
            train, _ = modular_addition()
            self.net: nn.Module = Transformer()
            self.tokens, self.labels = train.tokens, train.answers
        else:
            self.net = Language()
            self.tokens = torch.randint(0, 1000, (8, 256))
            self.labels = torch.randint(0, 1000, (8, 256))

    def training_step(self, batch: Any, index: int) -> Tensor:
        logits = self.net(self.tokens)
        return F.cross_entropy(logits.flatten(0, -2), self.labels.flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4, weight_decay=0.1)


class Clock(L.Callback):
    """When each step began."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.times.append(time.perf_counter())

    @property
    def step(self) -> float:
        """Mean seconds of a step after the warm-up."""
        return (self.times[-1] - self.times[WARM_UP]) / (len(self.times) - 1 - WARM_UP)


def block(name: str, steps: int, monitors: list[L.Callback], directory: Path) -> float:
    """Seconds per step of one training."""
    torch.manual_seed(0)
    clock = Clock()
    trainer = L.Trainer(
        max_steps=WARM_UP + steps + 1,
        max_epochs=-1,
        logger=TensorBoardLogger(directory, name=f"{time.monotonic_ns()}", version=""),
        callbacks=[clock, *monitors],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="auto",
        devices=1,
    )
    trainer.fit(Module(name), torch.utils.data.DataLoader(range(10**6), batch_size=1))
    return clock.step


def paired(name: str, every: int, pairs: int, steps: int, directory: Path) -> dict[str, Any]:
    """Ratios of neighbouring blocks, the order within a pair alternating."""
    ratios, plain = [], []
    for pair in range(pairs):
        seconds = {}
        for on in (True, False) if pair % 2 else (False, True):
            monitors: list[L.Callback] = [ThermoMonitor(every=every, strict=True)] if on else []
            seconds[on] = block(name, steps, monitors, directory)
        ratios.append(seconds[True] / seconds[False])
        plain.append(seconds[False])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {
        "model": name,
        "every": every,
        "pairs": pairs,
        "milliseconds": 1e3 * float(np.median(plain)),
        "ratio": float(middle),
        "low": float(low),
        "high": float(high),
    }


def alternating(name: str, every: int, blocks: int, directory: Path) -> dict[str, Any]:
    """Ratios of blocks of ten steps, measured and not measured in turn, in a loop without Lightning.

    The blocks are so short that a machine shared with others is as fast in one as in its neighbour, and it is one and
    the same model: two copies differ by some percent, by where they lie in memory. What a monitor costs in a step that
    is not scheduled is not in these figures; see ``idle``.
    """
    net, on, step = Module(name), False, 0
    optimizer = net.configure_optimizers()
    cadences = {"every": lambda step: on and step % every == 0, "fast_every": lambda step: on}
    seconds: dict[bool, list[float]] = {True: [], False: []}
    with Monitor(net, optimizer, log_dir=directory / f"{time.monotonic_ns()}", **cadences) as monitor:
        for block in range(blocks + 2):  # the first two warm up
            for on in (True, False) if block % 2 else (False, True):
                started = time.perf_counter()
                for _ in range(10):
                    with monitor.step(step):
                        loss = net.training_step(None, 0)
                        loss.backward()
                        monitor.loss(loss)
                        monitor.gradients()
                        optimizer.step()
                        optimizer.zero_grad()
                    step += 1
                seconds[on].append(time.perf_counter() - started)
    ratios = np.array(seconds[True][2:]) / np.array(seconds[False][2:])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {
        "model": name,
        "every": every,
        "blocks": blocks,
        "milliseconds": 1e2 * float(np.median(seconds[False])),
        "ratio": float(middle),
        "low": float(low),
        "high": float(high),
        "ratio_of_sums": sum(seconds[True][2:]) / sum(seconds[False][2:]),
    }


def idle() -> dict[str, float]:
    """Microseconds of a step that is not scheduled, in our own calls and for each hook that stays installed."""
    model, number = Transformer(), 20_000
    monitor = Monitor(model, sinks=[], every=10**9, fast_every=10**9)
    hooks = [
        (hook, module)
        for module in model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    x = torch.zeros(1)
    of_each = [min(timeit.repeat(lambda h=h, m=m: h(m, (x,), x), number=number, repeat=7)) / number for h, m in hooks]
    monitor.close()
    box = nn.ModuleList([nn.Identity()])
    bare = min(timeit.repeat(lambda: box[0](x), number=number, repeat=7)) / number
    handle = box[0].register_forward_hook(hooks[0][0])
    module_call = min(timeit.repeat(lambda: box[0](x), number=number, repeat=7)) / number - bare
    handle.remove()
    monitor = Monitor(model, sinks=[], every=10**9, fast_every=10**9)
    loss = torch.tensor(1.0)

    def step() -> None:
        with monitor.step(1):
            monitor.loss(loss)
            monitor.gradients()

    calls = min(timeit.repeat(step, number=number, repeat=7)) / number
    monitor.close()
    return {
        "skipped_step_us": 1e6 * calls,
        "hook_us": 1e6 * max(of_each),
        "hooks": len(hooks),
        "torch_us": 1e6 * (module_call - of_each[0]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--models", nargs="+", default=["demo", "large"], choices=["demo", "large"])
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {args.threads} thread(s)"
    print(f"{device}, torch {torch.__version__}, lightning {L.__version__}, Python {platform.python_version()}\n")
    rows = []
    print(f"{'model':8s} {'cadence':>8s} {'step, ms':>9s} {'ratio':>7s}   quartiles over {args.pairs} pairs")
    with tempfile.TemporaryDirectory() as directory:
        for name in args.models:
            for every in (10, 1):
                row = paired(name, every, args.pairs, 300 if name == "demo" else 20, Path(directory))
                rows.append(row)
                print(
                    f"{name:8s} {every:8d} {row['milliseconds']:9.2f} {row['ratio']:7.3f}   "
                    f"{row['low']:.3f} to {row['high']:.3f}",
                    flush=True,
                )
        print("\nin turn, blocks of ten steps, without Lightning:")
        for name in args.models:
            row = alternating(name, 10, 60 if name == "demo" else 6, Path(directory))
            rows.append(row)
            print(
                f"{name:8s} {10:8d} {row['milliseconds']:9.2f} {row['ratio']:7.3f}   "
                f"{row['low']:.3f} to {row['high']:.3f}",
                flush=True,
            )
    costs = idle()
    print(f"\nskipped step: {costs['skipped_step_us']:.2f} us in our calls")
    print(f"installed hooks, idle: {costs['hooks']:.0f}, {costs['hook_us']:.2f} us each at most,")
    print(f"and {costs['torch_us']:.2f} us that torch takes to call a module's first hook")
    if args.json:
        args.json.write_text(
            json.dumps({"device": device, "torch": torch.__version__, "rows": rows, "idle": costs}, indent=1)
        )


if __name__ == "__main__":
    main()
