"""A promptable model asked about every object of a labelled image: what a table, and the validation of a run, count.

An image is brought to one spacing; one that is longer than a tile is parted into tiles of even size without overlap,
and an object is then what a tile shows of it. The encoder runs once a tile, and once more for each turn of TTA.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from lamella.data.labelled_image import LabelledImage
from lamella.formats.label_values import NOT_LABELLED
from lamella.metrics.prompted import BOX, DISK
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.prompt_protocol import PromptProtocol, answers, overlap
from lamella.models.prompt_tta import FLIPS, decode_turned
from lamella.models.promptable_model import Embedded, PromptableModel
from lamella.models.simulated_user import Given, TrueObject, as_prompts, deepest, true_objects

_BOXED = ("box", "noisy box", "box + negatives", "box + negatives + TTA")


@dataclass(frozen=True)
class Window:
    """A part of an image.

    Attributes:
        y0: First row in the image.
        x0: First column.
        pixels_YXC: uint8 (Y, X, 3).
        channels_YX: uint8, NOT_LABELLED where the truth is not known.
    """

    y0: int
    x0: int
    pixels_YXC: np.ndarray
    channels_YX: np.ndarray

    @property
    def known_YX(self) -> np.ndarray:
        known: np.ndarray = self.channels_YX != NOT_LABELLED
        return known

    def image(self, device: torch.device | str) -> torch.Tensor:
        """uint8 (1, 3, Y, X)."""
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(self.pixels_YXC, -1, 0)))[None].to(device)


@dataclass(frozen=True)
class Answered:
    """What a model did on the N objects of an image.

    Attributes:
        channels: (N,) class of each.
        areas_px: (N,).
        counts: Prompt -> (N, 3) pixels in both, in the truth, in the answer; of clicks every number of them.
    """

    channels: np.ndarray
    areas_px: np.ndarray
    counts: dict[str, np.ndarray]


def windows_of(image: LabelledImage, tile_px: int) -> Iterator[Window]:
    """Parts of even size, none longer than `tile_px`; the image itself where it is no longer."""
    height, width = image.channels_YX.shape
    for rows in _parts(height, tile_px):
        for columns in _parts(width, tile_px):
            yield Window(rows.start, columns.start, image.pixels_YXC[rows, columns], image.channels_YX[rows, columns])


def objects_of(window: Window, background: int | None, protocol: PromptProtocol) -> list[TrueObject]:
    """The objects that are asked about."""
    return true_objects(window.channels_YX, background=background, min_area_px=protocol.min_area_px)


def answered(
    model: PromptableModel,
    windows: Sequence[Window],
    background: int | None,
    protocol: PromptProtocol,
    *,
    embed: Callable[[torch.Tensor], Embedded],
    device: torch.device | str = "cpu",
    seed: tuple[int, ...] = (0,),
    shown: tuple[str, np.ndarray] | None = None,
) -> Answered:
    """Ask about every object of an image.

    Args:
        model: Any.
        windows: Of the image.
        background: Channel that has no objects.
        protocol: What is asked.
        embed: The encoder, or its memory.
        device: Of the model.
        seed: Of the noisy boxes of this image.
        shown: A prompt, and the (Y, X) channels of the whole image into which its answers are painted.
    """
    channels: list[int] = []
    areas: list[int] = []
    counts: dict[str, list[tuple[int, int, int]]] = {}
    for number, window in enumerate(windows):
        objects = objects_of(window, background, protocol)
        if not objects:
            continue
        image, known = window.image(device), window.known_YX
        averaged = partial(_averaged, model, image, embed, device)
        first = len(channels)
        channels += [each.channel for each in objects]
        areas += [each.area_px for each in objects]
        found = answers(model, embed(image), objects, known, protocol, seed=(*seed, number), averaged=averaged)
        for row, prompt, mask in found:
            rows = counts.setdefault(prompt, [])
            assert len(rows) == first + row, "answers come object by object"
            rows.append(overlap(mask, objects[row], known))
            if shown is not None and prompt == shown[0]:
                part = shown[1][window.y0 : window.y0 + mask.shape[0], window.x0 : window.x0 + mask.shape[1]]
                part[mask] = objects[row].channel
    arrays = {prompt: np.array(rows, np.int64).reshape(-1, 3) for prompt, rows in counts.items()}
    return Answered(np.array(channels, np.int64), np.array(areas, np.int64), arrays)


def trivial(
    windows: Sequence[Window], background: int | None, protocol: PromptProtocol, median_px: Callable[[int], float]
) -> dict[str, np.ndarray]:
    """What answers without a model score: BOX and DISK to (N, 3) counts, objects as in `answered`.

    Args:
        windows: Of the image.
        background: Channel that has no objects.
        protocol: Which objects.
        median_px: Channel -> median area of such objects in images of other groups.
    """
    counts: dict[str, list[tuple[int, int, int]]] = {BOX: [], DISK: []}
    for window in windows:
        known = window.known_YX
        height, width = known.shape
        rows, columns = np.ogrid[:height, :width]
        for each in objects_of(window, background, protocol):
            box = np.zeros((height, width), bool)
            box[each.window] = True
            counts[BOX].append(overlap(box, each, known))
            x, y = deepest(each.mask_yx)
            y, x = y + each.window[0].start - 0.5, x + each.window[1].start - 0.5
            disk = (rows - y) ** 2 + (columns - x) ** 2 <= median_px(each.channel) / np.pi
            counts[DISK].append(overlap(disk, each, known))
    return {name: np.array(found, np.int64).reshape(-1, 3) for name, found in counts.items()}


def trivial_of(prompt: str) -> str:
    """The answer without a model that a prompt is compared with."""
    return BOX if prompt in _BOXED else DISK


def remembered(model: PromptableModel, cache: EmbeddingCache) -> Callable[[torch.Tensor], Embedded]:
    """The encoder with a memory that several models of the same encoder share."""

    def embed(images: torch.Tensor) -> Embedded:
        cache.model = model
        return cache.embed(images)

    return embed


def _averaged(
    model: PromptableModel,
    image: torch.Tensor,
    embed: Callable[[torch.Tensor], Embedded],
    device: torch.device | str,
    given: Sequence[Given],
) -> np.ndarray:
    """(M, Y, X) mean probability over four mirrorings."""
    with torch.inference_mode():
        found = decode_turned(model, image, as_prompts([given], device), turns=FLIPS, embed=embed)
    return found.probability_BMHW[0].cpu().numpy()


def _parts(length: int, most: int) -> list[slice]:
    count = -(-length // most)
    ends = [round(number * length / count) for number in range(count + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]
