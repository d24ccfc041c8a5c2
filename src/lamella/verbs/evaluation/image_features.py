"""Features of a collection's images: what an encoder is shown of each, and a cache on disk.

Shapes: N items, K views of an item, S side of a view, T tokens, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from lamella.config import Settings
from lamella.data.images import ImageDataSettings, prepared
from lamella.errors import ImageError
from lamella.formats.atomic import whole_file
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.intensity import IntensitySettings
from lamella.imaging.measured import MedicalImage
from lamella.imaging.spacing import Fit, fit, resize_image
from lamella.models.encoders import Encoder, ViTEncoder
from lamella.models.pretrained import PretrainedEncoder
from lamella.verbs.progress import progress

# Items of one cache file: a killed run loses at most so many.
_CHUNK = 1024
LAST = 4  # layers of the probe on several layers: DINO's choice
Count = Annotated[int, Field(ge=1)]


class ViewSettings(Settings):
    """What an encoder is shown of an image."""

    intensity: IntensitySettings = IntensitySettings()
    """How measured values become bytes; give what the model was pretrained with."""
    name: Literal["auto", "whole", "tiles"] = "auto"
    """whole: the image brought to the encoder's size. tiles: at the encoder's spacing (or its own pixels), cut into
    tiles of the encoder's size whose features are averaged. auto: tiles for an encoder with a spacing, else whole."""
    fit: Fit = "stretch"
    """How a whole image becomes square: stretch loses the aspect, crop the edges, pad adds black."""
    source_mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel of images whose files state none."""
    max_side_px: Count = 1024
    """Reduce larger images to this longest side first, as in pretraining; not where the encoder has a spacing."""
    max_tiles: Count = 16
    """Tiles of one image, spread evenly over it."""


class ItemViews:
    """Views of a collection's items, with the prepared images kept in memory up to a limit.

    Args:
        collection: Of images.
        settings: What is shown.
        encoder: The judged one: all encoders see the same part of an image, each at its own size.
        cache_mb: Limit of the memory.
    """

    def __init__(self, collection: Collection, settings: ViewSettings, encoder: Encoder, cache_mb: int) -> None:
        self.collection, self.settings, self.contract = collection, settings, encoder.contract
        self._spaced = has_spacing(encoder)
        self._limit, self._kept_bytes = cache_mb * 2**20, 0
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._data = ImageDataSettings(
            intensity=settings.intensity,
            mpp=self.contract.mpp if self.tiled and self._spaced else None,
            source_mpp=settings.source_mpp,
            max_side_px=settings.max_side_px,
        )

    @property
    def tiled(self) -> bool:
        """Whether an item is shown as several tiles."""
        if self.settings.name == "auto":
            return self._spaced
        return self.settings.name == "tiles"

    def pixels(self, item: Item) -> np.ndarray:
        """(Y, X, 3) uint8 of the whole image.

        Raises:
            ImageError: It cannot be read, or states no spacing where one is needed.
        """
        if item.item_id in self._kept:
            self._kept.move_to_end(item.item_id)
            return self._kept[item.item_id]
        measured = self.collection.read(item)
        assert isinstance(measured, MedicalImage)
        pixels = prepared(measured, self._data)
        self._kept[item.item_id] = pixels
        self._kept_bytes += pixels.nbytes
        while self._kept_bytes > self._limit:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
        return pixels

    def views(self, item: Item, size_px: int) -> np.ndarray:
        """(K, S, S, 3) uint8 of an encoder of side `size_px`.

        Raises:
            ImageError: As for `pixels`.
        """
        pixels = self.pixels(item)
        if not self.tiled:
            return fit(pixels, size_px, self.settings.fit)[None]
        side = self.contract.size_px
        if min(pixels.shape[:2]) < side:  # an image smaller than a tile is one, with its aspect kept
            return fit(pixels, size_px, "crop")[None]
        tiles = [pixels[y : y + side, x : x + side] for y, x in _corners(pixels.shape, side, self.settings.max_tiles)]
        return np.stack([tile if side == size_px else resize_image(tile, size_px, size_px) for tile in tiles])


@dataclass(frozen=True)
class Embedded:
    """Features of the items that could be read, by item id, and the errors of the others."""

    pooled: dict[str, np.ndarray]
    last: dict[str, np.ndarray]
    tokens: dict[str, np.ndarray]
    failed: dict[str, str]


def embed_items(
    encoder: Encoder,
    items: Sequence[Item],
    views: ItemViews,
    folder: Path,
    *,
    label: str,
    size_px: int | None = None,
    last_layers: bool = False,
    tokens: bool = False,
    batch_size: int = 64,
    device: torch.device | None = None,
) -> Embedded:
    """Features of all items; what an earlier run stored in `folder` is read, the rest is computed and stored.

    Args:
        encoder: On `device`.
        items: In this order.
        views: What is shown of them.
        folder: One file for each thousand items.
        label: Shown while it runs.
        size_px: Side of the views; the encoder's own unless given.
        last_layers: Also the mean tokens of the last layers side by side, of our own encoders.
        tokens: Also all tokens, 16 bits each.
        batch_size: Views encoded at once.
        device: Where the encoder is.
    """
    work = _Work(encoder, views, size_px or encoder.contract.size_px, last_layers, tokens, batch_size, device)
    return stored_features(work, items, folder, label)


class FeatureWork(Protocol):
    """How some items become features."""

    def key(self, items: Sequence[Item]) -> str:
        """16 hex digits of what the features depend on."""

    def arrays(self, items: Sequence[Item]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Name -> (n, ...) arrays of the items that can be read, in their order, and the errors of the others."""


def stored_features(
    work: FeatureWork, items: Sequence[Item], folder: Path, label: str, chunk_items: int = _CHUNK
) -> Embedded:
    """Features of all items, a file for each chunk; what an earlier run stored is read."""
    found = Embedded({}, {}, {}, {})
    chunks = [items[start : start + chunk_items] for start in range(0, len(items), chunk_items)]
    for number, chunk in enumerate(progress(chunks, f"embed, {label}")):
        path, key = folder / f"{number:05d}.safetensors", work.key(chunk)
        stored = read_arrays(path, key, len(chunk))
        if stored is None:
            stored, failed = work.arrays(chunk)
            found.failed.update(failed)
            ids = [item.item_id for item in chunk if item.item_id not in failed]
            write_arrays(path, stored, key, ids)
        else:
            ids = [item.item_id for item in chunk]
        for name, kept in (("pooled", found.pooled), ("last", found.last), ("tokens", found.tokens)):
            if name in stored:
                kept.update(zip(ids, stored[name], strict=True))
    return found


@dataclass(frozen=True)
class _Work:
    encoder: Encoder
    views: ItemViews
    size_px: int
    last_layers: bool
    tokens: bool
    batch_size: int
    device: torch.device | None

    def key(self, items: Sequence[Item]) -> str:
        """16 hex digits of what the features depend on."""
        facts = [
            self.encoder.fingerprint,
            self.views.settings.model_dump(mode="json"),
            self.views.contract.facts(),
            self.size_px,
            self.last_layers and isinstance(self.encoder, ViTEncoder),
            self.tokens,
            [(item.item_id, [str(source) for source in item.sources], item.row) for item in items],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def arrays(self, items: Sequence[Item]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Name -> (n, ...) arrays of the items that can be read, in their order, and the errors of the others."""
        parts: dict[str, list[np.ndarray]] = {}
        failed: dict[str, str] = {}
        waiting: list[np.ndarray] = []
        for item in items:
            try:
                waiting.append(self.views.views(item, self.size_px))
            except ImageError as error:
                failed[item.item_id] = str(error)
            if sum(map(len, waiting)) >= self.batch_size:
                self._encode(waiting, parts)
        self._encode(waiting, parts)
        return {name: np.concatenate(each) for name, each in parts.items()}, failed

    def _encode(self, waiting: list[np.ndarray], parts: dict[str, list[np.ndarray]]) -> None:
        """Encode what waits, average the views of each item, and empty the queue."""
        if not waiting:
            return
        counts = [len(views) for views in waiting]
        images = torch.from_numpy(np.concatenate(waiting)).permute(0, 3, 1, 2).contiguous()
        waiting.clear()
        with torch.inference_mode():
            for name, values in self._features(images.to(self.device)).items():
                if name == "tokens":  # tiles one after the other
                    each = [part.flatten(0, 1) for part in values.split(counts)]
                    if len({part.shape for part in each}) > 1:
                        raise ValueError("items of several numbers of tokens")
                    parts.setdefault(name, []).append(torch.stack(each).half().cpu().numpy())
                else:
                    means = torch.stack([part.mean(0) for part in values.split(counts)])
                    parts.setdefault(name, []).append(means.float().cpu().numpy())

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        encoder = self.encoder
        if self.last_layers and isinstance(encoder, ViTEncoder):
            last = min(LAST, len(encoder.vit.blocks))
            layers = encoder.vit.layers(*encoder.patches_and_places(images), last)
            found = {"pooled": encoder.pooled(images), "last": torch.cat([layer.mean(1) for layer in layers], dim=1)}
        else:
            found = {"pooled": encoder.pooled(images)}
        if self.tokens:
            found["tokens"] = encoder.tokens(images)
        return found


def has_spacing(encoder: Encoder) -> bool:
    """Whether an encoder was trained at stated micrometres per pixel, rather than on images of any scale."""
    if isinstance(encoder, PretrainedEncoder):
        return bool(encoder.entry.mpp)
    return isinstance(encoder, ViTEncoder) and encoder.contract.mpp is not None


def is_grey(views: ItemViews, items: Sequence[Item], tried: int = 64) -> bool:
    """Whether the first images that can be read have no colour."""
    for item in items[:tried]:
        try:
            pixels = views.pixels(item)
        except ImageError:
            continue  # it is listed when it is embedded
        if (pixels != pixels[..., :1]).any():
            return False
    return True


def _corners(shape: tuple[int, ...], side: int, most: int) -> list[tuple[int, int]]:
    """(y, x) of tiles that cover the image evenly, the last ones flush with its edges; at most `most` of them."""

    def along(length: int) -> list[int]:
        count = -(-length // side)
        return [round(at) for at in np.linspace(0, length - side, count)]

    corners = [(y, x) for y in along(shape[0]) for x in along(shape[1])]
    if len(corners) <= most:
        return corners
    return [corners[round(at)] for at in np.linspace(0, len(corners) - 1, most)]


def write_arrays(path: Path, arrays: dict[str, np.ndarray], key: str, ids: Sequence[str] = ()) -> None:
    """A cache file, whole or not at all."""
    with whole_file(path) as part:
        save_file(arrays, part, metadata={"key": key, "items": json.dumps(list(ids))})


def read_arrays(path: Path, key: str, items: int = 0) -> dict[str, np.ndarray] | None:
    """The arrays of a cache file; None if it is not there, damaged, of something else, or lacks items that failed."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            stored: dict[str, Any] = file.metadata() or {}
            if stored.get("key") != key or len(json.loads(stored["items"])) != items:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
    except SafetensorError:
        return None
