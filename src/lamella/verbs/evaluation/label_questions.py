"""The questions that labels answer, of whatever has features: images, volumes or films."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from lamella.metrics import ask_classes, ask_few_labels, ask_finetuned, ask_several, ask_sites
from lamella.metrics.ask_few_labels import EfficiencySettings, NShotSettings, Supervised
from lamella.metrics.image_study import ImageAnswer, ImageStudy
from lamella.verbs.evaluation.report import Question

LABEL_MEANINGS = {
    ask_classes.CLASSES: ask_classes.MEANING,
    **ask_few_labels.MEANINGS,
    ask_finetuned.FINETUNED: ask_finetuned.MEANING,
    ask_several.SEVERAL: ask_several.MEANING,
    ask_sites.SITES: ask_sites.MEANING,
}


def label_questions(
    tasks: Sequence[str],
    study: ImageStudy,
    nshot: NShotSettings,
    efficiency: EfficiencySettings,
    *,
    supervised: Supervised | None = None,
    budget: str = "",
    finetuned: Callable[[], ImageAnswer] | None = None,
) -> list[Question]:
    """The questions that the tasks name, in a fixed order.

    Args:
        tasks: linear, knn, nshot, efficiency, finetune, multilabel, sites; others are not asked here.
        study: Items, features and parts.
        nshot: Of few labels.
        efficiency: Of shares of the labels.
        supervised: Trains the network from scratch on a share, if that is asked for.
        budget: Of that training, in words.
        finetuned: Asks about fine-tuning, where networks are trained.
    """
    questions: list[Question] = []
    if probes := [task for task in ("linear", "knn") if task in tasks]:
        questions.append((ask_classes.CLASSES, partial(ask_classes.ask_classes, study, probes)))
    if "nshot" in tasks:
        questions.append((ask_few_labels.FEW, partial(ask_few_labels.ask_few_labels, study, nshot)))
    if "efficiency" in tasks:
        ask = partial(ask_few_labels.ask_efficiency, study, efficiency, supervised, budget)
        questions.append((ask_few_labels.EFFICIENCY, ask))
    if "finetune" in tasks and finetuned is not None:
        questions.append((ask_finetuned.FINETUNED, finetuned))
    if "multilabel" in tasks:
        questions.append((ask_several.SEVERAL, partial(ask_several.ask_several, study)))
    if "sites" in tasks:
        questions.append((ask_sites.SITES, partial(ask_sites.ask_sites, study)))
    return questions
