"""What `explain` shows of a data set: a few items as the encoder gets them, with the flat views to draw them in.

Shapes: C channels, Z slices (T frames of a film), Y rows, X columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lamella.data.clips import VideoClips, VideoDataSettings
from lamella.data.mask_sets import MaskSetsSettings
from lamella.data.masks.exact import Random3dMaskSettings
from lamella.data.tiles import TileBatches
from lamella.data.volumes import PreparedVolumes, VolumeDataSettings, cut
from lamella.errors import LamellaError
from lamella.imaging.datasets.collection import Collection, Item
from lamella.imaging.intensity import IntensitySettings
from lamella.models.contract import Encoder, InputContract
from lamella.models.volume_encoder import VolumeContract
from lamella.slides.grid import GridSettings, tile_grid
from lamella.slides.index import SlideIndex
from lamella.verbs.evaluation.image_features import ItemViews, ViewSettings, has_spacing
from lamella.view.explained import Noted, mask_layer
from lamella.view.planes import Cut, fullest, image_cut, video_cuts, volume_cuts

_CACHE_MB = 512  # one volume and its mask are asked for in turn; nothing is shown twice


@dataclass(frozen=True)
class Shown:
    """One item as the encoder gets it.

    Attributes:
        name: Of the item, with its labels.
        values: (1, ...) what the encoder takes.
        cuts: Its flat views.
        spacing: As the encoder's `tokens` takes it; None for the contract's.
        mask: The data set's segmentation over the same box, where it has one.
    """

    name: str
    values: Tensor
    cuts: Sequence[Cut]
    spacing: Any = None
    mask: Noted | None = None


@dataclass(frozen=True)
class Choice:
    """Which items are shown, and how.

    Attributes:
        ids: These, if any are named.
        count: So many otherwise, the classes taking turns, of different groups where there are enough.
        seed: Of the draw.
        view: What an image encoder is shown of an image.
        frames: Frames of a film that are drawn, at most.
        channel: Of a volume, the one that is drawn.
        frame_stride: Of a film, every so many frames make the clip.
    """

    ids: tuple[str, ...]
    count: int
    seed: int
    view: ViewSettings
    frames: int
    channel: int
    frame_stride: int = VideoDataSettings().frame_stride


def chosen(collection: Collection, choice: Choice) -> list[Item]:
    """The items that are shown.

    Raises:
        LamellaError: An item that was named does not exist.
    """
    if choice.ids:
        by_id = {item.item_id: item for item in collection.items}
        missing = [item_id for item_id in choice.ids if item_id not in by_id]
        if missing:
            raise LamellaError(collection.name, f"it has no item {', '.join(missing)}", "Correct item_ids.")
        return [by_id[item_id] for item_id in choice.ids]
    order = np.random.default_rng(choice.seed).permutation(len(collection))
    turns: dict[tuple[str, ...], list[Item]] = {}
    for number in order:
        item = collection.items[number]
        turns.setdefault(item.labels or (), []).append(item)
    # One item of each class, then a second of each; within a class, new groups first.
    queues = [_new_groups_first(items) for _, items in sorted(turns.items())]
    rounds = [queue[at] for at in range(max(map(len, queues))) for queue in queues if at < len(queue)]
    return rounds[: choice.count]


def shown_image(collection: Collection, item: Item, encoder: Encoder, choice: Choice) -> Shown:
    """An image, or the middle one of its tiles for an encoder with a spacing.

    Raises:
        ImageError: It cannot be read.
    """
    contract, views = encoder.contract, ItemViews(collection, choice.view, encoder, _CACHE_MB)
    tiles = views.views(item, contract.size_px)
    pixels = tiles[len(tiles) // 2]
    part = f", tile {len(tiles) // 2 + 1} of {len(tiles)}" if len(tiles) > 1 else ""
    # Other images are brought to a size, whatever their spacing.
    spaced = views.tiled and has_spacing(encoder) and min(views.pixels(item).shape[:2]) >= contract.size_px
    mpp = contract.mpp if spaced else None
    mask = None
    # Only a stretched image has its mask's very box.
    if item.mask and collection.read_mask and not views.tiled and choice.view.fit == "stretch":
        mask = mask_layer(collection.read_mask(item), collection.mask_classes)
    return Shown(f"{_named(item)}{part}", _image_tensor(pixels[None]), [image_cut(pixels, mpp)], mpp, mask)


def shown_volume(
    collection: Collection, item: Item, contract: VolumeContract, choice: Choice, volumes: PreparedVolumes
) -> Shown:
    """A crop of the encoder's size, around most of its mask where it has one, else in the middle of the volume.

    Raises:
        ImageError: It cannot be read.
    """
    prepared = volumes.prepared(item)
    values, background = prepared.values_CZYX, prepared.background_C
    moment = ""
    if prepared.timed:
        at = len(values) // 2
        values, background, moment = values[at, None], background[at, None], f", moment {at + 1} of {len(values)}"
    if len(values) != contract.channels:
        raise LamellaError(
            item.item_id,
            f"it has {len(values)} channel(s), and the encoder takes {contract.channels}",
            "Give volumes like those it was trained on.",
        )
    labels = volumes.mask(item) if item.mask and collection.read_mask else None
    centre = (labels is not None and fullest(labels)) or tuple(side // 2 for side in values.shape[1:])
    corner = [_start(at, length, side) for at, length, side in
              zip(centre, values.shape[1:], contract.size, strict=True)]  # fmt: skip
    crop, _ = cut(values, corner, contract.size, background)
    mask, at_zyx = None, None
    if labels is not None:
        part = cut(labels[None], corner, contract.size, np.zeros(1, labels.dtype))[0][0]
        mask, at_zyx = mask_layer(part, collection.mask_classes), fullest(part)
    channel = f", channel {choice.channel + 1} of {len(crop)}" if len(crop) > 1 else ""
    if choice.channel >= len(crop):
        raise LamellaError("channel", f"{choice.channel} of {len(crop)} was asked for", "Channels count from 0.")
    cuts = volume_cuts(crop[choice.channel], prepared.spacing_mm, at_zyx)
    tensor = torch.from_numpy(np.ascontiguousarray(crop, np.float32))[None]
    return Shown(f"{_named(item)}{moment}{channel}", tensor, cuts, prepared.spacing_mm, mask)


def prepared_volumes(collection: Collection, contract: VolumeContract, view: ViewSettings) -> PreparedVolumes:
    """The volumes as this encoder was shown them: its spacing, and its intensity rule unless another is asked for."""
    return PreparedVolumes(
        collection,
        VolumeDataSettings(
            intensity=intensity_of(contract, view),
            spacing_mm=contract.spacing_mm,
            crop=contract.size,
            cache_mb=_CACHE_MB,
        ),
    )


def shown_film(collection: Collection, item: Item, contract: VolumeContract, choice: Choice) -> Shown:
    """The middle of a film in time and space.

    Raises:
        ImageError: It cannot be read.
    """
    settings = VideoDataSettings(
        intensity=intensity_of(contract, choice.view),
        frames=contract.size[0],
        size_px=contract.size[1],
        frame_stride=choice.frame_stride,
        frame_ms=contract.frame_ms,
        exclude_split=None,
    )
    # The clips come with masks, which nothing is made of here; random ones fit any grid.
    masks = MaskSetsSettings(sets=(Random3dMaskSettings(),))
    clips = VideoClips([collection.only([item])], settings, masks, choice.seed, contract.patch)
    voxels = clips.held(1)[0]["voxels"]
    frames = voxels[0].permute(1, 2, 3, 0).numpy()
    return Shown(_named(item), voxels, video_cuts(frames, choice.frames, contract.frame_ms))


def shown_tiles(index: SlideIndex, contract: InputContract, choice: Choice) -> Iterator[Shown]:
    """Tiles of tissue, the slides taking turns.

    Raises:
        LamellaError: The encoder has no spacing, or a slide that was named is not there.
        SlideError: A slide cannot be read.
    """
    if contract.mpp is None:
        raise LamellaError(
            "slides", "the encoder has no spacing, so its tiles have no size", "Give a data set of images instead."
        )
    rng = np.random.default_rng(choice.seed)
    slides = [index[slide_id] for slide_id in choice.ids] if choice.ids else list(index)
    slides = [slides[number] for number in rng.permutation(len(slides))]
    for number in range(choice.count):
        slide = slides[number % len(slides)]
        table = tile_grid(slide, contract.mpp, contract.size_px, GridSettings())
        if not table.num_rows:
            continue
        row = int(rng.integers(table.num_rows))
        images = next(iter(TileBatches({slide.slide_id: slide}, table.slice(row, 1), batch_size=1, threads=1)))
        pixels = np.ascontiguousarray(images[0].permute(1, 2, 0).numpy())
        place = f"x {table['x_px0'][row].as_py():,} y {table['y_px0'][row].as_py():,}"
        yield Shown(
            f"{slide.slide_id}, {place}", _image_tensor(pixels[None]), [image_cut(pixels, contract.mpp)], contract.mpp
        )


def intensity_of(contract: VolumeContract, view: ViewSettings) -> IntensitySettings:
    """The rule that the encoder was trained with, unless the settings ask for another."""
    if view.intensity == IntensitySettings() and contract.intensity is not None:
        return IntensitySettings.model_validate(dict(contract.intensity))
    return view.intensity


def _new_groups_first(items: list[Item]) -> list[Item]:
    seen: dict[str, int] = {}
    order = []
    for item in items:
        seen[item.group] = seen.get(item.group, -1) + 1
        order.append(seen[item.group])
    return [items[number] for number in np.argsort(order, kind="stable")]


def _start(centre: int, length: int, side: int) -> int:
    """First voxel of a crop about `centre` that stays inside the volume; in its middle if the volume is smaller."""
    if length <= side:
        return (length - side) // 2
    return min(max(centre - side // 2, 0), length - side)


def _named(item: Item) -> str:
    return item.item_id + (f" ({', '.join(item.labels) or 'no finding'})" if item.labels is not None else "")


def _image_tensor(pixels_BYXC: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels_BYXC.transpose(0, 3, 1, 2).copy())
