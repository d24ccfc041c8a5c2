"""The colour baseline of stage 4: learnt from the same labels as the models, and from no mask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lamella.data.bag_tiles import read_tiles
from lamella.data.bags import Bag, WeakStudy
from lamella.errors import LamellaError
from lamella.metrics.segments.colour import WINDOWS_PX, ColourRule
from lamella.metrics.segments.confusion import confusion_of
from lamella.metrics.segments.weak_colour import WeakColourSample, fit_weak_colour_rule, sample_weak_colours
from lamella.slides.slide import open_slide
from lamella.verbs.progress import progress
from lamella.verbs.weak_stages.evaluation_counts import Work
from lamella.verbs.weak_stages.evaluation_judged import judged_truth, read_rows
from lamella.verbs.weak_stages.evaluation_models import Panel

COLOUR = "colour alone, from the same labels (logistic regression)"
_PIXELS, _TILES = 40_000, 400  # in all; ten numbers a class are fitted, and tiles differ more than their pixels


def colour_counts(work: Work, panel: Panel, bags: Sequence[Bag]) -> tuple[np.ndarray | None, str]:
    """(N, C, C + 1) counts of the colour rule, fitted without the group of the slide it judges; a sentence on it.

    Args:
        work: What is judged.
        panel: The judged models: slides that one of them judges together share a rule.
        bags: In the order of the table.

    Returns:
        None where too little can be learnt, and why.
    """
    rules: dict[tuple[int, ...], ColourRule] = {}
    unread: set[str] = set()
    for numbers in dict.fromkeys(panel.judged[bag.slide_id] for bag in bags):
        barred = {bag.group for bag in bags if panel.judged[bag.slide_id] == numbers}
        rule = fit_weak_colour_rule(_samples(work.study, barred, work.seed, unread), work.background)
        if rule is None:
            return None, "No colour baseline: a class is in all labelled training slides, or in none"
        rules[numbers] = rule
    found = [_counted(work, bag, rules[panel.judged[bag.slide_id]]) for bag in progress(bags, "colour")]
    told = "; ".join(sorted({rule.told for rule in rules.values()}))
    if unread:
        told += f"; without {len(unread)} slides that cannot be read: {', '.join(sorted(unread))}"
    return np.stack(found), f"Colour alone was fitted on the labels of training {work.study.group_noun}s: {told}"


def _counted(work: Work, bag: Bag, rule: ColourRule) -> np.ndarray:
    judged, count = work.judged(bag), len(work.study.channels)
    matrix = np.zeros((count, count + 1), np.int64)
    halo = max(WINDOWS_PX) // 2
    with open_slide(bag.wsi_path, mpp=bag.mpp_stated) as slide:
        for y0, y1 in judged.bands:
            top, bottom = max(0, y0 - halo), min(judged.frame.height_px, y1 + halo)
            called = rule.predict(read_rows(slide, judged.frame, top, bottom))[y0 - top : y1 - top]
            matrix += confusion_of(judged_truth(judged, y0, y1), called, count)
    return matrix


def _samples(study: WeakStudy, barred: set[str], seed: int, unread: set[str]) -> list[WeakColourSample]:
    """Pixels of labelled slides of other groups; of the train part where there is one. `unread` gets the others."""
    labelled = [bag for bag in study.bags if bag.group not in barred and len(bag) and _has_labels(bag)]
    trained = [bag for bag in labelled if bag.part == "train"] or labelled
    return list(_drawn(study, trained, seed, unread))


def _has_labels(bag: Bag) -> bool:
    return bag.labels is not None or bag.tile_labels is not None


def _drawn(study: WeakStudy, bags: Sequence[Bag], seed: int, unread: set[str]) -> Iterator[WeakColourSample]:
    rng = np.random.default_rng(seed)
    if len(bags) > _TILES:
        bags = [bags[number] for number in np.sort(rng.choice(len(bags), _TILES, replace=False))]
    each = max(1, _TILES // max(1, len(bags)))
    for bag in progress(bags, "colours"):
        rows = np.sort(rng.choice(len(bag), min(each, len(bag)), replace=False))
        try:
            tiles = read_tiles(study, bag, rows)
        except LamellaError:
            print(f"colour: {bag.slide_id} cannot be read and teaches no colours")
            unread.add(bag.slide_id)
            continue
        count = max(1, _PIXELS // max(1, len(bags) * len(rows)))
        if bag.tile_labels is not None:
            for row, pixels in zip(rows, tiles, strict=True):
                yield sample_weak_colours(pixels, bag.tile_labels[row], count, seed=seed)
        else:
            assert bag.labels is not None
            samples = [sample_weak_colours(pixels, bag.labels, count, seed=seed) for pixels in tiles]
            yield WeakColourSample(np.concatenate([s.colours_WP3 for s in samples], axis=1), samples[0].labels_C)
