"""Tables in the documents that are written from the tests."""


def with_table(page, table, begin, end):
    """A page with a table in place of the one between its two marks."""
    head, _, rest = page.partition(f"{begin}\n")
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n{table}\n{end}{tail}"
