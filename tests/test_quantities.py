import math

import pytest

from thermo_monitor import presets, quantities
from thermo_monitor.physics.canonical import ROW_QUANTITIES


def test_every_quantity_that_a_probe_can_give_is_in_the_registry():
    for name, preset in presets.PRESETS.items():
        for probe in preset():
            for key in probe.quantities:
                assert key in quantities.REGISTRY, (name, key)


def test_every_function_of_a_row_has_an_entry_and_its_bounds_hold_at_the_extremes():
    assert {f"attn/{name}" for name in ROW_QUANTITIES} <= set(quantities.REGISTRY)


def test_what_is_watched_says_what_matters_and_belongs_to_a_group():
    watched = [q for q in quantities.REGISTRY.values() if q.watched]
    assert watched
    for q in watched:
        assert math.isfinite(q.minimum_effect), q.key
        assert q.minimum_effect_transformed > 0, q.key
        assert q.group, q.key


def test_every_entry_explains_itself():
    for key, q in quantities.REGISTRY.items():
        assert key == q.key == f"{q.family}/{key.partition('/')[2]}"
        assert q.name
        assert q.formula
        assert q.meaning
        assert q.unit
        assert q.low < q.high


def test_an_unknown_key_names_its_neighbours():
    with pytest.raises(ValueError, match="attn/specific_heat"):
        quantities.get("attn/specific_heet")
