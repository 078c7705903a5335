"""The monitor in a training loop of your own, and an attention that is written by hand.

The same task as in the first example. The model computes its softmax itself, so nothing can be overheard: one line,
``record_attention``, reports it. You will see the same two events, and at the end the last value of every reading.

    python examples/02_plain_loop.py
    tensorboard --logdir runs/examples
"""

import argparse

import torch
import torch.nn.functional as F

from thermo_monitor import Monitor, record_attention
from thermo_monitor.demo.modular import Block, Transformer, modular_addition


class HandWritten(Block):
    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        record_attention("blocks.0", q, k, causal=True)  # costs one attribute look-up while nothing listens
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.relu(self.up(x)))


def main(steps: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train, held_out = modular_addition(p=37)
    model = Transformer(p=37)
    hand_written = HandWritten(64, 4, 256)
    hand_written.load_state_dict(model.blocks[0].state_dict())
    model.blocks[0] = hand_written
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=3.0)

    with Monitor(model, optimizer, log_dir="runs/examples/plain", every=5, preset="grokking") as monitor:
        for step in range(steps):
            with monitor.step(step):
                loss = F.cross_entropy(model(train.tokens), train.answers)
                monitor.loss(loss)
                loss.backward()
                monitor.gradients()  # after backward, before clipping
                optimizer.step()
                optimizer.zero_grad()
            if step % 100 == 0:
                with torch.no_grad():
                    accuracy = (model(held_out.tokens).argmax(-1) == held_out.answers).float().mean()
                print(f"step {step:5d}  loss {loss.item():.2e}  held-out accuracy {accuracy.item():.2f}")
    print("\n".join(f"{key:32s} {value:10.4g}" for key, value in sorted(monitor.latest.items())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    main(parser.parse_args().steps)
