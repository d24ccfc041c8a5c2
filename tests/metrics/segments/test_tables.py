from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lamella.metrics.report import Report
from lamella.metrics.segments.boundary import Outlines
from lamella.metrics.segments.confusion import confusion_of
from lamella.metrics.segments.measures import ANY_TISSUE, IMAGE_DICE, MEAN_DICE
from lamella.metrics.segments.objects import TrueObjects
from lamella.metrics.segments.protocol import Protocol, split_digest
from lamella.metrics.segments.scored import Scored, SegmentStudy
from lamella.metrics.segments.tables import EXCHANGED, image_table, segment_rows

CLASSES = ("background", "gland", "tumour")
N, SIDE = 12, 24
UM = (1.0, 1.0)


def images(seed: int) -> list[np.ndarray]:
    """A square of gland on every image, one of tumour on every third."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(N):
        truth = np.zeros((SIDE, SIDE), np.uint8)
        y, x = rng.integers(1, 6, 2)  # clear of the edge, which is no outline
        truth[y : y + 8, x : x + 8] = 1
        if number % 3 == 0:
            truth[14:22, 14:22] = 2
        found.append(truth)
    return found


def scored(truths: list[np.ndarray], called: list[np.ndarray]) -> Scored:
    matrices, boundaries, objects = [], [], []
    for truth, predicted in zip(truths, called, strict=True):
        unknown = np.zeros(truth.shape, bool)
        matrices.append(confusion_of(truth, predicted, 3))
        boundaries.append(Outlines(truth, unknown, UM, 3).scores(Outlines(predicted, unknown, UM, 3), 1.0))
        objects.append(TrueObjects(truth, 3, 1.0, (100.0,), 0).found(predicted))
    return Scored(np.stack(matrices), np.stack(boundaries), np.stack(objects))


def study() -> SegmentStudy:
    truths = images(0)
    shifted = [np.roll(truth, 1, axis=1) for truth in truths]
    scores = {"model": scored(truths, shifted), "colour": scored(truths, images(1))}
    for number, name in enumerate(CLASSES):
        scores[f"all {name}"] = scored(truths, [np.full_like(truth, number) for truth in truths])
    items = [f"i{number}" for number in range(N)]
    groups = [f"p{number // 2}" for number in range(N)]
    split = split_digest(zip(items, groups, strict=True))
    protocol = Protocol("automatic", False, "none", (), split, CLASSES, 1.0, "pixels", N)
    return SegmentStudy(
        "toys",
        "model",
        scores,
        tuple(f"all {name}" for name in CLASSES),
        np.array(items),
        np.array(groups),
        CLASSES,
        0,
        protocol,
        tolerance_um=1.0,
        longest_um=SIDE * np.sqrt(2),
        sizes_um2=(100.0,),
        control=scored(truths, shifted[2:] + shifted[:2]),
    )


@pytest.fixture(scope="module")
def rows():
    return segment_rows(study())[0]


def value(rows, measure: str, name: str = "model"):
    return next(row for row in rows if row.measure == measure and row.encoder == name)


def test_numbers_are_those_of_plain_formulas(rows):
    truths = images(0)
    truth, called = np.stack(truths), np.roll(np.stack(truths), 1, axis=2)
    each = {}
    for number, name in ((1, "gland"), (2, "tumour")):
        own, said = truth == number, called == number
        each[name] = 2 * (own & said).sum() / (own.sum() + said.sum())
        assert value(rows, f"Dice of {name}").estimate.value == pytest.approx(each[name])
        assert value(rows, f"IoU of {name}").estimate.value == pytest.approx((own & said).sum() / (own | said).sum())
    assert value(rows, MEAN_DICE).estimate.value == pytest.approx(sum(each.values()) / 2)
    means = []
    for own, said in zip(truth, called, strict=True):
        dice = [
            2 * ((own == c) & (said == c)).sum() / ((own == c).sum() + (said == c).sum())
            for c in (1, 2)
            if ((own == c) | (said == c)).any()
        ]
        means.append(np.mean(dice))
    found = value(rows, IMAGE_DICE)
    assert found.estimate.value == pytest.approx(np.mean(means))
    assert f"worst {min(means):.2f} (i{int(np.argmin(means))})" in found.note


def test_every_row_has_interval_baseline_and_protocol_and_the_report_takes_them(rows):
    report = Report("t", rows)
    assert {row.protocol for row in report.rows} == {study().protocol}
    assert {row.estimate.groups for row in rows} == {6}
    assert value(rows, MEAN_DICE).baseline.name == "all gland"
    assert value(rows, MEAN_DICE).control.name == EXCHANGED
    assert value(rows, MEAN_DICE).control.value < value(rows, MEAN_DICE).estimate.value


def test_any_tissue_stands_beside_the_classes_under_the_name_it_deserves(rows):
    assert "says nothing about classes" in ANY_TISSUE
    assert value(rows, ANY_TISSUE).better == "neither"
    measures = list(dict.fromkeys(row.measure for row in rows))
    assert measures.index(MEAN_DICE) < measures.index(ANY_TISSUE) < measures.index("Dice of gland")


def test_false_positives_are_of_images_without_the_class(rows):
    found = value(rows, "false positives: share of an image without tumour that is called tumour")
    assert found.estimate.value == 0
    assert found.note == "absent from 8 images; called in 0 of them"
    assert found.baseline.name in ("all background", "all gland")
    assert value(rows, found.measure, "colour").estimate.value == 0
    assert found.better == "lower"


def test_objects_count_objects_and_outlines_have_the_best_constant_beside_them(rows):
    small = value(rows, "recall of gland objects below 100 µm²")
    assert small.estimate.n == N
    assert small.estimate.value == 1  # 7 of 8 columns are hit
    far = value(rows, "HD95 in µm of gland")
    assert far.estimate.value == pytest.approx(1)
    assert far.baseline.value == pytest.approx(SIDE * np.sqrt(2))  # nothing drawn: the diagonal
    assert value(rows, "boundary F1 within 1 µm of gland").estimate.value == 1


def test_constants_have_rows_of_dice_only(rows):
    assert {row.measure for row in rows if row.encoder == "all gland"} == {
        MEAN_DICE,
        IMAGE_DICE,
        ANY_TISSUE,
        "Dice of gland",
        "Dice of tumour",
    }


def test_differences_are_paired_and_told():
    found, sentences = segment_rows(study())
    against = value(found, f"difference: {MEAN_DICE}", "model minus colour")
    both = [value(found, MEAN_DICE, name).estimate.value for name in ("model", "colour")]
    assert against.estimate.value == pytest.approx(both[0] - both[1])
    assert any("model is better than all background" in sentence for sentence in sentences)
    same = replace(study(), scored={"model": study().scored["model"], "twin": study().scored["model"]}, constants=())
    twin = value(segment_rows(same)[0], f"difference: {MEAN_DICE}", "model minus twin").estimate
    assert (twin.value, twin.low, twin.high) == (0, 0, 0)


def test_intervals_resample_patients_not_images():
    """Twice the images of the same patients tell nothing more."""
    first = study()
    twice = {
        name: Scored(*(np.concatenate([part, part]) for part in (each.matrices, each.boundaries, each.objects)))
        for name, each in first.scored.items()
    }
    doubled = replace(
        first,
        scored=twice,
        items=np.concatenate([first.items, [f"{item} again" for item in first.items]]),
        groups=np.tile(first.groups, 2),
        protocol=replace(first.protocol, n=2 * N),
        control=None,
    )
    one, two = (value(segment_rows(each)[0], MEAN_DICE).estimate for each in (first, doubled))
    assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high))


def test_a_predictor_that_was_not_scored_on_every_image_is_refused():
    """Mistake of the source: a different n in each row."""
    first = study()
    short = replace(first.scored["colour"], matrices=first.scored["colour"].matrices[1:])
    with pytest.raises(ValueError, match="colour was scored on 11 of 12 images"):
        replace(first, scored={**first.scored, "colour": short})
    with pytest.raises(ValueError, match="the protocol is of 11 images"):
        replace(first, protocol=replace(first.protocol, n=11))


def test_the_table_of_images_has_every_predictor_and_leaves_undefined_cells_empty():
    lines = image_table(study())
    assert len(lines) == N * 5
    assert lines[1]["dice tumour"] is None
    assert lines[1]["n_present"] == 1
    assert {line["protocol"] for line in lines} == {study().protocol.hash}
