"""Whatever fails in the monitor, the training comes to the same, and nothing that was written is lost."""

import json

import pytest

from tests.faults import cases

ROWS = list(cases.TABLE)


@pytest.mark.parametrize(("part", "fault"), ROWS, ids=[f"{part}-{fault}".replace(" ", "_") for part, fault in ROWS])
def test_a_fault_hurts_nothing_else(part, fault, tmp_path, spoken):
    run, happens = cases.TABLE[part, fault]
    assert run(fault, tmp_path) == happens
    if happens in ("off", "anew"):
        assert len([text for text in spoken if "is switched off" in text or "was deleted" in text]) == 1


def test_every_case_was_run_and_passed():
    found = json.loads(cases.RECORD.read_text())["tests"][cases.TEST]
    assert found["tests"] == found["passed"] == len(ROWS)


def test_the_page_has_the_table():
    page = cases.PAGE.read_text()
    assert cases.with_table(page) == page
