"""Which trainer is followed in what it does, each cell with the test that shows it; part of docs/robustness.md.

python -m tests.faults.trainers          writes the table from the last run
python -m tests.faults.trainers --run    runs the tests first
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

from tests import pages
from tests.faults import ran

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "robustness.md"
RECORD = Path(__file__).parent / "trainers.json"
COLUMNS = ("Lightning", "transformers' Trainer", "loop of one's own, Accelerate, Fabric")

_PARITY = "test_trainer_parity::test_readings_agree"
_FIT = "test_noninterference::test_a_fit_comes_to_the_same"
_HF = "test_huggingface::test_a_training_comes_to_the_same"
_LOOP = "test_noninterference::test_what_a_loop_may_do_beside_comes_to_the_same"
_RANKS = "test_ranks::test_trainers_on_two_ranks_read_as_on_one"

# A cell names a test, with words that are among its parameters where it is not about all of them.
CELLS: dict[str, tuple[str, str, str]] = {
    "the same readings to 1e-6, also under accumulation and clipping": (f"{_PARITY}[lightning]", _PARITY, _PARITY),
    "bit-identical": (
        f"{_FIT}[32-true]", f"{_HF}[plain]", "test_noninterference::test_a_plain_loop_comes_to_the_same",
    ),
    "bit-identical in half precision": (f"{_FIT}[bf16]", f"{_HF}[bf16]", f"{_LOOP}[scaler]"),
    "bit-identical with a gradient scaler": ("", "", f"{_LOOP}[scaler]"),
    "bit-identical with gradient checkpointing": ("", f"{_HF}[checkpointing]", f"{_LOOP}[checkpointing]"),
    "bit-identical under torch.compile": ("", f"{_HF}[compiled]", f"{_LOOP}[compiled]"),
    "two ranks with replicas (DDP): the readings of one process to 1e-5": (
        f"{_RANKS}[lightning]", f"{_RANKS}[transformers]", "test_ranks::test_two_ranks_with_replicas_read_as_one",
    ),
    "two ranks with replicas (DDP): bit-identical": (
        "", "", "test_ranks::test_nothing_changes_bit_for_bit[ddp]",
    ),
    "two ranks with shards (FSDP2): the readings of one process to 1e-5": (
        "", "", "test_ranks::test_two_ranks_with_shards_read_as_one",
    ),
    "two ranks with shards (FSDP2): bit-identical": (
        "", "", "test_ranks::test_nothing_changes_bit_for_bit[fsdp2]",
    ),
    "closures that are evaluated several times": (
        "test_closures::test_a_fit_reads_the_first_evaluation_once",
        "",
        "test_closures::test_a_plain_loop_reads_the_first_evaluation_once",
    ),
    "several optimizers, optimization by hand": (
        "test_lightning_rest::test_two_networks_optimized_by_hand_come_to_the_same",
        "",
        "test_closures::test_two_optimizers_in_one_step_are_no_closure",
    ),
    "resuming": (
        "test_lightning_rest::test_a_fit_goes_on_from_its_last_model_checkpoint",
        "test_huggingface::test_a_resumed_training_goes_on_where_it_was",
        "soak/test_killed::test_a_killed_run_goes_on_without_a_repeated_or_a_lost_event",
    ),
    "a second fit": (
        "test_lightning_resume::test_a_second_fit_of_the_same_trainer_counts_on",
        "test_huggingface::test_the_next_training_removes_what_the_last_one_left",
        "",
    ),
    "errors and interrupts": (
        "test_exceptions::test_a_fit_that_breaks_is_left_clean",
        "test_huggingface::test_nothing_listens_after_an_error",
        "test_exceptions::test_the_users_error_passes_and_the_step_is_forgotten",
    ),
    "held-out metrics": (
        "test_lightning::test_held_out_metrics_reach_the_monitor_once_for_each_evaluation",
        "test_huggingface::test_evaluations_are_read_as_held_out_metrics",
        "",
    ),
    "validation alone": ("test_lightning_rest::test_a_validation_alone_is_no_training", "", ""),
    "searches for learning rate and batch size": (
        "test_lightning_rest::test_a_search_before_a_fit_comes_to_the_same_and_is_no_part_of_it", "", "",
    ),
    "LightningCLI": (
        "test_lightning_rest::test_the_command_line_reads_the_callback_from_its_configuration", "", "",
    ),
    "several loggers": (
        "test_lightning_rest::test_several_loggers_at_once_each_get_theirs",
        "test_huggingface::test_other_reporters_get_numbers_as_logs",
        "",
    ),
    "W&B without a network": ("test_lightning_rest::test_wandb_without_a_network_gets_the_numbers", "", ""),
    "MLflow in a folder": ("test_lightning_rest::test_mlflow_in_a_folder_gets_the_numbers", "", ""),
    "one name of Lightning, or both": (
        "test_lightning_names::test_a_trainer_of_what_is_loaded_accepts_the_callback", "", "",
    ),
    "DeepSpeed": ("", "refused: test_huggingface::test_deepspeed_is_refused_by_name", ""),
}  # fmt: skip


def named() -> list[str]:
    """The tests of all cells."""
    return [cell.removeprefix("refused: ") for row in CELLS.values() for cell in row if cell]


def missing() -> list[str]:
    """Cells that name no test."""
    found = []
    for cell in named():
        file, _, name = cell.partition("[")[0].partition("::")
        path = ROOT / "tests" / f"{file}.py"
        tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
        if not any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body):
            found.append(cell)
    return found


def word(cell: str, tests: dict[str, Any]) -> str:
    """What the last run says of a cell."""
    if not cell:
        return "-"
    found = tests[cell.removeprefix("refused: ")]
    if found["failed"] or not found["tests"]:
        return f"FAILED: {found['failed']} of {found['tests']}"
    if not found["passed"]:
        return "skipped: " + "; ".join(found["skipped"])
    shown = "refused" if cell.startswith("refused") else "passed"
    return shown if found["tests"] == found["passed"] else f"{shown}, {found['passed']} of {found['tests']}"


def with_table(text: str) -> str:
    """The page with this table in it."""
    record = json.loads(RECORD.read_text())
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for what, row in CELLS.items():
        lines.append(f"| {what} | {' | '.join(word(cell, record['tests']) for cell in row)} |")
    words = (
        "Each cell is what became of the tests that `tests/faults/trainers.py` names for it, in the run of\n"
        f"{ran.said(record)};\n`python -m tests.faults.trainers --run` runs them again. "
        "*refused*: absent, and said so; `-` is not applicable, or not tested.\n\n"
    )
    return pages.with_table(text, words + "\n".join(lines), "<!-- trainers -->", "<!-- end of trainers -->")


if __name__ == "__main__":
    if sys.argv[1:] == ["--run"]:
        ran.save(RECORD, ran.run(named()))
    PAGE.write_text(with_table(PAGE.read_text()))
