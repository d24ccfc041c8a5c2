"""From the rasters of a slide to its files: refined labels as a mask, confidence maps, picture, outlines, doubts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lamella.dense.doubts import tile_doubts
from lamella.dense.engine import LABELS, PROBABILITIES
from lamella.dense.exports import ExportSettings, export_prediction
from lamella.dense.refining.bands import refine_raster
from lamella.formats.ome_zarr import StoredRaster, open_raster
from lamella.formats.tables import write_parquet
from lamella.models.dense_contract import DenseContract, DenseModel
from lamella.slides.grid import tile_table
from lamella.slides.slide import Slide
from lamella.verbs.weak_stages.prediction_files import MAPS_NPZ, MAPS_ZARR, PICTURE, write_maps, write_mask
from lamella.verbs.weak_stages.prediction_settings import PredictionSettings
from lamella.view.class_colours import class_colours
from lamella.view.prediction import draw_prediction

RAW, REFINED = "raw", "refined"
DOUBTS = "tiles.parquet"


@dataclass(frozen=True)
class Rasters:
    """Where the rasters of a slide are while it is worked on.

    Attributes:
        folder: The slide's own.
        work: Hidden in it; removed when the slide is finished.
    """

    folder: Path
    work: Path

    @property
    def raw(self) -> Path:
        """What the dense engine writes."""
        return self.work / RAW

    @property
    def probabilities(self) -> Path:
        return self.raw / PROBABILITIES

    def take_back(self) -> None:
        """Undo the last step of a run that was stopped right after it, so that every step can be done again."""
        if (self.folder / MAPS_ZARR).exists() and not self.probabilities.exists():
            (self.folder / MAPS_ZARR).rename(self.probabilities)


def write_outputs(
    slide: Slide, slide_id: str, rasters: Rasters, model: DenseModel, settings: PredictionSettings
) -> dict[str, Any]:
    """Write all files of a slide but metadata.json.

    Args:
        slide: Open.
        slide_id: Its name, for tables and pictures.
        rasters: Finished by the dense engine.
        model: Which was loaded; it says how large a tile is.
        settings: Which files, and the refinement.

    Returns:
        Names of the files, areas and sizes, for metadata.json.

    Raises:
        SlideError: The slide cannot be read.
        StorageError: The disk refused a write.
    """
    folder, background = rasters.folder, model.contract.background
    labels = _refined(slide, rasters, settings, background)
    mask, shares = open_raster(labels), open_raster(rasters.probabilities)
    small = mask.frame.width_px * mask.frame.height_px <= settings.small_mpx * 1e6
    exported = export_prediction(
        labels,
        folder,
        slide.frame,
        probabilities=rasters.probabilities,
        background=background,
        colours=class_colours(mask.names, background),
        settings=ExportSettings(label_tiff=False, geojson=settings.geojson),
    )
    _write_doubts(folder / DOUBTS, slide, slide_id, shares, model.contract)
    title = f"{slide_id}: {model.name}"
    areas = exported.areas_mm2
    draw_prediction(slide, labels, folder / PICTURE, title=title, background=background, areas_mm2=areas)
    name = write_mask(mask, folder, small=small)
    if small:
        write_maps(shares, folder / MAPS_NPZ)
    else:
        rasters.probabilities.rename(folder / MAPS_ZARR)  # last: what comes before is made of it
    return {
        "segmentation_mask": name,
        "confidence_maps": MAPS_NPZ if small else MAPS_ZARR,
        "areas_mm2": areas,
        "objects": exported.objects,
    }


def _refined(slide: Slide, rasters: Rasters, settings: PredictionSettings, background: str | None) -> Path:
    """The folder of the labels after post-processing; the dense engine's own where nothing is to be done."""
    refine = settings.refine
    asked = refine.use_crf or refine.edge_refinement or refine.morphological_op != "none"
    if not asked and refine.min_component_size <= 1:
        return rasters.raw / LABELS
    out = rasters.work / REFINED
    refine_raster(rasters.probabilities, slide, refine, out, background=background, threads=settings.threads)
    return out / LABELS


def _write_doubts(path: Path, slide: Slide, slide_id: str, shares: StoredRaster, contract: DenseContract) -> None:
    """Every tile of the model's size with how unsure the prediction is there: a tile table."""
    assert contract.mpp is not None  # the engine has refused it otherwise
    doubts = tile_doubts(shares, slide.frame, max(1, round(contract.tile_px * contract.mpp / shares.frame.mpp)))
    table = tile_table(slide_id, doubts.corners_px0, doubts.fov_um, contract.mpp)
    for name, values in (("margin", doubts.margin), ("entropy", doubts.entropy)):
        table = table.append_column(name, pa.array(values, pa.float64()))
    likeliest = [shares.names[number] for number in doubts.likeliest.tolist()]
    write_parquet(path, table.append_column("likeliest", pa.array(likeliest, pa.string())))
