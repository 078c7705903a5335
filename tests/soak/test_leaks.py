"""The beginning of ``python -m tests.soak.leaks``, which has 20,000 ticks."""

from tests.soak import leaks


def test_nothing_grows_with_the_ticks_but_the_log(spoken):
    rows = leaks.watch(400, looks=4)
    half, last = rows[1], rows[-1]
    assert {row["hooks"] for row in rows} == {half["hooks"]}
    assert {row["threads"] for row in rows} == {half["threads"]}
    assert last["blocks"] - half["blocks"] < 40 * 200  # the windows of the detectors are still filling
    assert last["resident"] - half["resident"] < 6 * 2**20
    assert (last["log"] - half["log"]) / 200 < 1.3 * leaks.BYTES  # no frame is thinned out yet


def test_a_leak_would_show(spoken, monkeypatch):
    kept = []

    class Keeps(leaks.Monitor):
        def end(self):
            super().end()
            kept.append([[step] for step in range(100)])

    monkeypatch.setattr(leaks, "Monitor", Keeps)
    rows = leaks.watch(40, looks=4)
    assert rows[-1]["blocks"] - rows[1]["blocks"] > 40 * 20
