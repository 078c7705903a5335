"""What the rate-distortion entropy of a large representation costs: seconds of wall and of processor.

    python benchmarks/representation.py --threads 2

The Gram matrix has the smaller side of the two; with one thread the processor's seconds are those of an idle machine.
"""

import argparse
import statistics
import time

import torch

from thermo_monitor.physics import normalised_gram, representation_entropy_from_gram

SHAPES = ((8192, 4096), (4096, 8192), (512, 4096))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for n, d in SHAPES:
        z = torch.randn(n, d)
        wall, cpu = [], []
        for _ in range(options.repeats):
            started, spent = time.perf_counter(), time.process_time()
            gram = normalised_gram(z)
            value = representation_entropy_from_gram(gram, None, d)
            wall.append(time.perf_counter() - started)
            cpu.append(time.process_time() - spent)
        side = gram.shape[-1]
        print(
            f"{n} x {d}: wall {statistics.median(wall):.2f} s, processor {statistics.median(cpu):.2f} s with "
            f"{options.threads} threads; matrix {side} x {side}, H_norm {float(value):.4f}"
        )


if __name__ == "__main__":
    main()
