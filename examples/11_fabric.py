"""The monitor in a loop of your own that Lightning Fabric runs, with accumulation, clipping and half precision.

The same task as in the first example. Fabric wraps the model and the optimizer; the monitor is given what Fabric gives
back, and nothing else changes. You will see from when on the training set is memorized, and at the end the last value
of every reading. Where there are several processes, the first one writes.

    python examples/11_fabric.py
    tensorboard --logdir runs/examples
"""

import argparse

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric

from thermo_monitor import Monitor
from thermo_monitor.demo.modular import Transformer, modular_addition

PARTS = 2  # micro-batches of an optimizer step


def main(steps: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    train, held_out = modular_addition(p=37)
    model = Transformer(p=37)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=3.0)
    model, optimizer = fabric.setup(model, optimizer)

    log_dir = "runs/examples/fabric" if fabric.is_global_zero else None
    with Monitor(model, optimizer, log_dir=log_dir, every=5, preset="grokking") as monitor:
        for step in range(steps):
            with monitor.step(step):
                for tokens, answers in zip(train.tokens.chunk(PARTS), train.answers.chunk(PARTS), strict=True):
                    loss = F.cross_entropy(model(tokens), answers)
                    monitor.loss(loss)
                    fabric.backward(loss / PARTS)
                monitor.gradients()  # after the last backward, before clipping
                fabric.clip_gradients(model, optimizer, max_norm=1.0)
                optimizer.step()
                optimizer.zero_grad()
            if step % 100 == 0:
                with torch.no_grad():
                    accuracy = (model(held_out.tokens).argmax(-1) == held_out.answers).float().mean()
                fabric.print(f"step {step:5d}  loss {loss.item():.2e}  held-out accuracy {accuracy.item():.2f}")
    fabric.print("\n".join(f"{key:32s} {value:10.4g}" for key, value in sorted(monitor.latest.items())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    main(parser.parse_args().steps)
