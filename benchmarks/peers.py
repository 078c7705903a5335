"""What others cost that watch a training, measured as ours is: the same model, in turn, in blocks of one training.

    python benchmarks/peers.py [--blocks 12] [--models demo large] [--json FILE]

Each watcher is on in one block of steps and off in the next; its figure is the ratio of the two, by wall clock and by
the processor time of the training's thread. Beside it: values that are brought to the host one by one in a measured
step, each of which waits for the device where there is one, and the bytes that leave the device.

Composer's two monitors are not the package but what they compute, written anew here after their documentation: it asks
for an older torch. A peer that is not installed is left out with a line; ``make benchmark`` installs them all in
``.venv-benchmark``, and ``make peers`` runs this there.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from thermo_monitor import Monitor

STEPS = {"demo": 10, "large": 4}  # of a block


class Watcher:
    """Stands beside a training; every method is called in the steps in which it is on."""

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        self.net, self.optimizer, self.folder = net, optimizer, folder
        self.log: list[dict[str, float]] = []

    def switch(self, on: bool) -> None:
        """A block begins."""

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Around a step."""
        yield

    def backward(self, loss: Tensor) -> None:
        """Gradients are complete."""

    def update(self) -> contextlib.AbstractContextManager[Any]:
        """Around the optimizer's step."""
        return contextlib.nullcontext()

    def after(self, loss: Tensor) -> None:
        """The optimizer has stepped."""

    def close(self) -> None:
        """The training is over."""


class Ours(Watcher):
    """Every measured step, to an event file and JSON lines as by default."""

    every = 1

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        super().__init__(net, optimizer, folder)
        self.on = True
        self.monitor = Monitor(
            net,
            optimizer,
            log_dir=folder,
            every=lambda step: self.on and step % self.every == 0,
            fast_every=lambda step: self.on,
        )

    def switch(self, on: bool) -> None:
        self.on = on

    def step(self, step: int) -> Any:
        return self.monitor.step(step)

    def backward(self, loss: Tensor) -> None:
        self.monitor.loss(loss)
        self.monitor.gradients()

    def close(self) -> None:
        self.monitor.close()


class OursByDefault(Ours):
    """Ours at its default cadence."""

    every = 10


class GradientNorms(Watcher):
    """What Composer's OptimizerMonitor logs under an optimizer that reports nothing itself: norms of the gradients."""

    def backward(self, loss: Tensor) -> None:
        norms = {n: torch.linalg.vector_norm(p.grad) for n, p in self.net.named_parameters() if p.grad is not None}
        norms["global"] = sum(x**2 for x in norms.values()) ** 0.5
        self.log.append({name: norm.item() for name, norm in norms.items()})


class Activations(Watcher):
    """What Composer's ActivationMonitor logs of the inputs and outputs of every module."""

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        found: dict[str, float] = {}
        handles = [m.register_forward_hook(partial(self._hook, n, found)) for n, m in self.net.named_modules()]
        yield
        for handle in handles:
            handle.remove()
        self.log.append(found)

    def _hook(self, name: str, found: dict[str, float], module: nn.Module, args: Any, output: Any) -> None:
        for kind, values in (("input", args), ("output", output if isinstance(output, tuple) else (output,))):
            for k, x in enumerate(values):
                if isinstance(x, Tensor) and x.is_floating_point():
                    x = x.detach()
                    difference = x - x.mean(-1, keepdim=True)
                    kurtosis = difference.pow(4).mean(-1) / difference.pow(2).mean(-1) ** 2
                    found[f"{name}.{kind}.{k}.norm"] = torch.linalg.vector_norm(x, dim=-1).mean().item()
                    found[f"{name}.{kind}.{k}.mean"] = x.mean().item()
                    found[f"{name}.{kind}.{k}.kurtosis"] = kurtosis.mean().item()
                    found[f"{name}.{kind}.{k}.max"] = x.amax(-1).mean().item()


class Wandb(Watcher):
    """``wandb.watch`` with gradients and parameters, in a run without a network."""

    package = "wandb"

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        super().__init__(net, optimizer, folder)
        self.wandb = importlib.import_module("wandb")
        self.run = self.wandb.init(mode="offline", dir=str(folder), settings=self.wandb.Settings(silent=True))

    def switch(self, on: bool) -> None:
        if on:
            self.run.watch(self.net, log="all", log_freq=1)
        else:
            self.run.unwatch(self.net)

    def after(self, loss: Tensor) -> None:
        self.run.log({"loss": loss.item()})

    def close(self) -> None:
        self.run.finish()


class Thermoclaw(Watcher):
    """Its observer of any optimizer."""

    package = "thermoclaw"

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        super().__init__(net, optimizer, folder)
        self.observer = importlib.import_module("thermoclaw").Observer(net, optimizer)

    def after(self, loss: Tensor) -> None:
        self.observer.step(loss=loss.item())


class Physfdt(Watcher):
    """Its ratio rho of fluctuation and dissipation."""

    package = "physfdt"

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        super().__init__(net, optimizer, folder)
        self.monitor = importlib.import_module("physfdt.torch_backend").FDRMonitor(optimizer)

    def update(self) -> contextlib.AbstractContextManager[Any]:
        return self.monitor.measure()


class EagerEntropy(Watcher):
    """Attention entropy as most scripts read it: the fused attention is left, and all weights are made."""

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> None:
        super().__init__(net, optimizer, folder)
        self.fused = F.scaled_dot_product_attention

    def switch(self, on: bool) -> None:
        F.scaled_dot_product_attention = self.eager if on else self.fused  # type: ignore[assignment]

    def eager(self, q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Tensor:
        z = q @ k.mT / q.shape[-1] ** 0.5
        if given.get("is_causal"):
            z = z.masked_fill(torch.ones(z.shape[-2:], dtype=torch.bool, device=z.device).triu(1), -torch.inf)
        weights = z.softmax(-1)
        self.log.append({"entropy": torch.special.entr(weights.detach()).sum(-1).mean().item()})
        return weights @ v

    def close(self) -> None:
        F.scaled_dot_product_attention = self.fused  # type: ignore[assignment]


class DeviceStats(Watcher):
    """What Lightning's DeviceStatsMonitor asks the machine for, before and after a batch."""

    package = "psutil"

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        from lightning.pytorch.accelerators.cpu import get_cpu_stats

        ask: Callable[[], dict[str, float]] = torch.cuda.memory_stats if torch.cuda.is_available() else get_cpu_stats
        self.log.append(ask())
        yield
        self.log.append(ask())


WATCHERS: dict[str, type[Watcher]] = {
    "thermo-monitor, default": OursByDefault,
    "thermo-monitor, every step": Ours,
    "wandb.watch(log='all')": Wandb,
    "Composer OptimizerMonitor (its logic)": GradientNorms,
    "Composer ActivationMonitor (its logic)": Activations,
    "thermoclaw Observer": Thermoclaw,
    "physfdt rho": Physfdt,
    "attention entropy, eager": EagerEntropy,
    "Lightning DeviceStatsMonitor (CPU)": DeviceStats,
}


class HostReads(TorchDispatchMode):
    """Values that are brought to the host one by one."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def one_step(watcher: Watcher | None, step: int, net: Any, optimizer: torch.optim.Optimizer) -> None:
    """A training step, watched or not."""
    with watcher.step(step) if watcher is not None else contextlib.nullcontext():
        loss = net.training_step(None, 0)
        loss.backward()
        if watcher is not None:
            watcher.backward(loss)
        with watcher.update() if watcher is not None else contextlib.nullcontext():
            optimizer.step()
        optimizer.zero_grad()
        if watcher is not None:
            watcher.after(loss)


def measured(name: str, model: str, blocks: int, folder: Path) -> dict[str, Any]:
    """Ratios of neighbouring blocks, on and off in turn."""
    from overhead import Module

    torch.manual_seed(0)
    net = Module(model)
    optimizer = net.configure_optimizers()
    watcher = WATCHERS[name](net, optimizer, folder)
    wall: dict[bool, list[float]] = {True: [], False: []}
    processor: dict[bool, list[float]] = {True: [], False: []}
    length, step = STEPS[model], 0
    for block in range(blocks + 1):  # the first one warms up
        for on in (True, False) if block % 2 else (False, True):
            watcher.switch(on)
            # Ours is asked in every step, and idle where it is off; the others are not called there.
            asked = watcher if on or isinstance(watcher, Ours) else None
            started, before = time.perf_counter(), time.thread_time()
            for _ in range(length):
                one_step(asked, step, net, optimizer)
                step += 1
            wall[on].append(time.perf_counter() - started)
            processor[on].append(time.thread_time() - before)
    with HostReads() as own:  # an optimizer may count its steps in tensors on the host
        one_step(None, step, net, optimizer)
    watcher.switch(True)
    step += -step % 10  # a full measurement of the default cadence
    if isinstance(watcher, Ours):
        watcher.monitor.flush()  # what is read in a step has come to the host before; numbers there are no device's
    with HostReads() as reads:
        one_step(watcher, step, net, optimizer)
    reads.count -= own.count
    moved = (
        watcher.monitor._meter.bytes / max(watcher.monitor.ticks, 1) if isinstance(watcher, Ours) else 4 * reads.count
    )
    watcher.switch(False)
    watcher.close()
    ratios = np.array(wall[True][1:]) / np.array(wall[False][1:])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {
        "watcher": name,
        "model": model,
        "blocks": blocks,
        "milliseconds": 1e3 * float(np.median(wall[False][1:])) / length,
        "ratio": float(middle),
        "low": float(low),
        "high": float(high),
        "processor": float(np.median(np.array(processor[True][1:]) / np.array(processor[False][1:]))),
        "host_reads": reads.count,
        "bytes": float(moved),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """For a page."""
    lines = [
        "| watches | model | step with it / without | quartiles | by processor time | ms added | host reads | bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        added = r["milliseconds"] * (r["ratio"] - 1)
        lines.append(
            f"| {r['watcher']} | {r['model']} | {r['ratio']:.3f} | {r['low']:.3f}-{r['high']:.3f} "
            f"| {r['processor']:.3f} | {added:.2f} of {r['milliseconds']:.1f} | {r['host_reads']} | {r['bytes']:.0f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--models", nargs="+", default=["demo", "large"], choices=list(STEPS))
    parser.add_argument("--only", nargs="+", default=list(WATCHERS), help="names of watchers")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ.setdefault("WANDB_SILENT", "true")
    rows: list[dict[str, Any]] = []
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as scratch:
        warnings.simplefilter("ignore")
        for model in args.models:
            for number, name in enumerate(args.only):
                package = getattr(WATCHERS[name], "package", None)
                if package is not None and importlib.util.find_spec(package) is None:
                    print(f"{name}: left out, {package} is not installed")
                    continue
                folder = Path(scratch) / f"{model}{number}"
                folder.mkdir()
                blocks = args.blocks if model == "demo" else max(2, args.blocks // 4)
                rows.append(measured(name, model, blocks, folder))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    if args.json:
        packages = {}
        for package in ("torch", "lightning", "wandb", "thermoclaw", "physfdt"):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                packages[package] = version(package)
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, 1 thread"
        args.json.write_text(
            json.dumps(
                {
                    "date": datetime.date.today().isoformat(),
                    "device": device,
                    "python": platform.python_version(),
                    "packages": packages,
                    "rows": rows,
                },
                indent=1,
            )
            + "\n"
        )
    print("\n" + table(rows))
    return rows


if __name__ == "__main__":
    main()
