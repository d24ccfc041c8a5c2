"""The colour baseline of a segmentation: fitted on what the judging model was trained on, never on what is judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lamella.data.splits import group_folds
from lamella.errors import ImageError
from lamella.imaging.datasets.collection import Item
from lamella.metrics.segments.colour import ColourRule, ColourSample, fit_colour_rule, sample_colours
from lamella.verbs.evaluation.scoring import Scoring
from lamella.verbs.progress import progress

_PIXELS = 20_000  # in all; ten numbers a class are fitted to them
_FOLDS = 5  # where the data hold no image that the model was trained on


def colour_rules(scoring: Scoring, items: Sequence[Item], *, seed: int) -> tuple[dict[Item, ColourRule], str]:
    """A rule for each judged item, and a sentence on where they come from; no rule is fitted on the item's group.

    Args:
        scoring: Images, and who was trained on what.
        items: Judged.
        seed: Of the pixels drawn and of folds.

    Returns:
        The rules; empty where too little can be learned from.
    """
    fitted_on, told = _fitted_on(scoring, items, seed)
    wanted = list(dict.fromkeys(item for each in fitted_on.values() for item in each))
    samples = _samples(scoring, wanted, seed)
    made: dict[tuple[Item, ...], ColourRule | None] = {}
    for each in dict.fromkeys(fitted_on.values()):
        drawn = [samples[item] for item in each if item in samples]
        made[each] = fit_colour_rule(drawn, len(scoring.classes), scoring.background)
    rules = {item: made[fitted_on[item]] for item in items}
    found = {item: rule for item, rule in rules.items() if rule is not None}
    if len(found) < len(items):
        return {}, f"No colour baseline: {told} show fewer than two classes"
    chosen = "; ".join(sorted({rule.told for rule in found.values()}))
    return found, f"Colour alone was fitted on {told}: {chosen}"


def _fitted_on(scoring: Scoring, items: Sequence[Item], seed: int) -> tuple[dict[Item, tuple[Item, ...]], str]:
    """Items that the rule of each judged item is fitted on: none of its group."""
    judges = scoring.judges
    everything = scoring.collection.items
    trained = {
        numbers: tuple(item for item in everything if set(numbers) & set(judges.trained_on[item]))
        for numbers in set(judges.judged.values())
    }
    if all(trained.values()):
        return {
            item: trained[judges.judged[item]] for item in items
        }, "the images that the judging model was trained on"
    held = {item.group for item in items}
    others = tuple(item for item in everything if item.split == "train" and item.group not in held)
    if others:
        return dict.fromkeys(items, others), "the data set's train split"
    groups = np.array([item.group for item in items])
    if len(np.unique(groups)) < 2:
        return dict.fromkeys(items, ()), "images of other groups (there are none)"
    fold = group_folds(groups, np.zeros(len(items), np.int64), _FOLDS, seed=seed)
    rest = {
        number: tuple(item for item, other in zip(items, fold, strict=True) if other != number)
        for number in np.unique(fold)
    }
    told = f"the other {scoring.collection.group_noun}s of the judged images, in folds"
    return {item: rest[number] for item, number in zip(items, fold, strict=True)}, told


def _samples(scoring: Scoring, items: Sequence[Item], seed: int) -> dict[Item, ColourSample]:
    """Pixels of each item; one that cannot be read is left out: it is not judged here."""
    count = max(1, _PIXELS // max(1, len(items)))
    found = {}
    for item in progress(items, "colours"):
        try:
            image = scoring.image(item)
        except ImageError:
            continue
        found[item] = sample_colours(image.pixels_YXC, image.channels_YX, count, seed=seed)
    return found
