"""Pictures of a promptable model's answers: the best, the median and the worst images."""

from __future__ import annotations

import numpy as np

from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Item
from lamella.metrics.dice import dice
from lamella.metrics.prompted import PromptedStudy
from lamella.verbs.evaluation.prompted_images import answered, remembered
from lamella.verbs.evaluation.prompted_study import seed_of
from lamella.verbs.evaluation.prompted_work import Work
from lamella.verbs.evaluation.segment_report import chosen_ranks
from lamella.view.panels import write_sheet
from lamella.view.segment_overlays import Overlay, draw_segment_overlays

OVERLAYS = "best_median_worst.png"
_SHOWN = ("3 clicks", "1 click", "box")  # the first of these that was asked


def drawn(work: Work, study: PromptedStudy) -> list[tuple[str, str]]:
    """Draw the images whose objects were answered best, middling and worst; (file, what it shows)."""
    prompts = study.counts[study.judged]
    prompt = next((name for name in _SHOWN if name in prompts), next(iter(prompts)))
    values = dice(prompts[prompt])
    names = list(dict.fromkeys(study.items.tolist()))
    means = {name: float(values[study.items == name].mean()) for name in names}
    order = sorted(names, key=lambda name: -means[name])
    items = {item.item_id: item for item in work.judges.judged}
    overlays = []
    for rank, title in chosen_ranks(len(order), work.config.overlays):
        item = items[order[rank]]
        overlays.append(_overlay(work, item, prompt, title, f"mean Dice of its objects {means[item.item_id]:.2f}"))
    if not overlays:
        return []
    page = draw_segment_overlays(
        overlays,
        work.classes,
        work.background,
        heading=f"{work.name} on {work.collection.name}: oracle, class and {prompt} of each object given",
        facts=[f"By the mean Dice of an image's objects after the prompt {prompt}, of {len(order)} images."],
    )
    write_sheet(page, work.out / OVERLAYS)
    return [(OVERLAYS, f"Oracle (class and {prompt} given). Best, median and worst images: truth, answers, errors")]


def _overlay(work: Work, item: Item, prompt: str, title: str, caption: str) -> Overlay:
    """One image with the answers about all its objects; a later answer lies over an earlier one."""
    windows = work.windows(item)
    height = max(window.y0 + window.channels_YX.shape[0] for window in windows)
    width = max(window.x0 + window.channels_YX.shape[1] for window in windows)
    pixels = np.zeros((height, width, 3), np.uint8)
    truth = np.full((height, width), NOT_LABELLED, np.uint8)
    for window in windows:
        part = np.s_[
            window.y0 : window.y0 + window.channels_YX.shape[0], window.x0 : window.x0 + window.channels_YX.shape[1]
        ]
        pixels[part], truth[part] = window.pixels_YXC, window.channels_YX
    nothing = NOT_LABELLED if work.background is None else work.background
    predicted = np.full((height, width), nothing, np.uint8)
    model = work.judge(item)
    family = "clicks" if prompt.endswith(("click", "clicks")) else prompt
    protocol = work.config.protocol.model_copy(update={"prompts": (family,)})
    answered(
        model,
        windows,
        work.background,
        protocol,
        embed=remembered(model, work.cache),
        device=work.device,
        seed=seed_of(item, work.config.seed),
        shown=(prompt, predicted),
    )
    name = f"{title}: {item.item_id} ({work.collection.group_noun} {item.group})"
    return Overlay(pixels, truth, predicted, name, caption, work.config.mpp)
