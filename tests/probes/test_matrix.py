import pytest

from tests.probes import matrix


def test_the_page_is_what_the_tests_say():
    page = matrix.PAGE.read_text()
    assert matrix.with_table(page) == page


def test_a_mark_makes_a_cell_and_a_wrong_one_is_found():
    source = '@hears("causal", "HF sdpa", "HF eager")\n@refuses("sinks", "HF flex")\ndef test_it():\n    pass\n'
    assert matrix.marks(source) == [
        ("causal", "HF sdpa", "tested"), ("causal", "HF eager", "tested"), ("sinks", "HF flex", "refused"),
    ]  # fmt: skip
    for wrong in ('"causal", "HF spda"', '"casual", "HF sdpa"', '"causal"'):
        with pytest.raises(ValueError, match="no cell"):
            matrix.marks(f"@hears({wrong})\ndef test_it():\n    pass\n")
    with pytest.raises(ValueError, match="no test"):
        matrix.marks('@hears("causal", "HF sdpa")\ndef helper():\n    pass\n')


def test_a_page_that_is_out_of_date_is_found(monkeypatch):
    monkeypatch.setitem(matrix.NOT_APPLICABLE, "torch.func transforms", ("HF flash",))
    page = matrix.PAGE.read_text()
    assert matrix.with_table(page) != page


def test_no_cell_is_both():
    assert set(matrix.cells().values()) == {"tested", "refused", "not applicable"}
