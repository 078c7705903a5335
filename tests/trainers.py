"""Short trainings with transformers' Trainer, quiet and always the same, and the same training as a plain loop."""

import warnings

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from transformers import TrainerCallback as TrainerCallback

from tests.models import VOCABULARY, batches


def gpt2(dropout=0.0, **options):
    """A GPT-2 of two layers with the same weights every time."""
    torch.manual_seed(0)
    given = {
        "vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0,
        "eos_token_id": 0, "resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout,
    }  # fmt: skip
    return GPT2LMHeadModel(GPT2Config(**given | options))


def examples(count, length=8, seed=1, padded=False):
    """Single examples, in order; with padding at the end, of another length each, where wanted."""
    tokens = [row for batch in batches(count, 1, length, seed) for row in batch]
    found = []
    for index, row in enumerate(tokens):
        labels = row.clone()
        labels[0] = -100  # predicted from nothing; versions differ in whether they count it
        mask = torch.ones_like(row)
        if padded:
            labels[length - index % 4 :] = -100
            mask[length - index % 4 :] = 0
        found.append({"input_ids": row, "attention_mask": mask, "labels": labels})
    return found


def collate(rows):
    """A batch of them."""
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


class InOrder(Trainer):
    """Takes the examples as they come."""

    def _get_train_sampler(self, *args, **options):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def trainer(
    tmp_path, *callbacks, model=None, data=None, kind=InOrder, evaluation=None, trainer_options=None, **options
):
    """A trainer without bar, reports and checkpoints."""
    given = {
        "output_dir": str(tmp_path), "max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 1e-2,
        "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "weight_decay": 0.01, "report_to": "none",
        "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "use_cpu": True, "seed": 0,
    }  # fmt: skip
    given |= options
    need = given["max_steps"] * 4 * given.get("gradient_accumulation_steps", 1)
    return kind(
        model=gpt2() if model is None else model,
        args=TrainingArguments(**given),
        train_dataset=examples(need) if data is None else data,
        eval_dataset=evaluation,
        data_collator=collate,
        callbacks=list(callbacks),
        **(trainer_options or {}),
    )


def run(trainer, **options):
    """Train while the library's advice is not an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train(**options)
    return trainer
