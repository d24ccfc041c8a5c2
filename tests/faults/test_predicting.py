"""`lamella predict` stopped in the middle of a slide. The harness takes larger numbers by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.test_runs import harness, own_name_space


def test_killed_in_mid_slide_and_resumed_the_bytes_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    (tally,) = harness("predicting", tmp_path, "kill", "--kills", 3, limit_s=240)
    assert (tally["kills"], tally["differences"]) == (3, [])
    assert tally["finished"] >= 1


@pytest.mark.skipif(not own_name_space(), reason="this system lets nobody mount a small disk")
@pytest.mark.slow  # the killed one below is in the default suite
def test_on_a_disk_that_fills_up_in_mid_slide_it_stops_and_goes_on_where_there_is_room(tmp_path: Path) -> None:
    (told,) = harness("predicting", tmp_path, "disk", "--steps", 1, before=("unshare", "-rm"), limit_s=240)
    assert told["wrong"] == []
