"""Which trainer is followed in what it does, each cell with the test that shows it; part of docs/robustness.md.

python -m tests.faults.trainers
"""

from __future__ import annotations

import ast
from pathlib import Path

from tests import pages

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "robustness.md"
COLUMNS = ("Lightning", "transformers' Trainer", "loop of one's own, Accelerate, Fabric")

_PARITY = "test_trainer_parity::test_readings_agree"
_FIT = "test_noninterference::test_a_fit_comes_to_the_same"
_HF = "test_huggingface::test_a_training_comes_to_the_same"
_LOOP = "test_noninterference::test_what_a_loop_may_do_beside_comes_to_the_same"

CELLS: dict[str, tuple[str, str, str]] = {
    "the same readings to 1e-6, also under accumulation and clipping": (_PARITY, _PARITY, _PARITY),
    "bit-identical": (_FIT, _HF, "test_noninterference::test_a_plain_loop_comes_to_the_same"),
    "bit-identical in half precision": (_FIT, _HF, _LOOP),
    "bit-identical with a gradient scaler": ("", "", _LOOP),
    "bit-identical with gradient checkpointing": ("", _HF, _LOOP),
    "bit-identical under torch.compile": ("", _HF, _LOOP),
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


def missing() -> list[str]:
    """Cells that name no test."""
    found = []
    for row in CELLS.values():
        for cell in filter(None, row):
            file, _, name = cell.removeprefix("refused: ").partition("::")
            path = ROOT / "tests" / f"{file}.py"
            tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
            if not any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body):
                found.append(cell)
    return found


def with_table(text: str) -> str:
    """The page with this table in it."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for what, row in CELLS.items():
        cells = ["-" if not cell else "refused" if cell.startswith("refused") else "tested" for cell in row]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    words = "Each cell names a test in `tests/faults/trainers.py`; `-` is not applicable, or not tested.\n\n"
    return pages.with_table(text, words + "\n".join(lines), "<!-- trainers -->", "<!-- end of trainers -->")


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
