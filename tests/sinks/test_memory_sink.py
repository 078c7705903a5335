import math

import numpy as np

from thermo_monitor.records import Event, Reading
from thermo_monitor.sinks import Frame, MemorySink, Tick


def test_everything_is_kept_in_order():
    sink = MemorySink()
    first = Tick(0, 0.0, [Reading(0, "loss/train", 2.0)], [Frame(0, "attn/entropy", np.ones((2, 3)))])
    sink.write(first)
    sink.write(Tick(1, 1.0, [Reading(1, "loss/train", 1.0)]))
    event = Event("shift", 1, 1)
    sink.event(event)
    sink.close()
    assert [r.value for r in sink.readings] == [2.0, 1.0]
    assert sink.frames == list(first.frames)
    assert sink.events == [event]


def test_series_is_model_wide_and_keeps_nan():
    sink = MemorySink()
    sink.write(
        Tick(
            4,
            0.0,
            [
                Reading(4, "attn/entropy", 1.0),
                Reading(4, "attn/entropy", 9.0, layer=0),
                Reading(4, "attn/entropy", 8.0, layer=0, head=1),
                Reading(4, "loss/train", 7.0),
            ],
        )
    )
    sink.write(Tick(8, 0.0, [Reading(8, "attn/entropy", math.nan, reason="n_lt_2")]))
    steps, values = sink.series("attn/entropy")
    np.testing.assert_array_equal(steps, [4, 8])
    np.testing.assert_array_equal(values, [1.0, math.nan])
    assert steps.dtype == np.int64
    assert values.dtype == np.float64


def test_series_of_an_unheard_quantity_is_empty():
    steps, values = MemorySink().series("attn/entropy")
    assert steps.shape == values.shape == (0,)
