"""Which attention is heard on which route, each cell with the test that shows it; writes the table of docs/capture.md.

    python -m tests.probes.matrix

A cell names a test of this folder, after the word that says what the test shows. What has no cell is not applicable.
"""

from __future__ import annotations

import ast
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent.parent / "docs" / "capture.md"
ROUTES = ("sdpa function", "MultiheadAttention", "HF sdpa", "HF eager", "HF flash", "HF flex", "record_attention")
T, R = "tested", "refused"
_F, _M, _H, _E, _C = "test_functions", "test_multihead", "test_transformers", "test_explicit", "test_compile"
_WEIGHTS = f"{T} {_H}::test_the_weights_are_those_of_the_eager_model"
_SAME = f"{T} {_H}::test_outputs_gradients_and_random_numbers_do_not_change"
_PASSES = f"{T} test_passes"
_FLEX = f"{T} {_H}::test_flex_attention_under_its_own_key"
_TOLD = f"{T} {_E}::test_what_flex_attention_was_given_can_be_reported"
_COMPILED = f"{T} {_C}::test_a_compiled_model_trains_as_it_would_and_is_heard"

CELLS: dict[str, tuple[str, ...]] = {
    "causal": (
        f"{T} {_F}::test_the_weights_are_those_of_torch", f"{T} {_M}", _WEIGHTS, _WEIGHTS, _WEIGHTS,
        _FLEX, _TOLD,
    ),
    "padding": (
        f"{T} {_F}::test_the_weights_are_those_of_torch", f"{T} {_M}", _WEIGHTS, _WEIGHTS, _WEIGHTS,
        _FLEX, f"{T} {_E}::test_everything_reported_is_heard",
    ),
    "grouped queries": (
        f"{T} {_F}::test_the_weights_are_those_of_torch", "", _WEIGHTS, _WEIGHTS, _WEIGHTS,
        _FLEX, _TOLD,
    ),
    "sliding window": (
        f"{T} {_F}::test_the_weights_are_those_of_torch", f"{T} {_M}", _WEIGHTS, _WEIGHTS, _WEIGHTS,
        _FLEX, _TOLD,
    ),
    "additive bias, ALiBi": (
        f"{T} {_F}::test_a_position_bias_does_not_mask", f"{T} {_M}",
        f"{T} {_H}::test_encoder_decoder_and_cross_attention_with_position_bias",
        f"{T} {_H}::test_encoder_decoder_and_cross_attention_with_position_bias", "", "",
        _TOLD,
    ),
    "cross-attention": (
        f"{T} {_F}::test_the_weights_are_those_of_torch", f"{T} {_M}",
        f"{T} {_H}::test_encoder_decoder_and_cross_attention_with_position_bias",
        f"{T} {_H}::test_encoder_decoder_and_cross_attention_with_position_bias", "", "", "",
    ),
    "soft cap": (
        "", "", "", f"{T} {_H}::test_a_cap_on_the_logits_and_layers_with_and_without_a_window",
        f"{T} {_H}::test_a_cap_on_the_logits_and_layers_with_and_without_a_window", "",
        f"{T} {_E}::test_caps_and_sinks_can_be_reported",
    ),
    "sinks": (
        "", "", "", f"{T} {_H}::test_sinks_are_one_more_state", "", "",
        f"{T} {_E}::test_caps_and_sinks_can_be_reported",
    ),
    "packed sequences": (
        "", "", "", "", f"{T} {_H}::test_packed_sequences_do_not_see_each_other", "", "",
    ),
    "paged attention": ("", "", f"{R} {_H}::test_paged_attention_is_refused_and_the_layer_named", "", "", "", ""),
    "nested tensors, masks of a class of their own": (
        f"{R} {_F}::test_what_cannot_be_read_is_absent_with_one_line", "", "", "", "", "", "",
    ),
    "torch.func transforms": (
        f"{R} {_F}::test_function_transforms_are_refused_and_leak_nothing", "", "", "", "", "",
        f"{R} {_E}::test_a_report_inside_a_function_transform_is_refused",
    ),
    "same outputs, gradients, random numbers": (
        f"{T} {_F}::test_outputs_and_gradients_do_not_change", f"{T} {_M}", _SAME, _SAME, _SAME,
        _FLEX, "",
    ),
    "called again in one pass": (
        f"{_PASSES}::test_a_module_that_is_called_again_is_a_site_of_its_own", "",
        f"{_PASSES}::test_a_model_inside_the_model_that_is_called_twice", "", "", "", "",
    ),
    "two models in one process": (
        f"{T} {_C}::test_two_models_and_two_monitors_keep_two_graphs_each", "",
        f"{T} test_installation::test_two_monitors_close_in_any_order",
        f"{T} test_installation::test_two_monitors_close_in_any_order", "", "", "",
    ),
    "gradient checkpointing": (
        f"{_PASSES}::test_a_recomputed_layer_counts_once", "", f"{_PASSES}::test_checkpointing_of_transformers",
        f"{_PASSES}::test_checkpointing_of_transformers", "", "", "",
    ),
    "torch.compile": (
        _COMPILED, f"{R} {_C}::test_multihead_attention_in_compiled_code_is_refused_by_name", _COMPILED, "", "", "",
        f"{T} {_C}::test_a_program_that_reports_by_hand_can_be_compiled",
    ),
    "torch.compile with checkpointing": (
        f"{R} {_C}::test_checkpointing_of_plain_calls_inside_compiled_code_is_absent", "",
        f"{T} {_C}::test_checkpointing_inside_compiled_code_counts_once", "", "", "", "",
    ),
}  # fmt: skip


def table() -> str:
    """The matrix as markdown."""
    lines = [f"| | {' | '.join(ROUTES)} |", "|" + "---|" * (len(ROUTES) + 1)]
    lines += [f"| {feature} | {' | '.join(cell.partition(' ')[0] for cell in row)} |" for feature, row in CELLS.items()]
    return "\n".join(lines)


def missing() -> list[str]:
    """Tests that cells name and that are not there, and rows that do not have a cell for every route."""
    found = [feature for feature, row in CELLS.items() if len(row) != len(ROUTES)]
    for cell in {cell for row in CELLS.values() for cell in row if cell}:
        word, _, where = cell.partition(" ")
        name, _, test = where.partition("::")
        path = FOLDER / f"{name}.py"
        tests = (
            {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}
            if path.exists()
            else set()
        )
        if word not in (T, R) or not tests or (test and test not in tests):
            found.append(cell)
    return found


def with_table(page: str) -> str:
    """A page with the matrix in place of the one between its two marks."""
    head, _, rest = page.partition("<!-- matrix -->\n")
    _, _, tail = rest.partition("<!-- end -->")
    return f"{head}<!-- matrix -->\n{table()}\n<!-- end -->{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
