from tests.faults import trainers


def test_every_cell_names_a_test(monkeypatch):
    assert trainers.missing() == []
    monkeypatch.setitem(trainers.CELLS, "resuming", ("test_lightning::test_that_is_not_there", "", ""))
    assert trainers.missing() == ["test_lightning::test_that_is_not_there"]


def test_the_page_has_the_matrix():
    page = trainers.PAGE.read_text()
    assert trainers.with_table(page) == page
