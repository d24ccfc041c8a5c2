"""Embeddings of regions and of texts by one network, kept on disk.

Letters: N regions, M isolation modes, P wordings, C classes, F width of the shared space, D width of colour statistics.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lamella.imaging.datasets.collection import Collection, Item
from lamella.metrics.naming import class_embeddings
from lamella.models.clip import Clip
from lamella.models.regions import isolated
from lamella.models.text_prompts import TextPrompts
from lamella.verbs.evaluation.image_features import read_arrays, write_arrays
from lamella.verbs.naming.settings import Config
from lamella.verbs.naming.survey import Survey, read_regions
from lamella.verbs.progress import progress

_ARRAY = "regions"
T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """The regions of a data set as a network is shown them.

    Args:
        collection: With masks.
        found: Its regions.
        config: Modes and region settings.
    """

    collection: Collection
    found: Survey
    config: Config

    @property
    def items(self) -> list[Item]:
        """Images with regions, in the order of the survey."""
        return list({each.item.item_id: each.item for each in self.found.regions}.values())

    def pictures(self, item: Item, gray: tuple[int, int, int]) -> Iterator[np.ndarray]:
        """uint8 (h, w, 3): region by region, each in every mode."""
        pixels, regions, _, _ = read_regions(self.collection, item, self.found.classes, self.config)
        for number, region in enumerate(regions):
            for mode in self.config.modes:
                source = f"{item.item_id}#{number}"
                yield isolated(pixels, region, mode, self.config.region, gray, mpp=self.config.mpp, source=source)

    def key(self, fingerprint: str) -> str:
        """16 hex digits of what embeddings depend on."""
        config = self.config
        facts = [
            *(fingerprint, list(config.modes), config.region.model_dump(), config.fit, config.mpp, config.max_regions),
            *(config.seed, list(self.found.classes)),
            [(each.region_id, str(each.item.mask), each.label, each.box, each.area_px) for each in self.found.regions],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def embedded_regions(
    embed: Callable[[Tensor], Tensor], clip: Clip, shown: Shown, fingerprint: str, path: Path, label: str
) -> np.ndarray:
    """(N, M, F) float32 of every region in every mode; what an earlier run stored is read.

    Args:
        embed: uint8 (B, 3, S, S) to (B, F).
        clip: Whose preparation of images is used.
        shown: The regions.
        fingerprint: Of what embeds.
        path: Where they are kept.
        label: Shown while it runs.
    """
    key, ids = shown.key(fingerprint), [each.region_id for each in shown.found.regions]
    stored = read_arrays(path, key, len(ids))
    if stored is not None:
        return stored[_ARRAY]
    found: list[np.ndarray] = []
    pictures = (each for item in progress(shown.items, label) for each in shown.pictures(item, clip.contract.gray))
    with torch.inference_mode():
        for batch in in_batches(pictures, shown.config.batch_size):
            found.append(embed(clip.prepared(batch, shown.config.fit)).float().cpu().numpy())
    vectors = np.concatenate(found).reshape(len(ids), len(shown.config.modes), -1)
    write_arrays(path, {_ARRAY: vectors}, key, ids)
    return vectors


@torch.inference_mode()
def embedded_prompts(clip: Clip, prompts: Sequence[TextPrompts]) -> np.ndarray:
    """(P, C, F) float64: the class embeddings of each wording.

    Raises:
        LamellaError: A text is longer than the model reads.
    """
    found = []
    for one in prompts:
        texts = [(number, text) for number, name in enumerate(one.classes) for text in one.texts[name]]
        vectors = clip.texts([text for _, text in texts]).cpu().numpy()
        found.append(class_embeddings(vectors, [number for number, _ in texts], len(one.classes)))
    return np.stack(found)


def cosines(regions_NMF: np.ndarray, prompts_PCF: np.ndarray) -> np.ndarray:
    """(P * M, N, C): of each wording and, within it, each mode."""
    found = np.einsum("nmf,pcf->pmnc", regions_NMF.astype(np.float64), prompts_PCF)
    return found.reshape(-1, *found.shape[2:])


def ways_of(prompts: Sequence[TextPrompts], modes: Sequence[str]) -> tuple[str, ...]:
    """Names in the order of `cosines`."""
    return tuple(f"{one.name} / {mode}" for one in prompts for mode in modes)


def in_batches(stream: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size`."""
    waiting: list[T] = []
    for each in stream:
        waiting.append(each)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
