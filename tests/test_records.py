import json
import math

import pytest

from thermo_monitor.records import Event, Reading


@pytest.mark.parametrize("value", [0.5, -0.0, 1e300, math.nan, math.inf, -math.inf])
def test_a_reading_survives_strict_json(value):
    reading = Reading(7, "attn/entropy", value, layer=2, head=1, error=0.1, reason="non_finite")
    text = reading.to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    back = Reading.from_json(text)
    assert back == reading or (math.isnan(value) and math.isnan(back.value))
    assert "\n" not in text


def test_what_is_none_is_left_out_of_a_reading():
    assert set(json.loads(Reading(0, "loss/train", 1.0).to_json())) == {"type", "step", "quantity", "value"}


def test_an_event_survives_strict_json_and_readers_ignore_what_they_do_not_know():
    event = Event(
        "shift", 10, 7, "down", "repr/spectral_entropy", math.nan, "generalization", "fell", 6, 8, "a:1", "info", 5.0,
        {"before": math.inf, "parts": [1, (2.0, math.nan)]},
    )  # fmt: skip
    data = json.loads(event.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    data["unheard_of"] = 1
    back = Event.from_json(json.dumps(data))
    assert (back.kind, back.step, back.onset_low, back.id, back.level) == ("shift", 10, 6, "a:1", "info")
    assert math.isnan(back.evidence)
    assert back.details["parts"][1] == [2.0, None]
    assert data["schema"] == 1


def test_records_are_frozen():
    with pytest.raises(AttributeError):
        Reading(0, "loss/train", 1.0).value = 2.0
