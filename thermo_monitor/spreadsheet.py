"""Tables for spreadsheets, in which no text from a log can start a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> str:
    r"""A cell of a CSV file; a text that a spreadsheet would take for a formula gets an apostrophe in front.

    Example:
        >>> cell('=HYPERLINK("x")'), cell(-1.5), cell("-1 is a text")
        ('"\'=HYPERLINK(""x"")"', '-1.5', "'-1 is a text")
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = "".join(c for c in str(value) if c >= " " or c in "\t\r\n")
        text = "'" + text if text.lstrip(" \n").startswith(_FORMULA) else text
    else:
        text = "" if isinstance(value, float) and math.isnan(value) else repr(value)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r') else text


def csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A CSV file with a header."""
    return "".join(",".join(cell(value) for value in row) + "\r\n" for row in [columns, *rows])
