"""Batches of weakly labelled tiles."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data.tiny_bags import TILE, bag_of, colour_of, study_of

from lamella.data.bag_batches import BagBatches, BagBatchSettings
from lamella.data.bag_units import field_px0, target_of
from lamella.data.segmentation_augment import NO_CHANGE, SegmentationAugmentSettings
from lamella.errors import DatasetError, SlideError

PLAIN = SegmentationAugmentSettings(**NO_CHANGE)  # type: ignore[arg-type]


def settings(**changes: object) -> BagBatchSettings:
    return BagBatchSettings(**{"batch_size": 4, "tiles_per_bag": 3, "augment": PLAIN, **changes})  # type: ignore[arg-type]


@pytest.fixture
def slides(tmp_path: Path) -> BagBatches:
    bags = [bag_of(tmp_path, n, labels) for n, labels in enumerate([(1, 0), (0, 1), (1, 1), (0, 0)])]
    return BagBatches(study_of(bags), bags, settings(), 7)


def test_a_sample_is_several_tiles_of_one_slide_with_its_label(slides: BagBatches) -> None:
    batch = slides.batch(0)
    assert batch["image"].shape == (12, 3, TILE, TILE)
    assert batch["image"].dtype == torch.uint8
    assert batch["bag"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for position in range(4):
        drawn = slides.drawn(position)
        own = slice(3 * position, 3 * position + 3)
        assert len(set(drawn.rows)) == 3
        for image, row in zip(batch["image"][own], drawn.rows, strict=True):
            assert tuple(image[:, 5, 5].tolist()) == colour_of(drawn.bag, row)
        label, known = slides.target(drawn.bag, 0)
        assert (batch["label"][own].numpy() == label).all()
        assert (batch["known"][own].numpy() == known).all()


def test_background_is_unknown_unless_a_slide_has_no_class(tmp_path: Path) -> None:
    study = study_of([])
    assert [each.tolist() for each in target_of(study, (1, 0))] == [[1, 0, 0], [1, 1, 0]]
    assert [each.tolist() for each in target_of(study, (0, 0))] == [[0, 0, 1], [1, 1, 1]]
    without = study_of([], background=None)
    assert [each.tolist() for each in target_of(without, (0, 0))] == [[0, 0], [1, 1]]


def test_a_batch_is_a_function_of_the_step(slides: BagBatches) -> None:
    again = pickle.loads(pickle.dumps(slides))  # noqa: S301 as a worker gets it
    for step in (0, 5):
        first, second = slides.batch(step), again.batch(step)
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(slides.batch(0)["image"], slides.batch(1)["image"])


def test_ranks_share_a_step(slides: BagBatches) -> None:
    whole = slides.batch(3)
    shares = [slides.batch(3, rank, 2) for rank in range(2)]
    assert all(torch.equal(whole[key], torch.cat([share[key] for share in shares])) for key in whole)


def test_all_tiles_of_a_slide_are_drawn_in_time(slides: BagBatches) -> None:
    """Mistake of the source: one random tile, or the first, stood for a slide."""
    seen = {(drawn.bag, row) for drawn in map(slides.drawn, range(60)) for row in drawn.rows}
    assert seen == {(bag, row) for bag in range(4) for row in range(4)}


def test_an_epoch_shows_each_tile_once_but_of_large_slides_not_all(tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, n, (1, 0)) for n in range(4)]
    samples = BagBatches(study_of(bags), bags, settings(), 0)
    assert (samples.tiles_per_sample, samples.tiles_per_step, samples.tiles_per_epoch) == (3, 12, 18)  # 16 tiles
    assert BagBatches(study_of(bags), bags, settings(samples_per_epoch=5), 0).tiles_per_epoch == 15
    large = [replace(bag, corners_px0=np.zeros((100_000, 2))) for bag in bags]
    assert BagBatches(study_of(large), large, settings(), 0).tiles_per_epoch == 10_002


def test_a_small_slide_gives_its_tiles_again(tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, 0, (1, 0), tiles=2)]
    drawn = BagBatches(study_of(bags), bags, settings(tiles_per_bag=5), 0).drawn(0)
    assert sorted(Counter(drawn.rows).values()) == [2, 3]


def test_rare_classes_come_as_often_as_common_ones(tmp_path: Path) -> None:
    labels = [(1, 0)] * 9 + [(0, 1)]
    bags = [bag_of(tmp_path, n, each, tiles=1) for n, each in enumerate(labels)]
    counts = {
        sampler: Counter(
            BagBatches(study_of(bags), bags, settings(sampler=sampler), 0).drawn(n).bag == 9 for n in range(300)
        )
        for sampler in ("balanced", "uniform")
    }
    assert 110 < counts["balanced"][True] < 190
    assert 10 < counts["uniform"][True] < 55


def test_a_patient_with_many_slides_does_not_outweigh_one_with_few(tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, n, (1, 0), tiles=1, group="p" if n < 9 else "q") for n in range(10)]
    samples = BagBatches(study_of(bags), bags, settings(), 0)
    assert 60 < sum(samples.drawn(n).bag == 9 for n in range(200)) < 140


def test_labels_of_patches_are_of_each_tile(tmp_path: Path) -> None:
    tile_labels = np.array([[1, 0], [0, 1], [0, 0]], np.uint8)
    bags = [bag_of(tmp_path, 0, None, tiles=3, tile_labels=tile_labels), bag_of(tmp_path, 1, (1, 0), tiles=1)]
    samples = BagBatches(study_of(bags, labels_are="patch"), bags, settings(batch_size=30), 0)
    assert (len(samples), samples.tiles_per_step, samples.tiles_per_epoch) == (4, 30, 4)
    batch = samples.batch(0)
    assert "bag" not in batch
    seen = set()
    for place, image in enumerate(batch["image"]):
        drawn = samples.drawn(place)
        (row,) = drawn.rows
        own = tile_labels[row] if drawn.bag == 0 else np.array([1, 0])
        assert batch["label"][place, :2].tolist() == own.tolist()
        assert tuple(image[:, 0, 0].tolist()) == colour_of(drawn.bag, row)
        seen.add((drawn.bag, row))
    assert len(seen) == 4


def test_one_label_for_several_tiles_is_no_label_of_patches(tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, 0, (1, 0), tiles=4)]
    with pytest.raises(DatasetError, match="labels_are=slide"):
        BagBatches(study_of(bags, labels_are="patch"), bags, settings(), 0)


def test_nothing_labelled_is_an_error(tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, 0, None)]
    with pytest.raises(DatasetError, match="no slide that is trained on has one"):
        BagBatches(study_of(bags), bags, settings(), 0)


def test_tiles_that_cannot_be_read_are_an_error(slides: BagBatches) -> None:
    """Mistake of the source: blank pixels were put in their place."""
    for bag in slides.bags:
        bag.wsi_path.write_bytes(b"no image")
    with pytest.raises(SlideError):
        slides.batch(0)


def test_tiles_are_varied_and_the_same_again(tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, 0, (1, 0))]
    varied = BagBatches(study_of(bags), bags, BagBatchSettings(batch_size=2, tiles_per_bag=3), 0)
    plain = BagBatches(study_of(bags), bags, settings(batch_size=2), 0)
    assert torch.equal(varied.batch(0)["image"], varied.batch(0)["image"])
    assert not torch.equal(varied.batch(0)["image"], plain.batch(0)["image"])
    assert torch.equal(varied.tiles(0, [0, 1]), plain.tiles(0, [0, 1]))


# ---- several levels -------------------------------------------------------------------------------------------------


def test_several_spacings_are_drawn_and_keep_the_tiles_size(tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, 0, (1, 0)), bag_of(tmp_path, 1, (0, 1))]
    samples = BagBatches(study_of(bags), bags, settings(mpps=(0.5, 1.0)), 0)
    assert {samples.drawn(n).mpp for n in range(30)} == {0.5, 1.0}
    assert samples.batch(0)["image"].shape == (12, 3, TILE, TILE)
    wide = samples.tiles(0, [1], 1.0)[0]
    middle = wide[:, TILE // 2 - 4 : TILE // 2 + 4, TILE // 2 - 4 : TILE // 2 + 4]
    assert tuple(middle.float().mean((1, 2)).tolist()) == colour_of(0, 1)


def test_a_wider_field_stays_on_the_slide(tmp_path: Path) -> None:
    bag = bag_of(tmp_path, 0, (1, 0))
    study = study_of([bag])
    own, wide = field_px0(bag, 0, study, 0.5), field_px0(bag, 0, study, 1.0)
    assert (own.x0, own.y0, own.width) == (16, 16, 32)
    assert (wide.x0, wide.y0, wide.width, wide.height) == (0, 0, 64, 64)
    middle = field_px0(bag, 2, study, 1.0)
    assert middle.center[0] == field_px0(bag, 2, study, 0.5).center[0]


def test_a_field_larger_than_a_slide_is_refused(tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, 0, (1, 0))]
    with pytest.raises(DatasetError, match=r"larger than 1 slide\(s\): s00"):
        BagBatches(study_of(bags), bags, settings(mpps=(2.0,)), 0)


def test_a_labelled_patch_has_one_spacing(tmp_path: Path) -> None:
    bags = [bag_of(tmp_path, 0, (1, 0), tiles=1)]
    with pytest.raises(DatasetError, match="the field that was labelled"):
        BagBatches(study_of(bags, labels_are="patch"), bags, settings(mpps=(1.0,)), 0)
