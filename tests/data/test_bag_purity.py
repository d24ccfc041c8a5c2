"""Tiles that show one class alone: by their labels, by truth of training slides, by labels of slides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamella.data.bag_purity import (
    ANY_SLIDE,
    MASKS,
    NO_CLASS,
    ONE_OF_SEVERAL,
    ONLY_CLASS,
    TILE_LABELS,
    best_offers,
    covers,
)
from lamella.data.bags import Bag, WeakStudy
from lamella.geometry import Frame

SIDE = 8
BENIGN, TUMOR, BACKGROUND = range(3)


def bag(name: str, labels: tuple[int, ...] | None, **more: object) -> Bag:
    corners = np.array([[0.0, 0.0], [8.0, 0.0], [16.0, 0.0]])
    return Bag(name, Path(f"{name}.png"), Frame(24, 8, 0.5, 0.5), corners, labels, None, name, "train", **more)


def study_of(*bags: Bag) -> WeakStudy:
    values = {"benign": (1,), "tumor": (2, 3), "background": (0,)}
    return WeakStudy(("benign", "tumor"), "background", bags, 0.5, SIDE, values)


def told(study: WeakStudy, channel: int, pure: str = "auto", cover: float = 0.9) -> list[tuple[str, list[int], str]]:
    found = best_offers(study, study.bags, channel, pure, cover)
    return [(one.bag.slide_id, one.rows.tolist(), one.rule) for one in found]


@pytest.fixture
def masked(tmp_path: Path) -> Bag:
    """Tiles: all benign; 7 of 8 columns tumor; half background."""
    values = np.ones((8, 24), np.uint8)
    values[:, 8:15] = 2
    values[:4, 15] = 3
    values[:, 16:20] = 0
    Image.fromarray(values).save(tmp_path / "m.png")
    return bag("m", (1, 1), mask_path=tmp_path / "m.png")


def test_cover_is_exact(masked: Bag) -> None:
    study = study_of(masked)
    np.testing.assert_allclose(covers(study, masked, BENIGN), [1, 0.5 / 8, 0.5], atol=1e-12)
    np.testing.assert_allclose(covers(study, masked, TUMOR), [0, 7.5 / 8, 0], atol=1e-12)
    np.testing.assert_allclose(covers(study, masked, BACKGROUND), [0, 0, 0.5], atol=1e-12)


def test_truth_of_training_slides_picks_pure_tiles(masked: Bag) -> None:
    study = study_of(masked, bag("s", (1, 0)))
    assert told(study, BENIGN) == [("m", [0], MASKS)]
    assert told(study, TUMOR) == [("m", [1], MASKS)]
    assert told(study, TUMOR, cover=0.95) == [("m", [0, 1, 2], ONE_OF_SEVERAL)]
    assert told(study, TUMOR, "masks", 0.95) == []
    assert told(study, BACKGROUND) == []
    assert told(study, BACKGROUND, cover=0.5) == [("m", [2], MASKS)]
    assert told(study, BENIGN, "labels") == [("s", [0, 1, 2], ONLY_CLASS)]


def test_truth_of_a_class_that_the_label_denies_is_not_used(masked: Bag) -> None:
    study = study_of(replace(masked, labels=(1, 0)))
    assert told(study, TUMOR) == []


def test_slides_of_one_class_come_before_those_of_several() -> None:
    study = study_of(bag("a", (1, 1)), bag("b", (1, 0)), bag("c", (0, 0)))
    everything = [0, 1, 2]
    assert told(study, BENIGN) == [("b", everything, ONLY_CLASS)]
    assert told(study, TUMOR) == [("a", everything, ONE_OF_SEVERAL)]
    assert told(study, BACKGROUND) == [("c", everything, NO_CLASS)]
    assert told(study, BENIGN, "none") == [("a", everything, ANY_SLIDE), ("b", everything, ANY_SLIDE)]
    assert told(study, BENIGN, "masks") == []
    assert told(study_of(bag("a", (1, 1))), BACKGROUND) == []


def test_labels_of_tiles_come_first(masked: Bag) -> None:
    labelled = replace(masked, slide_id="t", tile_labels=np.array([[1, 0], [1, 1], [0, 0]], np.uint8))
    study = study_of(masked, labelled)
    assert told(study, BENIGN) == [("t", [0], TILE_LABELS)]
    assert told(study, BACKGROUND) == [("t", [2], TILE_LABELS)]
    assert told(study, TUMOR) == [("m", [1], MASKS), ("t", [1], MASKS)]  # no tile is labelled with it alone
    assert told(study, TUMOR, "labels")[0] == ("m", [0, 1, 2], ONE_OF_SEVERAL)
    assert told(study, BENIGN, "masks") == [("m", [0], MASKS), ("t", [0], MASKS)]
