"""The work of stage 5 on one slide, in this process or on a worker.

A slide's rasters are made in a hidden folder inside its own, band by band, by the dense engine and the refinement, and
go on where they were stopped. Then come the files of the source's contract, each whole or not at all, and at last
metadata.json, which makes the folder whole.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from lamella.data.bag_slides import Listed, OpenedSlide
from lamella.dense.engine import DenseSettings, predict_slide
from lamella.dense.exports import ExportSettings
from lamella.dense.gating import PRESENT, Gated, slide_probabilities, voices_of
from lamella.dense.progress import SlideFolder, array_mark, slide_mark
from lamella.dense.runtime import Runtime
from lamella.dense.scales import MultiScale
from lamella.dense.voting import Voting
from lamella.engine.world import choose_device, choose_precision
from lamella.formats.atomic import write_json
from lamella.formats.ome_tiff import class_table
from lamella.models.dense_contract import DenseModel
from lamella.slides.index import IndexedSlide
from lamella.slides.slide import Slide, open_slide
from lamella.slides.tissue_map import TissueMap
from lamella.verbs.prediction import loaded_dense
from lamella.verbs.weak_stages.prediction_files import METADATA, now
from lamella.verbs.weak_stages.prediction_outputs import Rasters, write_outputs
from lamella.verbs.weak_stages.prediction_places import area_of_tiles
from lamella.verbs.weak_stages.prediction_settings import PredictionSettings

_WORK, _SAID = ".work", "image_labels.json"
_NO_FILES = ExportSettings(label_tiff=False, geojson=False)


@dataclass(frozen=True)
class GivenTiles:
    """The tiles of a slide that a user brought.

    Attributes:
        source: Their file or folder, for errors.
        corners_px0: (N, 2) top-left corners.
        fov_um: Their side.
    """

    source: Path
    corners_px0: np.ndarray
    fov_um: float


@dataclass(frozen=True)
class ToSegment:
    """One slide.

    Attributes:
        listed: The slide, which may know its tissue.
        mpp: Stated (x, y) micrometres per pixel at level 0.
        tiles: Only what they cover is labelled; None: what is tissue.
    """

    listed: Listed
    mpp: tuple[float, float] | None
    tiles: GivenTiles | None = None

    @property
    def slide_id(self) -> str:
        return self.listed.slide_id

    @property
    def wsi_path(self) -> Path:
        return self.listed.wsi_path

    def area(self, slide: Slide) -> TissueMap | None:
        """Where to look, if it is known before the slide is looked at.

        Raises:
            SlideError: The tiles lie off the slide, or a given mask does not fit.
        """
        frame = slide.frame
        if self.tiles is not None:
            side_px0 = self.tiles.fov_um / frame.mpp_x, self.tiles.fov_um / frame.mpp_y
            return area_of_tiles(self.tiles.source, self.slide_id, self.tiles.corners_px0, side_px0, frame)
        if isinstance(self.listed, IndexedSlide) or self.listed.mask_path is not None:
            return OpenedSlide(self.listed, frame, slide.levels).tissue()
        return None


@dataclass(frozen=True)
class SegmentSlide:
    """What to do with each slide. It travels to workers without the weights, which each process loads once.

    Attributes:
        spec: What `load_dense` takes.
        fingerprint: The model that it must give, on every machine.
        folder: Where the slides' folders go, as every worker sees it.
        classes: Of the study, without the background.
        labels_are: What the model was trained with: labels of a slide, or of each patch.
        everywhere: Look at all of every slide.
        model: The loaded model, in the process that loaded it.
    """

    spec: str
    fingerprint: str
    folder: Path
    classes: tuple[str, ...]
    labels_are: str
    settings: PredictionSettings
    everywhere: bool = False
    model: DenseModel | None = None

    def __call__(self, item: ToSegment) -> dict[str, Any]:
        """Segment one slide, unless that was done before; what metadata.json holds.

        Raises:
            CheckpointError: The model is another one on this machine.
            OutputConflictError: The slide's folder holds another prediction.
            SlideError: The slide or its coordinates cannot be used.
            StorageError: The disk refused a write; what was finished is kept.
        """
        began = time.monotonic()
        model, runtime = self._ready()
        with open_slide(item.wsi_path, mpp=item.mpp, dct_scaling=self.settings.dct_scaling) as slide:
            area = None if self.everywhere else item.area(slide)
            folder = SlideFolder(self.folder / item.slide_id, self._key(slide, area), METADATA)
            rasters = Rasters(folder.folder, folder.folder / _WORK)
            if folder.done is None:
                folder.begin()
                rasters.take_back()
                told = self._predicted(item, slide, area, model, runtime, rasters)
                told |= write_outputs(slide, item.slide_id, rasters, model, self.settings)
                folder.finish(self._metadata(told, model, began))
            shutil.rmtree(rasters.work, ignore_errors=True)
        assert folder.done is not None
        return folder.done

    def _predicted(
        self,
        item: ToSegment,
        slide: Slide,
        area: TissueMap | None,
        model: DenseModel,
        runtime: Runtime,
        rasters: Rasters,
    ) -> dict[str, Any]:
        """Make the rasters; what is told of them."""
        dense = self.settings.dense(everywhere=self.everywhere, within=item.tiles is not None)
        said = self._said(model, slide, dense, area, runtime, rasters.work) if self.settings.gate != "none" else None
        facts = predict_slide(
            self._wrapped(model, said),
            slide,
            rasters.raw,
            dense,
            tissue=area,
            runtime=runtime,
            exports=_NO_FILES,
            may_be_empty=True,
        )
        looked = "the whole slide" if self.everywhere else "the given tiles" if item.tiles is not None else "tissue"
        return {**facts, "image_labels": said, "looked_at": looked}

    def _key(self, slide: Slide, area: TissueMap | None) -> dict[str, Any]:
        """What the slide's files depend on."""
        seen = "everywhere" if self.everywhere else "tissue" if area is None else array_mark(area.mask)
        return {
            "model": self.fingerprint,
            "slide": slide_mark(slide),
            "area": seen,
            "classes": list(self.classes),
            "settings": self.settings.deciding(),
        }

    def _said(
        self,
        model: DenseModel,
        slide: Slide,
        dense: DenseSettings,
        area: TissueMap | None,
        runtime: Runtime,
        work: Path,
    ) -> dict[str, float]:
        """Class -> probability that the slide holds it. Kept, so that a stopped run need not look again."""
        if self.labels_are == "patch":
            return {}
        kept = work / _SAID
        if not kept.is_file():
            found = slide_probabilities(voices_of(model), slide, dense, area, runtime)
            write_json(kept, dict(zip(self.classes, found.tolist(), strict=True)))
        return dict(json.loads(kept.read_text(encoding="utf-8")))

    def _wrapped(self, model: DenseModel, said: Mapping[str, float] | None) -> DenseModel:
        """The model as the settings want it: gated, at several scales, voting."""
        settings = self.settings
        if said is not None:
            present = np.array(list(said.values())) > PRESENT if said else None  # without: each tile by itself
            model = Gated(model, voices_of(model), present)
        if settings.scales != (1.0,):
            model = MultiScale(model, settings.scales)
        return Voting(model) if settings.fusion == "voting" else model

    def _metadata(self, told: Mapping[str, Any], model: DenseModel, began: float) -> dict[str, Any]:
        """The source's fields, and then what it lacks."""
        refine = self.settings.refine
        return {
            "wsi_name": told["slide"],
            "model_version": model_version(model),
            "num_patches": told["tiles"],
            "processing_time_sec": round(time.monotonic() - began, 1),
            "class_order": list(self.classes),
            "segmentation_mask": told["segmentation_mask"],
            "confidence_maps": told["confidence_maps"],
            "post_processing": {
                "morphological_op": refine.morphological_op,
                "kernel_size": refine.kernel_size,
                "min_component_size": refine.min_component_size,
                "use_crf": refine.use_crf,
                "edge_refinement": refine.edge_refinement,
            },
            "timestamp": now(),
            "background": told["background"],
            "mask_values": class_table(told["classes"]),
            "mask_mpp": told["mpp"],
            "mask_px": told["raster_px"],
            "slide_px0": told["slide_px0"],
            "slide_mpp": told["slide_mpp"],
            "tile_px": told["tile_px"],
            "looked_at": told["looked_at"],
            "image_labels": told["image_labels"],
            "areas_mm2": told["areas_mm2"],
            "objects": told["objects"],
            "model": model.name,
            "model_fingerprint": model.fingerprint,
            "licence": told["licence"],
        }

    def _ready(self) -> tuple[DenseModel, Runtime]:
        settings, device = self.settings, choose_device(self.settings.device)[0]
        model = self.model or loaded_dense(self.spec, self.fingerprint)
        model.to(device)
        bf16 = choose_precision(device, settings.precision)[0] == "bf16"
        return model, Runtime(device, settings.batch_size, settings.threads, bf16)

    def __reduce__(self) -> tuple[Any, ...]:
        sent = replace(self, model=None)
        return SegmentSlide, tuple(getattr(sent, field.name) for field in fields(sent))


def model_version(model: DenseModel) -> str:
    """What tells this model from others of its kind: which weights of its training it has, and its fingerprint."""
    facts = getattr(model, "facts", {})
    name = model.name
    if "best_step" in facts:
        weights = facts.get("weights", "best")
        name = f"{weights}_step_{facts['steps'] if weights == 'latest' else facts['best_step']}"
        name += "".join(f"_{part}{facts[part]}" for part in ("fold", "seed") if facts.get(part) is not None)
    return f"{name}-{model.fingerprint[:8]}"
