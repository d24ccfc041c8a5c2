"""Which question MODEL and DATA ask of each other: the three tasks are told apart by the model, never by a setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamella.config import Request
from lamella.imaging.datasets.collection import Collection
from lamella.verbs import evaluate


@pytest.mark.parametrize(
    ("segments", "answers", "asked"),
    [(True, False, "automatic"), (False, True, "prompted"), (False, False, "images")],
)
def test_the_model_decides_the_task(segments, answers, asked, monkeypatch):
    toys = Collection("toys", "image", (), lambda item: None)
    monkeypatch.setattr(evaluate, "segmenters_in", lambda path: (path,) if segments else ())
    monkeypatch.setattr(evaluate, "is_promptable", lambda spec: answers)
    monkeypatch.setattr(evaluate, "open_data", lambda request: toys)
    called = []
    monkeypatch.setattr(evaluate.automatic, "run", lambda *given: called.append("automatic") or 0)
    monkeypatch.setattr(evaluate.prompted, "run_prompted_evaluation", lambda *given: called.append("prompted") or 0)
    monkeypatch.setattr(evaluate.images, "run", lambda *given: called.append("images") or 0)
    assert evaluate.run(Request("evaluate", (Path("model"), Path("toys.csv")))) == 0
    assert called == [asked]
