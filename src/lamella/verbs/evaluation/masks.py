"""Segmentation and detection of a collection: which items, which encoders, and their heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from lamella.imaging.datasets.collection import Item
from lamella.metrics.ask_masks import DETECTION, SEGMENTATION, MaskStudy, answer_detection, answer_segmentation
from lamella.metrics.image_study import ImageAnswer, Part
from lamella.metrics.segmented import SegmentationSettings, Windows, constant_counts, segment
from lamella.metrics.study import CannotAsk
from lamella.verbs.evaluation.report import Question
from lamella.verbs.progress import progress

TokenMakers = Mapping[str, Sequence[Callable[[], np.ndarray]]]
"""Encoder name -> replicates, each a maker of (W, T, D) tokens: only one needs to be in memory at a time."""


def mask_questions(
    tasks: Sequence[str],
    ready: Callable[[], tuple[Windows, TokenMakers, Sequence[Item], tuple[Part, ...]]],
    class_names: tuple[str, ...],
    settings: SegmentationSettings,
    *,
    twin: str | None,
    noun: str,
    seed: int,
) -> list[Question]:
    """The questions asked; the heads are trained once for both."""
    held: list[MaskStudy] = []

    def study() -> MaskStudy:
        if not held:
            held.append(_trained(*ready(), class_names, settings, twin=twin, noun=noun, seed=seed))
        return held[0]

    def ask(answer: Callable[[MaskStudy], ImageAnswer]) -> ImageAnswer:
        return answer(study())

    known = {"segmentation": (SEGMENTATION, answer_segmentation), "detection": (DETECTION, answer_detection)}
    return [(title, partial(ask, answer)) for task, (title, answer) in known.items() if task in tasks]


def _trained(
    windows: Windows,
    tokens: TokenMakers,
    items: Sequence[Item],
    parts: tuple[Part, ...],
    class_names: tuple[str, ...],
    settings: SegmentationSettings,
    *,
    twin: str | None,
    noun: str,
    seed: int,
) -> MaskStudy:
    groups = np.array([item.group for item in items])
    if any(not len(part.train) for part in parts):
        raise CannotAsk(f"no {noun} with masks are left to train a head on")
    judged = np.concatenate([part.test for part in parts])
    done = {
        name: [
            segment(make(), windows, parts, groups, len(class_names), settings, seed + number)
            for number, make in enumerate(progress(makers, f"heads, {name}"))
        ]
        for name, makers in tokens.items()
    }
    return MaskStudy(
        done=done,
        constants=constant_counts(windows, judged.tolist(), len(class_names)),
        class_names=class_names,
        items=np.array([items[row].item_id for row in judged]),
        groups=groups[judged],
        head=f"{settings.head} head",
        twin=twin,
        noun=noun,
        seed=seed,
    )
