"""What Fisher information costs during training, and how exact it is, beside offline libraries.

    python benchmarks/fisher.py [--models mlp transformer gpt2-4 gpt2] [--batch 32] [--rounds 5] [--json F]

One training step (forward, backward, optimizer) is timed plain and with each way of getting the mean squared gradient
norm of single examples, in turn within each round; the figures are medians over the rounds, with the least and the
largest. Cost is the added time, in backward passes and as a multiple of the step. On a CPU it is processor time, one
thread, so that other programs matter less. The error is against the exact value, one backward pass for each example.

``transformer`` is four blocks without normalisation, nearly all of whose time is matrix products: the hard case.
``gpt2-4`` has the architecture of GPT-2 at the same size. BackPACK and curvlinops take part where they are installed
(``make benchmark`` puts them into ``.venv-benchmark``); a model that a library cannot take is "not supported". With a
CUDA device, GPT-2 small in bfloat16 is measured as well.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import importlib.util
import itertools
import json
import math
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from language import Language
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from thermo_monitor import Monitor
from thermo_monitor.probes import ExampleGradientProbe, FisherProxyProbe, Probe
from thermo_monitor.sinks import MemorySink

TRACE = "fisher/trace_empirical"


@dataclass
class Setting:
    """A model with its data and its optimizer."""

    name: str
    model: nn.Module
    inputs: Tensor
    labels: Tensor
    autocast: bool = False
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            logits = self.model(inputs)
            logits = logits if isinstance(logits, Tensor) else logits.logits
            return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def settings(names: list[str], batch: int = 32) -> list[Setting]:
    torch.manual_seed(0)
    found = []
    if "mlp" in names:
        layers = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
        found.append(Setting("mlp", nn.Sequential(*layers), torch.randn(128, 784), torch.randint(10, (128,))))
    if "transformer" in names:
        tokens = torch.randint(1000, (2, batch, 256))
        found.append(Setting("transformer", Language(), tokens[0], tokens[1]))
    if "small" in names:  # for the test of this script
        tokens = torch.randint(1000, (2, 4, 16))
        found.append(Setting("small", Language(width=32, length=16, layers=1), tokens[0], tokens[1]))
    if "gpt2-4" in names and util.find_spec("transformers"):
        _hide_broken_torchvision()
        from transformers import GPT2Config, GPT2LMHeadModel

        tokens = torch.randint(1000, (2, batch, 256))
        config = GPT2Config(
            vocab_size=1000, n_positions=256, n_embd=256, n_layer=4, n_head=8, attn_pdrop=0, embd_pdrop=0,
            resid_pdrop=0, use_cache=False, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        found.append(Setting("gpt2-4", GPT2LMHeadModel(config), tokens[0], tokens[1]))
    if "gpt2" in names and torch.cuda.is_available():
        from transformers import GPT2Config, GPT2LMHeadModel

        tokens = torch.randint(50257, (2, 16, 1024), device="cuda")
        model = GPT2LMHeadModel(GPT2Config(attn_pdrop=0, embd_pdrop=0, resid_pdrop=0)).cuda()
        found.append(Setting("gpt2", model, tokens[0], tokens[1], autocast=True))
    return found


# ------------------------------------------------------------------------------------------------ ways to the trace
Way = Callable[[], dict[str, float]]  # one training step, and what was read in it


def step(s: Setting, monitor: Monitor | None = None, number: int = 0) -> None:
    if monitor is not None:
        monitor.begin(number)
    loss = s.loss(s.inputs, s.labels)
    if monitor is not None:
        monitor.loss(loss)
    loss.backward()
    if monitor is not None:
        monitor.gradients()
    s.optimizer.step()
    s.optimizer.zero_grad()
    if monitor is not None:
        monitor.end()


def monitored(s: Setting, probe: Probe) -> Way:
    """A monitor that stays, as in a training: what its first step costs is not its cost."""
    sink = MemorySink()
    monitor = Monitor(s.model, s.optimizer, every=1, preset=[probe], sinks=[sink], strict=True)
    numbers = itertools.count()

    def way() -> dict[str, float]:
        clock = Clock(s)
        step(s, monitor, next(numbers))
        way.seconds = clock.seconds  # type: ignore[attr-defined]
        monitor.flush()
        return dict(monitor.latest)

    return way


class Clock:
    """Seconds since it was made: of the processor, or with a device of the clock, the device included."""

    def __init__(self, s: Setting) -> None:
        self.cuda = s.inputs.is_cuda
        self.start = self._now()

    def _now(self) -> float:
        if not self.cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    @property
    def seconds(self) -> float:
        return self._now() - self.start


def beside(s: Setting, measure: Callable[[Setting], float]) -> Way:
    """A training step, and the measurement after it."""

    def way() -> dict[str, float]:
        clock = Clock(s)
        step(s)
        value = measure(s)
        way.seconds = clock.seconds  # type: ignore[attr-defined]
        return {TRACE: value}

    return way


def torch_func(s: Setting) -> float:
    """Per-sample gradients of torch.func, all at once."""
    parameters = {name: p.detach() for name, p in s.model.named_parameters()}

    def one(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(s.model, parameters, (x[None],))
        logits = logits if isinstance(logits, Tensor) else logits.logits
        return F.cross_entropy(logits.flatten(0, -2), y.flatten())

    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no rule for vmap and would run example by example
        gradients = vmap(grad(one), in_dims=(None, 0, 0))(parameters, s.inputs, s.labels)
    return sum(g.flatten(1).square().sum(1).mean().item() for g in gradients.values())


def backpack(s: Setting) -> float:
    """BackPACK's ``BatchL2Grad``: a backward pass of its own through an extended model."""
    from backpack import backpack as extensions
    from backpack import extend
    from backpack.extensions import BatchL2Grad

    if not isinstance(s.model, nn.Sequential):
        raise NotImplementedError
    if not hasattr(s, "extended"):
        # A twin with the same parameters, because what it installs would stop the other libraries.
        twin = copy.deepcopy(s.model, {id(p): p for p in s.model.parameters()})
        s.extended = extend(twin), extend(nn.CrossEntropyLoss())  # type: ignore[attr-defined]
    model, criterion = s.extended  # type: ignore[attr-defined]
    loss = criterion(model(s.inputs), s.labels)
    with extensions(BatchL2Grad()):
        loss.backward()
    norms = sum(p.batch_l2 for p in s.model.parameters())
    s.model.zero_grad()
    return float(norms.mean()) * len(s.inputs) ** 2  # of gradients of the mean


def curvlinops(s: Setting) -> float:
    """Curvlinops' empirical Fisher operator, trace by ten Hutchinson probes."""
    from curvlinops import EFLinearOperator, hutchinson_trace

    parameters = [p for p in s.model.parameters() if p.requires_grad]
    criterion = nn.CrossEntropyLoss()
    if s.labels.dim() > 1:
        raise NotImplementedError  # its examples would be tokens
    operator = EFLinearOperator(s.model, criterion, parameters, [(s.inputs, s.labels)], check_deterministic=False)
    value = hutchinson_trace(operator, 10)
    return float(value)


_POSITIONS = ("position", "wpe.weight")  # learned ones, added to or looked up for the whole batch


def exact(s: Setting, covered: bool) -> float:
    """One backward pass for each example; without the learned positions where only what we cover is asked for."""
    total = 0.0
    parameters = [p for name, p in s.model.named_parameters() if not covered or not name.endswith(_POSITIONS)]
    for x, y in zip(s.inputs, s.labels, strict=True):
        gradients = torch.autograd.grad(s.loss(x[None], y[None]), parameters)
        total += sum(g.double().square().sum().item() for g in gradients)
    return total / len(s.inputs)


def ways(s: Setting) -> dict[str, Way]:
    quarter = max(2, len(s.inputs) // 4)
    found = {
        "all examples": monitored(s, ExampleGradientProbe(examples=None)),
        "a quarter of them": monitored(s, ExampleGradientProbe(examples=quarter)),
        "norm layers only": monitored(s, ExampleGradientProbe(examples=None, modules="norms")),
        "Adam proxy": monitored(s, FisherProxyProbe()),
    }
    if not s.autocast:
        found["torch.func"] = beside(s, torch_func)
    if util.find_spec("backpack"):
        found["BackPACK"] = beside(s, backpack)
    if util.find_spec("curvlinops"):
        found["curvlinops, 10 probes"] = beside(s, curvlinops)
    return found


# ----------------------------------------------------------------------------------------------------- measuring
def measure(s: Setting, rounds: int) -> dict[str, dict[str, Any]]:
    """Added time and error of each way, interleaved so that a machine whose speed drifts drifts for all."""
    everything = ways(s)
    plain: list[float] = []
    backward: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in everything}
    errors: dict[str, float] = {}
    shares: dict[str, float] = {}
    step(s)
    for turn in range(rounds + 1):  # the first round warms up, and is compared with the exact value
        clock = Clock(s)
        step(s)
        plain.append(clock.seconds)
        loss = s.loss(s.inputs, s.labels)
        clock = Clock(s)
        loss.backward()
        backward.append(clock.seconds)
        s.model.zero_grad()
        for name, way in list(everything.items()):
            ours = name in _OURS
            before = exact(s, covered=True) if turn == 0 and ours and name not in _NO_TRACE else math.nan
            try:
                found = way()
            except NotImplementedError:
                del everything[name]
                continue
            seconds[name].append(way.seconds)  # type: ignore[attr-defined]
            if turn == 0:  # the libraries measured after the step, with newer weights
                truth = before if ours else exact(s, covered=False)
                errors[name] = abs(found.get(TRACE, math.nan) / truth - 1)
                shares[name] = found.get("fisher/covered_share", math.nan)
    table: dict[str, dict[str, Any]] = {}
    for name, measured in seconds.items():
        if name not in everything:
            table[name] = {"supported": False}
            continue
        ratios = [x / y for x, y in zip(measured[1:], plain[1:], strict=True)]
        added = [(x - y) / z for x, y, z in zip(measured[1:], plain[1:], backward[1:], strict=True)]
        seconds_added = [x - y for x, y in zip(measured[1:], plain[1:], strict=True)]
        table[name] = {
            "supported": True,
            "step_ratio": statistics.median(ratios),
            "step_ratio_low": min(ratios),
            "step_ratio_high": max(ratios),
            "backwards": statistics.median(added),
            "added_milliseconds": 1e3 * statistics.median(seconds_added),
            "error": errors[name] if name not in _NO_TRACE else math.nan,
            "covered": shares[name],
        }
    table["plain"] = {"milliseconds": 1e3 * statistics.median(plain[1:])}
    return table


_OURS = ("all examples", "a quarter of them", "norm layers only", "Adam proxy")
_NO_TRACE = ("norm layers only", "Adam proxy")  # of another thing, or of the past


def show(name: str, table: dict[str, dict[str, Any]]) -> None:
    print(f"\n{name}: a plain step takes {table['plain']['milliseconds']:.1f} ms\n")
    print("| way | step with it / step | added, in ms | in backward passes | relative error | covered |")
    print("|---|---|---|---|---|---|")
    for way, row in table.items():
        if way == "plain":
            continue
        if not row["supported"]:
            print(f"| {way} | not supported | | | | |")
            continue
        error = "" if math.isnan(row["error"]) else f"{row['error']:.1e}"
        covered = "" if math.isnan(row["covered"]) else f"{100 * row['covered']:.1f} %"
        cost = f"{row['step_ratio']:.3f} ({row['step_ratio_low']:.2f} to {row['step_ratio_high']:.2f})"
        print(f"| {way} | {cost} | {row['added_milliseconds']:.1f} | {row['backwards']:.2f} | {error} | {covered} |")


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mlp", "transformer", "gpt2-4", "gpt2"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32, help="sequences, of the four-layer models")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}, one thread",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "sequences": options.batch,
        "rounds": options.rounds,
        "peers": {n: metadata.version(n) for n in ("backpack-for-pytorch", "curvlinops-for-pytorch") if _installed(n)},
        "models": {},
    }
    for s in settings(options.models, options.batch):
        result["models"][s.name] = table = measure(s, options.rounds)
        show(s.name, table)
        if options.json:  # each as soon as it is there
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(result, indent=1) + "\n")
    return result


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _hide_broken_torchvision() -> None:
    """BackPACK asks for torchvision; beside a torch of another build that cannot be loaded, nor could transformers."""
    try:
        import torchvision  # noqa: F401
    except Exception:
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, package=None: (
            None if name.split(".")[0] == "torchvision" else find(name, package)
        )


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
