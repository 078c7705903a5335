"""A few kills; ``make soak`` has fifty."""

import json
import subprocess
import sys


def test_a_killed_run_goes_on_without_a_repeated_or_a_lost_event():
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak.killed", "--kills", "3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["killed"] >= 3
    assert found["finished"] >= 1
