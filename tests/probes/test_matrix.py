from tests.probes import matrix


def test_every_cell_names_a_test():
    assert matrix.missing() == []


def test_a_cell_without_its_test_is_found(monkeypatch):
    wrong = ("tested test_functions::test_that_is_not_there", *matrix.CELLS["causal"][1:])
    monkeypatch.setitem(matrix.CELLS, "causal", wrong)
    assert matrix.missing() == [wrong[0]]


def test_the_page_has_the_matrix():
    page = matrix.PAGE.read_text()
    assert matrix.with_table(page) == page
