"""Curves of the page that a scan writes."""

import numpy as np
import pytest

from thermo_monitor.page import _chart


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("n", [60, 6000])
def test_a_curve_is_drawn_in_as_many_pieces_as_it_has(n, log):
    steps, values = np.arange(float(n)), np.linspace(1.0, 2.0, n)
    assert _chart((steps, values), log, [], 0.0, n).count("<polyline") == 1
    values[n // 3 : n // 2] = np.nan
    drawn = _chart((steps, values), log, [], 0.0, n)
    assert drawn.count("<polyline") == 2
    assert "nan" not in drawn
    assert "<polyline" not in _chart((steps, np.full(n, np.nan)), log, [], 0.0, n)
