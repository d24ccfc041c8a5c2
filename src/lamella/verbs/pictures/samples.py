"""`lamella preview DATA method.name=... -o previews`: draw what a method will see of images, volumes or video."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from PIL import Image, ImageDraw
from pydantic import Field
from torch import Tensor

from lamella.config import Request
from lamella.data.clips import VideoClips
from lamella.data.images import TrainingImages
from lamella.data.masked_images import MaskedImages
from lamella.data.masks.mask import Mask
from lamella.data.multi_crop import MultiCrops
from lamella.data.volume_crops import VolumeCrops
from lamella.engine.rundir import claim
from lamella.errors import ImageError
from lamella.formats.tables import write_csv
from lamella.verbs.pretraining.collections import open_collections
from lamella.verbs.pretraining.course import RunSettings
from lamella.verbs.pretraining.images import JepaConfig, LeJepaConfig, MaskedConfig
from lamella.verbs.pretraining.volumes import VideoConfig, VolumeConfig
from lamella.verbs.progress import progress
from lamella.view.marks import PALETTE, Colour
from lamella.view.mask_pictures import mask_over_frames, mask_over_image, mask_over_planes
from lamella.view.panels import Cell, panel_px, sheet, write_sheet
from lamella.view.planes import Cut, common_scale, drawn, image_cut, video_cuts, volume_cuts

FAILED = "failed.csv"
# They change how samples are fetched, not what they are.
_IGNORED = (
    *("data.workers", "data.batch_size", "data.samples_per_epoch", "data.cache_mb"),
    *("optim", "budget", "log", "checkpoint", "device", "precision"),
)
_GLOBAL, _LOCAL = PALETTE[4], PALETTE[3]
_VIEW_COLUMNS = 4
_FRAMES = 8  # of a clip side by side; more are too small to see a patch in
_MASK_TEXT = "What the encoder is shown is left as it is; pale: hidden; coloured: asked for, a colour for each target."


class SampleSettings(RunSettings):
    """What previews of all methods have in common: a preview takes a pretraining run's own profile or run file.

    What only training needs (optim, budget, ...) changes no picture.
    """

    num_samples: Annotated[int, Field(ge=1)] = 8
    """Samples to draw: the first that training with these settings and this seed would get."""


class LeJepaPreview(SampleSettings, LeJepaConfig):
    """Settings of `lamella preview DATA method.name=lejepa`."""


class IJepaPreview(SampleSettings, MaskedConfig):
    """Settings of `lamella preview DATA method.name=ijepa`."""


class JepaPreview(SampleSettings, JepaConfig):
    """Settings of `lamella preview DATA method.name=jepa`."""


class VolumePreview(SampleSettings, VolumeConfig):
    """Settings of `lamella preview DATA method.name=volume`."""


class VideoPreview(SampleSettings, VideoConfig):
    """Settings of `lamella preview DATA method.name=video`."""


Draw = Callable[[int], tuple[str, Image.Image]]
"""Position -> the item's name and the page of its sample."""


def run_samples(request: Request, schema: type[SampleSettings]) -> int:
    """Write one page for each sample; a sample that cannot be read is listed in failed.csv and the others go on."""
    resolved = request.resolve(schema)
    config: Any = resolved.config
    collections = open_collections(request, config.data.dataset)
    # With one sample a step, the batch of a step is the sample of that position.
    single = config.model_copy(update={"data": config.data.model_copy(update={"batch_size": 1})})
    total, draw = _DRAWERS[schema](collections, single)
    count = min(config.num_samples, total)
    if request.dry_run:
        print(resolved.text())
        print(f"would draw {count} of {total} samples")
        return 0
    inputs = {"items": [[collection.name, len(collection)] for collection in collections]}
    out = request.folder()
    claimed = claim(out, resolved.tree(), resolved.origins, verb="preview", ignore=_IGNORED, inputs=inputs)
    drawn_now, failed = 0, []
    for position in progress(range(count), "preview"):
        path = claimed.folder / f"preview_s{position:03d}.png"
        if path.exists():
            continue
        try:
            write_sheet(draw(position)[1], path)
            drawn_now += 1
        except ImageError as error:
            failed.append({"sample": str(position), "error": str(error)})
    return _finish(request, failed, drawn_now, count)


def _finish(request: Request, failed: list[dict[str, str]], drawn_now: int, count: int) -> int:
    out = request.folder()
    if failed:
        write_csv(out / FAILED, failed, ["sample", "error"])
        print(f"{len(failed)} of {count} samples failed; the reasons are in {out / FAILED}")
    else:
        (out / FAILED).unlink(missing_ok=True)
    if drawn_now or failed:
        print(f"wrote {drawn_now} pictures of {count} samples to {out}")
    else:
        print(f"nothing to do: {out} is complete")
    own = tuple(f"{key}=" for key in SampleSettings.model_fields if key != "seed")
    settings = [text for text in request.overrides if not text.startswith(own)]
    files = [*(("-p", request.profile) if request.profile else ()), *(("-r", request.run) if request.run else ())]
    words = ["lamella", "pretrain", *request.paths, *files, *settings, "-o", "runs/first"]
    print(f"next: {shlex.join(map(str, words))}")
    return 1 if failed else 0


# ---- images ---------------------------------------------------------------------------------------------------------


def _views(collections: Any, config: LeJepaPreview) -> tuple[int, Draw]:
    samples = MultiCrops(
        TrainingImages(collections, config.data, config.seed),
        config.views,
        config.data.size_px,
        config.method.encoder.patch_px,
    )
    views = config.views

    def draw(position: int) -> tuple[str, Image.Image]:
        batch = samples.batch(position)
        pictures = [_pixels(view) for view in batch["globals"][0]]
        pictures += [_pixels(view) for view in batch["locals"][0]] if views.local_views else []
        side = panel_px(_VIEW_COLUMNS + 1)
        kinds = ["global"] * views.global_views + ["local"] * views.local_views
        cells: list[Cell | None] = [
            Cell(_square(picture, side), f"{kind} view {number}, {len(picture)} px")
            for number, (kind, picture) in enumerate(zip(kinds, pictures, strict=True), start=1)
        ]
        rows = [cells[at : at + _VIEW_COLUMNS] for at in range(0, len(cells), _VIEW_COLUMNS)]
        whole = Cell(_with_boxes(samples, position, kinds, side), "blue: global views; orange: local views")
        rows = [[whole if number == 0 else None, *row] for number, row in enumerate(rows)]
        facts = [
            f"{views.global_views} global and {views.local_views} local views of one image, recoloured as in training. "
            "All are embedded; the loss draws each to the mean of the global ones."
        ]
        name = _item_name(samples.images, position)
        return name, sheet(f"sample {position}: {name}", facts, rows)

    return len(samples), draw


def _with_boxes(samples: MultiCrops, position: int, kinds: list[str], side: int) -> Image.Image:
    """The whole image, with the box of each view."""
    pixels = samples.images.at(position)
    scale = common_scale([image_cut(pixels)], side)
    image = drawn(image_cut(pixels), scale)
    draw = ImageDraw.Draw(image)
    for view, kind in reversed(list(enumerate(kinds))):  # global ones last: they are few
        box = samples.view_box(position, view)
        rgb: Colour = _GLOBAL if kind == "global" else _LOCAL
        draw.rectangle(tuple(edge * scale for edge in (box.x0, box.y0, box.x1, box.y1)), outline=rgb, width=2)
    return image


def _masked(collections: Any, config: IJepaPreview) -> tuple[int, Draw]:
    images = TrainingImages(collections, config.data, config.seed)
    samples = MaskedImages(images, config.masks, config.data.size_px, config.method.encoder.patch_px)

    def draw(position: int) -> tuple[str, Image.Image]:
        batch, side = samples.batch(position), panel_px(3)
        crop = _pixels(batch["image"][0])
        mask = _mask_of(batch, samples.grid)
        pixels, box = images.at(position), samples.crop_box(position)
        scale = common_scale([image_cut(pixels)], side)
        whole = drawn(image_cut(pixels), scale)
        edges = tuple(edge * scale for edge in (box.x0, box.y0, box.x1, box.y1))
        ImageDraw.Draw(whole).rectangle(edges, outline=_GLOBAL, width=3)
        whole_px = side // mask.grid[0] * mask.grid[0]  # tokens of whole pixels, so that lines are sharp
        asked = len(np.unique(np.concatenate(mask.targets)))
        tokens = int(np.prod(mask.grid))
        cells = [
            Cell(whole, "the image and the crop"),
            Cell(_square(crop, side), f"crop of {len(crop)} px, {mask.grid[0]} × {mask.grid[1]} tokens"),
            Cell(
                Image.fromarray(mask_over_image(np.asarray(_square(crop, whole_px)), mask)),
                f"{len(mask.context)} of {tokens} tokens shown, {asked} asked for in {len(mask.targets)} targets",
            ),
        ]
        name = _item_name(images, position)
        return name, sheet(f"sample {position}: {name}", [_MASK_TEXT], [cells])

    return len(samples), draw


# ---- volumes and films ----------------------------------------------------------------------------------------------


def _planes(collections: Any, config: VolumePreview) -> tuple[int, Draw]:
    samples = VolumeCrops(collections, config.data, config.masks, config.seed, config.method.encoder.patch)

    def draw(position: int) -> tuple[str, Image.Image]:
        batch = samples.batch(position)
        values = batch["voxels"][0, 0].numpy()
        spacing = batch["spacing_mm"][0].tolist() if "spacing_mm" in batch else config.data.spacing_mm
        cuts = volume_cuts(values, tuple(spacing))
        masked = [
            [replace(cut, pixels=pixels) for cut, pixels in zip(cuts, mask_over_planes(values, mask), strict=True)]
            for mask in _mask_sets(batch, samples.grid)
        ]
        return _space_time_page(samples, position, batch, [cuts, *masked], "voxels")

    return len(samples), draw


def _frames(collections: Any, config: VideoPreview) -> tuple[int, Draw]:
    samples = VideoClips(collections, config.data, config.masks, config.seed, config.method.encoder.patch)

    def draw(position: int) -> tuple[str, Image.Image]:
        batch = samples.batch(position)
        frames = batch["voxels"][0].permute(1, 2, 3, 0).numpy()
        cuts = video_cuts(frames, samples.grid[0])
        masked = [
            [replace(cut, pixels=pixels) for cut, pixels in zip(cuts, mask_over_frames(frames, mask), strict=True)]
            for mask in _mask_sets(batch, samples.grid)
        ]
        shown = np.unique(np.linspace(0, len(cuts) - 1, min(_FRAMES, len(cuts))).round().astype(int))
        rows = [[row[at] for at in shown] for row in (cuts, *masked)]
        return _space_time_page(samples, position, batch, rows, "frames, rows, columns")

    return len(samples), draw


def _space_time_page(
    samples: VolumeCrops | VideoClips, position: int, batch: dict[str, Tensor], rows: list[list[Cut]], unit: str
) -> tuple[str, Image.Image]:
    """The plain views above, and below them those of each mask set."""
    scale = common_scale(rows[0], panel_px(len(rows[0])))
    cells: list[list[Cell | None]] = [
        [Cell(drawn(cut, scale, bar=number == 0)) for cut in row] for number, row in enumerate(rows)
    ]
    masks = _mask_sets(batch, samples.grid)
    tokens = int(np.prod(samples.grid))
    names = [
        f"as the encoder sees it, {' × '.join(map(str, batch['voxels'].shape[2:]))} {unit}",
        *(
            f"mask set {number}: {len(mask.context)} of {tokens} tokens are shown, {len(mask.targets[0])} are asked for"
            for number, mask in enumerate(masks, start=1)
        ),
    ]
    name = samples.items.at(position)[1].item_id
    columns = [cut.name for cut in rows[0]]
    page = sheet(f"sample {position}: {name}", [_MASK_TEXT], cells, columns=columns, names=names)
    return name, page


# ---- small things ---------------------------------------------------------------------------------------------------


def _mask_sets(batch: dict[str, Tensor], grid: tuple[int, ...]) -> list[Mask]:
    """The masks of the first sample of a batch of mask sets."""
    return [
        Mask(
            batch["context"][0, number][~batch["context_pad"][0, number]].numpy(),
            (batch["targets"][0, number][~batch["targets_pad"][0, number]].numpy(),),
            grid,
        )
        for number in range(batch["context"].shape[1])
    ]


def _mask_of(batch: dict[str, Tensor], grid: tuple[int, ...]) -> Mask:
    """The mask of the first sample of a batch of masked images."""
    targets = zip(batch["targets"][0], batch["targets_pad"][0], strict=True)
    return Mask(
        batch["context"][0][~batch["context_pad"][0]].numpy(), tuple(each[~pad].numpy() for each, pad in targets), grid
    )


def _item_name(images: TrainingImages, position: int) -> str:
    return images.items[images.order.at(position)[1]][1].item_id


def _pixels(view: Tensor) -> np.ndarray:
    return np.ascontiguousarray(view.permute(1, 2, 0).numpy())


def _square(pixels: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


_DRAWERS: dict[type[SampleSettings], Callable[[Any, Any], tuple[int, Draw]]] = {
    LeJepaPreview: _views,
    IJepaPreview: _masked,
    JepaPreview: _masked,
    VolumePreview: _planes,
    VideoPreview: _frames,
}
