"""Fisher information and temperatures of two trainings: mini-batch SGD, and AdamW.

A small transformer learns addition modulo 37 from mini-batches, once with each optimizer. You will see, per layer and
for the whole model, how much information a single example carries about the weights: exactly, with an error bar
(`fisher/trace_empirical`), with labels drawn from the model (`fisher/trace_mc`), and for free from the moments of Adam
(`fisher/trace_adam_proxy`). SGD has temperatures: that of its gradient noise, and, once the loss is stationary, those
of its weights. Under AdamW there are none, and the last column says why; what is left is the norm balance and the
temperature of the logits.

    python examples/04_fisher_and_temperature.py
    tensorboard --logdir runs/examples
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F

from thermo_monitor import Monitor
from thermo_monitor.demo.modular import Transformer, modular_addition
from thermo_monitor.presets import default
from thermo_monitor.probes import ExampleGradientProbe, FisherProbe, TemperatureProbe
from thermo_monitor.probes.fisher_proxy import FisherProxyProbe
from thermo_monitor.quantities import REASONS
from thermo_monitor.sinks import JsonlSink, MemorySink, TensorBoardSink

P, BATCH = 37, 128
SHOWN = (
    "loss/train",
    "fisher/trace_empirical",
    "fisher/trace_mc",
    "fisher/trace_adam_proxy",
    "fisher/gradient_noise_scale",
    "fisher/output_length",
    "opt/sgd_temperature",
    "opt/kinetic_temperature",
    "opt/configurational_temperature",
    "opt/fdr1_ratio",
    "opt/norm_balance",
    "opt/logit_temperature_proxy",
)


def train(name, optimizer_of, steps):
    torch.manual_seed(0)
    data, _ = modular_addition(P)
    model = Transformer(P, layers=2)
    optimizer = optimizer_of(model.parameters())
    probes = [probe for probe in default() if not isinstance(probe, FisherProxyProbe)]
    probes += [
        FisherProxyProbe(quantities=("fisher/trace_adam_proxy", "fisher/share_adam_proxy")),
        ExampleGradientProbe(examples=32, dataset=len(data.answers)),
        FisherProbe(data.tokens[:64]),
        TemperatureProbe(window=32),
    ]
    directory, memory = Path("runs/examples") / name, MemorySink()
    # Layers are numbered in the order of the model: positions, embedding, two blocks, unembedding.
    sinks = [TensorBoardSink(directory, layers=range(5)), JsonlSink(directory / "thermo.jsonl"), memory]
    generator = torch.Generator().manual_seed(0)
    with Monitor(model, optimizer, preset=probes, sinks=sinks) as monitor:
        for step in range(steps):
            with monitor.step(step):
                rows = torch.randint(len(data.answers), (BATCH,), generator=generator)
                loss = F.cross_entropy(model(data.tokens[rows]), data.answers[rows])
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()
                optimizer.step()
                optimizer.zero_grad()
    return memory


def show(name, memory):
    print(f"\n{name}")
    for key in SHOWN:
        reading = [r for r in memory.readings if r.quantity == key and r.layer is None][-1]
        if math.isnan(reading.value):
            print(f"  {key:34s}       none: {REASONS[reading.reason]}")
        else:
            error = "" if reading.error is None else f" +- {reading.error:.2g}"
            print(f"  {key:34s} {reading.value:10.4g}{error}")
    frame = [f for f in memory.frames if f.quantity == "fisher/share_empirical"][-1]
    shares = zip(frame.layers, frame.values[:, 0], strict=True)
    print("  shares of the layers in the empirical Fisher information:", end=" ")
    print(", ".join(f"{layer} {share:.2f}" for layer, share in shares if not math.isnan(share)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=2000)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    runs = {
        "04-sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
        "04-adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.1),
    }
    for name, optimizer_of in runs.items():
        show(name, train(name, optimizer_of, steps))


if __name__ == "__main__":
    main()
