"""What a scan of a prompt set costs: seconds, and memory as the number of prompts grows.

    python benchmarks/prompts.py [--prompts 1000] [--samples 8] [--tokens 32] [--threads 2]

A model of transformers with four layers of width 256, 1,000 words, random weights (so that nothing stops early: the
stop symbol comes with probability .001), prompts of 128 tokens. Memory is the peak of the process above that before the
scan, for the number of prompts and for a quarter of it.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from thermo_monitor.analysis.entropy_scan import entropy_scan


def model(width: int = 256, layers: int = 4, words: int = 1000):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=8, max_position_embeddings=512, bos_token_id=1, eos_token_id=0, pad_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def prompts(count: int, length: int = 128, words: int = 1000):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):  # one at a time: a list of them would be memory that grows
        yield torch.randint(words, (length,), generator=generator).tolist()


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("prompts", 1000), ("samples", 8), ("tokens", 32), ("threads", 2), ("batch", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    options = {"samples": asked.samples, "tokens": asked.tokens, "batch": asked.batch}
    subject = model()
    entropy_scan(subject, prompts(8), **options)
    before = megabytes()
    for count in (asked.prompts // 4, asked.prompts):
        start, worked = time.perf_counter(), time.process_time()
        found = entropy_scan(subject, prompts(count), **options)
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        print(
            f"{count} prompts of 128 tokens, {asked.samples} continuations of at most {asked.tokens}: "
            f"{seconds:.1f} s ({worked:.1f} s of processor), peak {megabytes() - before:+.0f} MB, "
            f"mean entropy {found.mean:.2f} nats",
            flush=True,
        )


if __name__ == "__main__":
    main()
