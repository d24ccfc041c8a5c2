"""From the tasks that are asked to the questions on arrays; networks and masks are brought in here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lamella.imaging.datasets.collection import Collection, Item
from lamella.metrics import ask_finetuned, ask_masks
from lamella.metrics.finetuned import finetuned_scores
from lamella.metrics.image_study import ImageAnswer, ImageStudy, Part
from lamella.metrics.segmented import Windows
from lamella.metrics.study import CannotAsk
from lamella.models.encoders import Encoder, Twinned, random_twin
from lamella.verbs.evaluation.image_features import ItemViews
from lamella.verbs.evaluation.image_masks import RAW, MaskedItems, cached_tokens, side_of
from lamella.verbs.evaluation.image_settings import Config, tasks_of
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.label_questions import LABEL_MEANINGS, label_questions
from lamella.verbs.evaluation.masks import TokenMakers, mask_questions
from lamella.verbs.evaluation.report import Question, record_failures
from lamella.verbs.evaluation.rival_encoders import COLOUR, PIXELS, RANDOM, Makers
from lamella.verbs.evaluation.scope import Scope, parts_of

MEANINGS = {**LABEL_MEANINGS, **ask_masks.MEANINGS}


@dataclass(frozen=True)
class Work:
    """What the questions are asked of."""

    encoder: Encoder
    encoders: Makers
    study: ImageStudy
    scope: Scope
    collection: Collection
    views: ItemViews
    config: Config
    out: Path
    device: torch.device


def questions_of(work: Work) -> list[Question]:
    """The questions that the tasks name, in a fixed order."""
    study, config, tasks = work.study, work.config, tasks_of(work.config, work.collection)
    supervised = partial(_from_scratch, work) if config.efficiency.supervised else None
    questions = label_questions(
        tasks,
        study,
        config.nshot,
        config.efficiency,
        supervised=supervised,
        budget=config.finetune.budget(),
        finetuned=partial(_finetuned, work),
    )
    names = tuple(work.collection.mask_classes)
    twin = RANDOM if RANDOM in work.encoders else None
    ready = partial(_masked, work)
    return questions + mask_questions(
        tasks, ready, names, config.segmentation, twin=twin, noun="images", seed=config.seed
    )


# ---- whole networks -------------------------------------------------------------------------------------------------


class _Images:
    """Whole images of a study's rows, as the network takes them."""

    def __init__(self, work: Work, study: ImageStudy) -> None:
        known = {item.item_id: item for item in work.scope.items}
        self._items: list[Item] = [known[item_id] for item_id in study.items.tolist()]
        self._views, self._size_px = work.views, work.encoder.contract.size_px

    def batch(self, rows: np.ndarray) -> Tensor:
        """(B, 3, S, S) uint8; of an image shown as tiles the middle one."""
        shown = [self._views.views(self._items[row], self._size_px) for row in rows]
        images = np.stack([views[len(views) // 2] for views in shown])
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _trainable(encoder: Encoder) -> nn.Module:
    if not isinstance(encoder, nn.Module) or not isinstance(encoder, Twinned):
        raise CannotAsk(f"{encoder.name} has no weights to train")
    return encoder


def _from_scratch(work: Work, study: ImageStudy, parts: tuple[Part, ...], seed: int) -> np.ndarray:
    """Scores of the judged rows by the same network, trained from random weights on these parts."""
    _trainable(work.encoder)
    return finetuned_scores(
        lambda: _trainable(random_twin(work.encoder, seed)),
        _Images(work, study),
        study.labels,
        study,
        work.config.finetune,
        seed=seed,
        parts=parts,
        device=work.device,
    ).scores


def _finetuned(work: Work) -> ImageAnswer:
    _trainable(work.encoder)

    def pretrained(study: ImageStudy, seed: int) -> np.ndarray:
        return finetuned_scores(
            lambda: _trainable(work.encoder),
            _Images(work, study),
            study.labels,
            study,
            work.config.finetune,
            seed=seed,
            device=work.device,
        ).scores

    def scratch(study: ImageStudy, seed: int) -> np.ndarray:
        return _from_scratch(work, study, study.parts, seed)

    runs = {work.study.judged: pretrained, f"{RANDOM} (supervised from scratch)": scratch}
    settings = work.config.finetune
    return ask_finetuned.ask_finetuned(work.study, runs, settings.repeats, settings.budget())


# ---- masks ----------------------------------------------------------------------------------------------------------


def _masked(work: Work) -> tuple[Windows, TokenMakers, Sequence[Item], tuple[Part, ...]]:
    """Windows, tokens, items and parts of the images that have a mask.

    Raises:
        CannotAsk: There are no masks, or no class is named in them.
    """
    collection, config = work.collection, work.config
    with_mask = {item.item_id for item in work.scope.items if item.mask is not None}
    if collection.read_mask is None or not with_mask:
        raise CannotAsk("no image has a mask")
    if not collection.mask_classes:
        raise CannotAsk("the data set does not say what the values of its masks mean")
    others = {item.item_id: "it has no mask" for item in work.scope.items if item.mask is None}
    scope = work.scope.keep(others)
    masked, failed = MaskedItems(collection, scope.items, work.views).readable()
    record_failures(work.out, failed, name="failed_masks.csv")
    scope = scope.keep(failed)
    side, patch = side_of(work.encoder, config.segmentation), work.encoder.contract.patch_px
    tokens: dict[str, list] = {}
    for name, makers in work.encoders.items():
        if name in (PIXELS, COLOUR) or (name != RANDOM and name != work.study.judged):
            continue  # one token for the whole image, or another grid than the heads'
        for number, make in enumerate(makers[: config.segmentation.random_inits]):
            encoder = make()
            path = work.out / "features" / f"{slug(f'{name} {number}')}-tokens.safetensors"
            key = _key(encoder.fingerprint, side, masked, work.views)
            build = partial(_tokens, masked, encoder, side, work.device)
            tokens.setdefault(name, []).append(partial(cached_tokens, path, key, build))
    tokens[RAW] = [partial(masked.raw_tokens, side, patch)]
    parts = parts_of(scope, np.zeros(len(scope.items), np.int64), config.probes.folds, config.seed)
    return masked.windows(side, patch), tokens, scope.items, parts


def _tokens(masked: MaskedItems, encoder: Encoder, side_px: int, device: torch.device) -> np.ndarray:
    encoder.to(device)
    return masked.tokens(encoder, side_px, device)


def _key(fingerprint: str, side_px: int, masked: MaskedItems, views: ItemViews) -> str:
    facts = repr((fingerprint, side_px, [item.item_id for item in masked.items], views.settings.model_dump()))
    return hashlib.sha256(facts.encode()).hexdigest()[:16]
