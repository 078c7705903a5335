import json

import pytest

from tests.faults import ran, trainers


def test_every_cell_names_a_test(monkeypatch):
    assert trainers.missing() == []
    monkeypatch.setitem(trainers.CELLS, "resuming", ("test_lightning::test_that_is_not_there[x]", "", ""))
    assert trainers.missing() == ["test_lightning::test_that_is_not_there[x]"]


def test_every_cell_was_run_and_nothing_failed():
    tests = json.loads(trainers.RECORD.read_text())["tests"]
    assert set(tests) == set(trainers.named())
    for name, found in tests.items():
        assert found["tests"], f"{name} was not collected"
        assert not found["failed"], name


def test_the_page_has_the_matrix():
    page = trainers.PAGE.read_text()
    assert trainers.with_table(page) == page


@pytest.mark.parametrize(
    ("found", "word"),
    [
        ({"tests": 2, "passed": 2, "failed": 0, "skipped": []}, "passed"),
        ({"tests": 2, "passed": 1, "failed": 1, "skipped": []}, "FAILED: 1 of 2"),
        ({"tests": 0, "passed": 0, "failed": 0, "skipped": []}, "FAILED: 0 of 0"),
        ({"tests": 1, "passed": 0, "failed": 0, "skipped": ["no network"]}, "skipped: no network"),
        ({"tests": 3, "passed": 2, "failed": 0, "skipped": ["no network"]}, "passed, 2 of 3"),
    ],
)
def test_a_cell_says_what_became_of_its_tests(found, word):
    assert trainers.word("a::b", {"a::b": found}) == word
    assert trainers.word("refused: a::b", {"a::b": found}) == word.replace("passed", "refused")


def test_a_name_stands_for_tests_with_its_words_among_their_parameters():
    assert ran.stands_for("faults/test_x::test_y", "tests/faults/test_x.py::test_y[1-a]")
    assert ran.stands_for("test_x::test_y[a]", "tests/test_x.py::test_y[1-a]")
    assert not ran.stands_for("test_x::test_y[b]", "tests/test_x.py::test_y[1-a]")
    assert not ran.stands_for("test_x::test_y", "tests/test_x.py::test_y_too")
