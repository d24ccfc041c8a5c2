"""Any dense model on a whole slide: tiles on tissue, blended, streamed to disk band by band, resumed after a stop.

Memory is bounded by the slide's width times the height of a tile, whatever the slide's height: for each column of the
raster and channel 4 bytes for each row that two rows of tiles share, and the stored bytes (1 of a class, 2 of a value)
for each row of the bands at work.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from lamella.config import Settings
from lamella.dense.bands import Bands, ClassEncoding, Encoding, ValueEncoding
from lamella.dense.blending import BlendSettings
from lamella.dense.exports import ExportSettings, export_prediction
from lamella.dense.mosaic import Taker
from lamella.dense.outside import InsideTissue
from lamella.dense.progress import SlideFolder, array_mark, slide_mark
from lamella.dense.reading import SlideTiles
from lamella.dense.runtime import Runtime, blend, device_of, tile_side
from lamella.dense.tiling import Tiling
from lamella.errors import EmptyTissueError, LamellaError
from lamella.formats.ome_zarr import LabelStore, ProbabilityStore, ValueStore
from lamella.geometry import Frame
from lamella.models.dense_contract import DenseModel
from lamella.slides.slide import Slide
from lamella.slides.tissue import TissueSettings, find_tissue
from lamella.slides.tissue_map import TissueMap

BAND_PX = 512  # image rows of a band, and side of a chunk: a slide has thousands of them, not millions
_LEAST_BAND = 16  # rows of the raster, whatever the stride
LABELS, PROBABILITIES, VALUES = "labels.zarr", "probabilities.zarr", "values.zarr"

AnyStore = LabelStore | ProbabilityStore | ValueStore


class DenseSettings(Settings):
    """What decides the prediction of a slide, beside the model."""

    mpp: Annotated[float, Field(gt=0)] | None = None
    """Micrometres per pixel that the model is shown; its own unless given."""
    tile_px: Annotated[int, Field(ge=1)] | None = None
    """Side of a tile in pixels; the model's own unless given."""
    blend: BlendSettings = BlendSettings()
    """How overlapping tiles become one map."""
    everywhere: bool = False
    """Look at the whole slide, tissue or not."""
    within_tissue: bool = False
    """Leave pixels outside the tissue's mask as not looked at, even where a tile on tissue shows them. For models
    without a class for glass; areas are then those of tissue."""
    tissue: TissueSettings = TissueSettings()
    """How tissue is found where no index gives it."""


@dataclass(frozen=True)
class Plan:
    """What is to be done on one slide.

    Attributes:
        frame: The maps' raster from the slide's top left corner, at exactly the model's mpp. Its last row and column
            may reach over the slide's edge, by half an image pixel or less than a stride.
        tiling: Of that raster.
        stride: Image pixels per pixel of the raster.
        tissue: None: everything is looked at.
    """

    frame: Frame
    tiling: Tiling
    stride: int
    tissue: TissueMap | None

    @property
    def band(self) -> int:
        """Rows of the raster that are written at once, and side of a chunk; even."""
        return max(_LEAST_BAND, BAND_PX // self.stride // 2 * 2)


def predict_slide(
    model: DenseModel,
    slide: Slide,
    out: Path | str,
    settings: DenseSettings | None = None,
    *,
    tissue: TissueMap | None = None,
    runtime: Runtime | None = None,
    exports: ExportSettings | None = None,
    colours: Mapping[str, tuple[int, int, int]] | None = None,
    may_be_empty: bool = False,
) -> dict[str, Any]:
    """Predict one slide into a folder, or go on where a stopped run left off.

    Args:
        model: On the runtime's device.
        slide: Open.
        out: The slide's own folder: labels.zarr and probabilities.zarr (classes) or values.zarr (values), what
            `export_prediction` makes of classes, and at last prediction.json.
        settings: What decides the pixels.
        tissue: The slide's, if it is known; found now otherwise.
        runtime: Device, batches, threads; the model's device by default.
        exports: What is written beside the rasters. A finished folder gets what it lacks.
        colours: Of the classes, for QuPath.
        may_be_empty: A slide without tissue is finished with nothing looked at, instead of refused.

    Returns:
        What prediction.json holds.

    Raises:
        EmptyTissueError: There is no tissue on the slide.
        OutputConflictError: The folder holds another prediction.
        SlideError: The slide cannot be read.
        StorageError: The disk refused a write; what was finished is kept.
        LamellaError: The model states no mpp, cannot take such tiles, or does not keep to its contract.
    """
    began = time.monotonic()
    settings, exports = settings or DenseSettings(), exports or ExportSettings()
    runtime, palette = runtime or Runtime(device_of(model)), dict(colours or {})
    shown = {"exports": exports.model_dump(mode="json"), "colours": {name: list(rgb) for name, rgb in palette.items()}}
    folder = SlideFolder(Path(out), _key(model, slide, settings, tissue, runtime))
    if folder.done is not None and shown.items() <= folder.done.items():
        return folder.done
    facts = folder.done
    if facts is None:
        plan = plan_slide(model, slide, settings, tissue, may_be_empty=may_be_empty)
        folder.begin()
        stream_rasters(model, slide, plan, settings, folder.folder, runtime)
        facts = _facts(model, slide, plan, settings)
    if model.contract.kind == "classes":
        facts = {**facts, **_export(model, slide, folder.folder, exports, palette)}
    return folder.finish({**facts, **shown, "seconds": round(time.monotonic() - began, 1)})


def plan_slide(
    model: DenseModel,
    slide: Slide,
    settings: DenseSettings,
    tissue: TissueMap | None = None,
    *,
    may_be_empty: bool = False,
) -> Plan:
    """Lay the raster and its tiles over a slide; with `may_be_empty` there may be none.

    Raises:
        EmptyTissueError: There is no tissue on the slide.
        LamellaError: The model states no mpp, or cannot take such tiles.
    """
    contract = model.contract
    mpp = model_mpp(model, settings)
    side = tile_side(model, settings.tile_px)
    width_um, height_um = slide.frame.size_um
    stride = contract.stride
    width, height = (-(-max(1, round(length / mpp)) // stride) for length in (width_um, height_um))
    frame = Frame(width, height, mpp * stride, mpp * stride)
    tiling = Tiling.over(height, width, side // stride, settings.blend.overlap)
    if settings.everywhere:
        return Plan(frame, tiling, stride, None)
    if tissue is None:
        tissue = _found(slide, settings.tissue, may_be_empty)
    tiling = tiling.on_tissue(tissue, frame)
    if not len(tiling) and not may_be_empty:
        raise EmptyTissueError(
            slide.path, "its tissue mask is empty", "Give another mask, or set everywhere=true to look at all of it."
        )
    return Plan(frame, tiling, stride, tissue)


def _found(slide: Slide, settings: TissueSettings, may_be_empty: bool) -> TissueMap:
    try:
        mask = find_tissue(slide, settings)
    except EmptyTissueError as error:
        if may_be_empty:
            return TissueMap(np.zeros((1, 1), bool), slide.frame.resized(1, 1))
        remedy = "Try tissue.method=optical_density, or look at all of it with everywhere=true."
        raise EmptyTissueError(error.thing, error.cause, remedy) from error
    return TissueMap(mask, slide.frame.resized(mask.shape[1], mask.shape[0]))


def model_mpp(model: DenseModel, settings: DenseSettings) -> float:
    """Micrometres per pixel that the model is shown.

    Raises:
        LamellaError: Nobody stated them.
    """
    mpp = settings.mpp or model.contract.mpp
    if mpp is None:
        raise LamellaError(
            model.name,
            "it does not state at how many micrometres per pixel it was trained",
            "Set mpp=0.5 (or what its training images had), or train it on images that state it.",
        )
    return mpp


def stream_rasters(
    model: DenseModel, slide: Slide, plan: Plan, settings: DenseSettings, folder: Path, runtime: Runtime
) -> None:
    """Predict what the rasters of a folder still lack, and finish them."""
    tiling, (stores, encoding) = plan.tiling, _stores(model, folder, plan)
    rows = min(store.done_px for store in stores)
    if rows < tiling.height:
        band = rows // plan.band
        first_row = tiling.first_row_reaching(band * plan.band)
        # A batch is what it would have been without the stop: other batches could round otherwise.
        first_tile = tiling.first_tile_of(first_row) // runtime.batch_size * runtime.batch_size
        tiles = SlideTiles(slide, tiling, plan.frame, plan.stride, runtime)
        with Bands(stores, encoding, tiling, plan.band, first=band) as bands:
            taker: Taker = bands
            if settings.within_tissue and plan.tissue is not None:
                taker = InsideTissue(bands, plan.tissue, plan.frame)
            batches = tiles.batches(first_tile)
            blend(model, batches, tiling, settings.blend, taker, runtime, first_row=first_row, first_tile=first_tile)
            bands.finish()
    for store in stores:
        store.finish()


def _stores(model: DenseModel, folder: Path, plan: Plan) -> tuple[list[AnyStore], Encoding]:
    names, frame = model.contract.channels, plan.frame
    place = (frame.height_px, frame.width_px, frame.mpp, plan.band)
    if model.contract.kind == "values":
        return [ValueStore(folder / VALUES, names, *place)], ValueEncoding(model.name, len(names))
    labels = LabelStore(folder / LABELS, names, *place)
    return [labels, ProbabilityStore(folder / PROBABILITIES, names, *place)], ClassEncoding(model.name, len(names))


def _export(
    model: DenseModel,
    slide: Slide,
    folder: Path,
    exports: ExportSettings,
    colours: Mapping[str, tuple[int, int, int]],
) -> dict[str, Any]:
    exported = export_prediction(
        folder / LABELS,
        folder,
        slide.frame,
        probabilities=folder / PROBABILITIES,
        background=model.contract.background,
        colours=colours,
        settings=exports,
    )
    return {"areas_mm2": exported.areas_mm2, "objects": exported.objects}


def _key(
    model: DenseModel, slide: Slide, settings: DenseSettings, tissue: TissueMap | None, runtime: Runtime
) -> dict[str, Any]:
    """What the pixels depend on."""
    seen = "everywhere" if settings.everywhere else None if tissue is None else array_mark(tissue.mask)
    return {
        "model": model.fingerprint,
        "slide": slide_mark(slide),
        "dct_scaling": slide.dct_scaling,
        "tissue": seen or settings.tissue.model_dump(mode="json"),
        "bf16": runtime.bf16,
        "settings": settings.model_dump(mode="json", exclude={"tissue"}),
    }


def _facts(model: DenseModel, slide: Slide, plan: Plan, settings: DenseSettings) -> dict[str, Any]:
    contract, frame, tiling = model.contract, plan.frame, plan.tiling
    return {
        "slide": slide.path.name,
        "slide_px0": [slide.frame.width_px, slide.frame.height_px],
        "slide_mpp": [slide.frame.mpp_x, slide.frame.mpp_y],
        "model": model.name,
        "fingerprint": model.fingerprint,
        "licence": contract.licence,
        "kind": contract.kind,
        "classes" if contract.kind == "classes" else "channels": list(contract.channels),
        "background": contract.background,
        "mpp": frame.mpp,
        "raster_px": [frame.width_px, frame.height_px],
        "tile_px": tiling.side * plan.stride,
        "tiles": len(tiling),
        "tiles_of_slide": tiling.kept.size,
        "tissue_share": None if plan.tissue is None else float(plan.tissue.mask.mean()),
        "settings": settings.model_dump(mode="json"),
    }
