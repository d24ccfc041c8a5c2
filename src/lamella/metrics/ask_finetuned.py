"""Does pretraining help when the whole network may learn? Fine-tuned from the pretrained weights and from scratch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lamella.metrics.comparison import Comparison, auc_title, class_measures, weighted
from lamella.metrics.image_study import ImageAnswer, ImageStudy, with_classes
from lamella.metrics.report import Row
from lamella.metrics.resamples import Resamples

FINETUNED = "Fine-tuning"
MEANING = (
    "The whole network and a linear classifier trained with all labels: from the pretrained weights, and from scratch "
    "(the supervised baseline). Both have the same budget, and validation decides when to stop."
)
PROBE = "fine-tuned"


def ask_finetuned(
    study: ImageStudy, runs: Mapping[str, Callable[[ImageStudy, int], np.ndarray]], repeats: int, budget: str
) -> ImageAnswer:
    """Networks trained with all labels.

    Args:
        study: Items and parts.
        runs: Name -> (study, seed) -> (T, C) scores of the judged rows; the pretrained one first.
        repeats: Seeds of each.
        budget: In words.

    Raises:
        CannotAsk: As for classification.
    """
    study = with_classes(study)
    test, classes = study.test_rows, len(study.class_names)
    truth = study.labels[test]
    resamples = Resamples(study.groups[test], seed=study.seed)
    judged, *others = runs
    comparison = Comparison(FINETUNED, resamples, judged, others[0], study.noun)
    scores: dict[str, Sequence[np.ndarray]] = {
        name: [run(study, study.seed + repeat) for repeat in range(repeats)] for name, run in runs.items()
    }
    rows: list[Row] = []
    gaps, conclusions = [], []
    for name, asked in class_measures(truth, classes).items():
        found = {who: resamples.of([weighted(name, truth, one) for one in each]) for who, each in scores.items()}
        rows += comparison.rows(asked, PROBE, found)
        if name == auc_title(classes):
            gaps, conclusions = comparison.differences(asked, PROBE)
    return ImageAnswer((*gaps, *rows), tuple(conclusions), (f"{FINETUNED}: {budget}",))
