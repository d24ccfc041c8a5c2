"""Damaged DICOM files: an error that names the file or a successful read; never a crash, a hang, another's error.

Each is read, and de-identified, in a child process with bounded memory and time (`dicom_fuzz.py`).
"""

from __future__ import annotations

import pytest
from tests.faults.dicom_fuzz import NAMES, sources, sweep


def bad(start: int, stop: int) -> list[object]:
    return [one for one in sweep(start, stop) if one.outcome not in ("read", "error")]


def test_a_sample_of_mutations():
    assert not bad(0, 120)


@pytest.mark.slow
def test_a_thousand_mutations():
    outcomes = sweep(0, 1000)
    assert len(outcomes) == 1000
    assert not [one for one in outcomes if one.outcome not in ("read", "error")]
    # Each file and each kind of damage had its share, and damage was noticed more often than not.
    assert {one.source for one in outcomes} == set(NAMES) == set(sources())
    assert len({one.kind for one in outcomes}) == 6
    assert sum(one.outcome == "error" for one in outcomes) > 400
