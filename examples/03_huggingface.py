"""One callback in a transformers Trainer.

A small GPT-2 learns forty lines of made-up words by heart, with gradient accumulation and clipping. You will see in
the terminal from when on the lines are memorized, and at the end the last value of every reading.
Nothing is downloaded. Then look at the curves:

    python examples/03_huggingface.py
    tensorboard --logdir runs/examples
"""

import argparse
import random

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from thermo_monitor.huggingface import ThermoMonitor

LETTERS = "abcdefghijklmnopqrstuvwxyz "
SYLLABLES = ("ka", "lo", "mi", "ru", "sen", "ta", "vo", "zi")


def lines(count: int = 40, length: int = 24, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Lines of one length; each begins with two letters of its own, so that the rest can be known."""
    generator = random.Random(seed)
    found = []
    for index in range(count):
        words = ["".join(generator.choices(SYLLABLES, k=generator.randint(1, 3))) for _ in range(length)]
        text = LETTERS[index // 8] + LETTERS[index % 8] + " " + " ".join(words)
        tokens = torch.tensor([LETTERS.index(letter) for letter in text[:length]])
        labels = tokens.clone()
        labels[:2] = -100  # nothing tells which line comes
        found.append({"input_ids": tokens, "labels": labels})
    return found


def main(steps: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the model is too small for two
    config = GPT2Config(
        vocab_size=len(LETTERS), n_positions=24, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    monitor = ThermoMonitor(every=5)  # this line, and its name below, is all that is added
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir="runs/examples",  # ours go to the folder "thermo" in it
            max_steps=steps,
            per_device_train_batch_size=20,
            gradient_accumulation_steps=2,
            max_grad_norm=1.0,
            learning_rate=4e-3,
            lr_scheduler_type="constant",
            save_strategy="no",
            logging_steps=50,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=lines(),
        callbacks=[monitor],
    )
    trainer.train()
    print("\n".join(f"{key:32s} {value:10.4g}" for key, value in sorted(monitor.monitor.latest.items())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    main(parser.parse_args().steps)
