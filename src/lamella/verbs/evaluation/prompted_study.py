"""From images to the study of a promptable model: what was answered, kept image by image, and put together."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import ImageError, LamellaError, first_line
from lamella.formats.atomic import write_json
from lamella.formats.label_values import NOT_LABELLED
from lamella.imaging.datasets.collection import Item
from lamella.metrics.dice import dice
from lamella.metrics.prompted import BOX, DISK, PromptedStudy
from lamella.metrics.segments.protocol import Protocol, split_digest
from lamella.models.prompt_protocol import clicks_name
from lamella.models.promptable_model import PromptableModel
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.prompted_images import Answered, answered, remembered, trivial, trivial_of
from lamella.verbs.evaluation.prompted_work import Work
from lamella.verbs.progress import progress

ANSWERS = "answers"


@dataclass(frozen=True)
class AnsweredItem:
    """The objects of an item, as every model answered about them; the judged model first."""

    item: Item
    models: dict[str, Answered]

    @property
    def judged(self) -> Answered:
        return next(iter(self.models.values()))


def ask_all_images(work: Work) -> list[AnsweredItem]:
    """Ask about the objects of every image; what an earlier run asked is read back. Without objects: left out."""
    found = []
    for item in progress(list(work.judges.judged), "ask"):
        try:
            one = _read(work, item) or _asked(work, item)
        except ImageError as error:
            work.failed[item.item_id] = str(error)
            continue
        if len(one.judged.channels):
            found.append(one)
    return found


def gathered(work: Work, found: list[AnsweredItem]) -> PromptedStudy:
    """The study of all images, with the answers of no model beside them."""
    config, classes = work.config, work.classes
    items = [one.item for one in found]
    sizes = [len(one.judged.channels) for one in found]
    counts: dict[str, dict[str, np.ndarray]] = {}
    clicks = {}
    for name in found[0].models:
        whole = {
            prompt: np.concatenate([one.models[name].counts[prompt] for one in found])
            for prompt in found[0].judged.counts
        }
        counts[name] = {prompt: whole[prompt] for prompt in config.protocol.names()}
        if config.protocol.most_clicks:
            tried = range(1, config.protocol.most_clicks + 1)
            clicks[name] = np.stack([dice(whole[clicks_name(count)]) for count in tried], axis=1)
    counts |= _trivial(work, found, list(counts[next(iter(counts))]))
    named = tuple(name for number, name in enumerate(classes) if number != work.background)
    protocol = Protocol(
        task="prompted",
        oracle=True,
        prompt="box",  # each row states its own
        ignored=(f"{NOT_LABELLED} (not labelled)",),
        split=split_digest((item.item_id, item.group) for item in items),
        classes=named,
        mpp=config.mpp,
        scored=f"objects: connected parts of a class, {config.protocol.min_area_px} px or more, in tiles of up to "
        f"{config.tile_px} px",
        n=sum(sizes),
    )
    channels = np.concatenate([one.judged.channels for one in found])
    number_of = {number: named.index(name) for number, name in enumerate(classes) if name in named}
    return PromptedStudy(
        title=work.collection.name,
        judged=work.name,
        counts=counts,
        clicks=clicks,
        items=np.repeat([item.item_id for item in items], sizes),
        groups=np.repeat([item.group for item in items], sizes),
        channels=np.array([number_of[channel] for channel in channels.tolist()]),
        classes=named,
        protocol=protocol,
        seed=config.seed,
    )


def object_table(study: PromptedStudy) -> list[dict[str, Any]]:
    """One line for each model, prompt and object, for a CSV."""
    lines = []
    for name, prompts in study.counts.items():
        for prompt, counts in prompts.items():
            for row, (both, own, called) in enumerate(counts.tolist()):
                line = {"item_id": study.items[row], "group": study.groups[row], "object": row}
                line |= {"class": study.classes[study.channels[row]], "model": name, "prompt": prompt}
                score = round(2 * both / (own + called), 6)
                lines.append(line | {"area_px": own, "answered_px": called, "both_px": both, "dice": score})
    return lines


def seed_of(item: Item, seed: int) -> tuple[int, ...]:
    """The seed of an item's noisy boxes: of its name, so that it does not depend on which others are judged."""
    digest = hashlib.blake2b(item.item_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest), seed


def _asked(work: Work, item: Item) -> AnsweredItem:
    windows = work.windows(item)

    def ask(model: PromptableModel) -> Answered:
        return answered(
            model,
            windows,
            work.background,
            work.config.protocol,
            embed=remembered(model, work.cache),
            device=work.device,
            seed=seed_of(item, work.config.seed),
        )

    models = {work.name: ask(work.judge(item))}
    if work.rival is not None:
        models[work.rival_name] = ask(work.rival)
    one = AnsweredItem(item, models)
    write_json(_place(work, item), {name: _plain(each) for name, each in models.items()})
    return one


def _trivial(work: Work, found: list[AnsweredItem], prompts: list[str]) -> dict[str, dict[str, np.ndarray]]:
    """BOX and DISK, each under the prompts that it answers."""
    areas: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for one in found:
        for channel, area in zip(one.judged.channels.tolist(), one.judged.areas_px.tolist(), strict=True):
            areas[channel].append((one.item.group, area))
    parts: dict[str, list[np.ndarray]] = {BOX: [], DISK: []}
    for one in found:

        def median(channel: int, group: str = one.item.group) -> float:
            others = [area for other, area in areas[channel] if other != group]
            return float(np.median(others or [area for _, area in areas[channel]]))

        answers = trivial(work.windows(one.item), work.background, work.config.protocol, median)
        for name, counts in answers.items():
            parts[name].append(counts)
    whole = {name: np.concatenate(each) for name, each in parts.items()}
    return {name: {prompt: whole[name] for prompt in prompts if trivial_of(prompt) == name} for name in whole}


def _place(work: Work, item: Item) -> Path:
    mark = hashlib.sha256(item.item_id.encode()).hexdigest()[:6]
    return work.out / ANSWERS / f"{slug(item.item_id)}-{mark}.json"


def _plain(one: Answered) -> dict[str, Any]:
    counts = {prompt: rows.tolist() for prompt, rows in one.counts.items()}
    return {"channels": one.channels.tolist(), "areas_px": one.areas_px.tolist(), "counts": counts}


def _read(work: Work, item: Item) -> AnsweredItem | None:
    """What an earlier run of the same settings and models wrote."""
    path = _place(work, item)
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        models = {
            name: Answered(
                np.array(each["channels"], np.int64),
                np.array(each["areas_px"], np.int64),
                {prompt: np.array(rows, np.int64).reshape(-1, 3) for prompt, rows in each["counts"].items()},
            )
            for name, each in tree.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LamellaError(
            path, f"it cannot be read ({first_line(error)})", "Delete it; its image is asked about again."
        ) from error
    return AnsweredItem(item, models)
