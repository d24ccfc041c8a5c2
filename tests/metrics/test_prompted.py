from __future__ import annotations

import numpy as np
import pytest

from lamella.metrics.prompted import (
    BOX,
    CLASS_DICE,
    CLICKS,
    DISK,
    OBJECT_DICE,
    REACHED,
    PromptedStudy,
    class_dice,
    clicks_needed,
    prompted_rows,
)
from lamella.metrics.report import Report, ReportError, Row
from lamella.metrics.segments.protocol import ORACLE, Protocol

ONES = np.ones((1, 3))
COUNTS = np.array([[8, 10, 10], [1, 2, 2], [0, 4, 4]])  # Dice 0.8, 0.5, 0
CHANNELS = np.array([0, 0, 1])


def study(**more: object) -> PromptedStudy:
    protocol = Protocol("prompted", True, "box", ("255 (not labelled)",), "s", ("gland", "vessel"), 0.5, "objects", 3)
    facts = {
        "title": "glands",
        "judged": "tuned",
        "counts": {
            "tuned": {"box": COUNTS, "1 click": COUNTS},
            "zero-shot": {"box": COUNTS, "1 click": np.array([[4, 10, 10], [1, 2, 2], [0, 4, 4]])},
            BOX: {"box": COUNTS},
            DISK: {"1 click": COUNTS},
        },
        "clicks": {"tuned": np.array([[0.5, 0.9], [0.85, 0.7], [0.1, 0.2]])},
        "items": np.array(["a", "a", "b"]),
        "groups": np.array(["p", "p", "q"]),
        "channels": CHANNELS,
        "classes": ("gland", "vessel"),
        "protocol": protocol,
    }
    return PromptedStudy(**{**facts, **more})


def test_a_class_is_its_objects_pixels_together_and_classes_weigh_alike() -> None:
    """Gland: 2 (8 + 1) / (12 + 12) = 0.75; vessel 0."""
    assert float(class_dice(COUNTS, CHANNELS, 2)(ONES)[0]) == pytest.approx((0.75 + 0) / 2)
    # A resample without vessels leaves that class out instead of counting it 0.
    assert float(class_dice(COUNTS, CHANNELS, 2)(np.array([[1.0, 1, 0]]))[0]) == pytest.approx(0.75)


def test_clicks_are_censored_where_the_goal_is_never_reached() -> None:
    needed, reached = clicks_needed(np.array([[0.5, 0.9, 0.2], [0.85, 0.1, 0.1], [0.1, 0.2, 0.84]]))
    assert needed.tolist() == [2, 1, 4]  # four: at least one more than were tried
    assert reached.tolist() == [True, True, False]


def test_every_row_is_headed_oracle_and_says_its_prompt() -> None:
    rows, sentences = prompted_rows(study())
    assert all(ORACLE in row.question for row in rows)
    assert all(row.protocol is not None and row.protocol.prompt == row.probe for row in rows)
    found = {(row.measure, row.probe, row.encoder): row.estimate.value for row in rows}
    assert found[CLASS_DICE, "box", "tuned"] == pytest.approx(0.375)
    assert found[OBJECT_DICE, "box", "tuned"] == pytest.approx(1.3 / 3)
    assert found["Dice of gland, objects pooled", "box", "tuned"] == pytest.approx(0.75)
    assert found[CLICKS, "up to 2 clicks", "tuned"] == pytest.approx((2 + 1 + 3) / 3)
    assert found[REACHED, "up to 2 clicks", "tuned"] == pytest.approx(2 / 3)
    censored = next(row for row in rows if row.measure == CLICKS)
    assert "1 of 3 never reach it and count 3" in censored.note
    assert "class and prompt given" in sentences[0]


def test_each_prompt_stands_beside_the_answer_without_a_model_that_it_makes_possible() -> None:
    rows, _ = prompted_rows(study())
    baselines = {(row.probe, row.baseline.name) for row in rows if row.measure == CLASS_DICE}
    assert baselines == {("box", BOX), ("1 click", DISK)}
    assert {row.encoder for row in rows if row.probe == "box" and row.measure == CLASS_DICE} == {
        "tuned", "zero-shot", BOX
    }  # fmt: skip


def test_models_are_compared_on_the_same_resamples() -> None:
    rows, sentences = prompted_rows(study())
    difference = next(row for row in rows if row.encoder == "tuned minus zero-shot" and row.probe == "box")
    assert difference.estimate.value == 0
    click = next(row for row in rows if row.encoder == "tuned minus zero-shot" and row.probe == "1 click")
    assert click.estimate.value == pytest.approx((0.75 - 2 * 5 / 24) / 2)
    assert len(sentences) == 3


def test_prompted_rows_never_share_a_table_with_automatic_ones() -> None:
    """Three tasks, three tables."""
    rows, _ = prompted_rows(study())
    automatic = Protocol(
        "automatic", False, "none", ("255 (not labelled)",), "s", ("gland", "vessel"), 0.5, "objects", 3
    )
    row = rows[0]
    other = Row(
        row.question, row.measure, row.probe, "automatic", row.estimate, row.baseline, "higher", protocol=automatic
    )
    Report("fine", rows)
    with pytest.raises(ReportError, match="rows of different protocols"):
        Report("mixed", [*rows, other])


def test_counts_of_other_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="counts of 2 of 3 objects"):
        study(counts={"tuned": {"box": COUNTS[:2]}})
