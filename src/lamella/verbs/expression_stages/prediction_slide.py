"""The prediction of one slide: maps of its genes, a table of its bins, and what made them.

`genes.zarr`: one map a gene, in levels. `expression.h5ad`: one row for each bin on tissue, written from the maps band
by band. `genes.png`: some of them beside the slide. `prediction.json`, written last, makes the folder whole.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamella.data.expression import ExpressionSlide
from lamella.data.expression_tissue import slide_tissue
from lamella.dense.progress import PREDICTION_FILE, SlideFolder, array_mark, slide_mark
from lamella.errors import CheckpointError
from lamella.formats.expression_h5ad import ExpressionH5ad
from lamella.formats.ome_zarr import StoredRaster, open_raster
from lamella.slides.slide import open_slide
from lamella.slides.tissue_map import TissueMap
from lamella.verbs.expression_stages.feature_settings import FeatureSettings
from lamella.verbs.expression_stages.features import slide_views
from lamella.verbs.expression_stages.prediction_raster import Ensemble, RasterPlan, plan_raster, write_raster
from lamella.verbs.expression_stages.stage import PREDICTIONS, Stage
from lamella.view.expression_prediction import draw_predicted_genes

GENES, TABLE, PICTURE = "genes.zarr", "expression.h5ad", "genes.png"


@dataclass(frozen=True)
class SlidePrediction:
    """What is to be predicted.

    Attributes:
        stage: At work.
        slide: Of the study, or a new one.
        ensemble: On its device.
        unseen: What is known of the models' having seen its patient.
    """

    stage: Stage
    slide: ExpressionSlide
    ensemble: Ensemble
    unseen: str

    @property
    def folder(self) -> Path:
        return self.stage.folder(PREDICTIONS) / self.slide.slide_id


def predict_one(work: SlidePrediction) -> dict[str, Any]:
    """Predict one slide, unless that was done before; what prediction.json holds.

    Raises:
        OutputConflictError: The slide's folder holds another prediction.
        SlideError: The slide cannot be read, or has no tissue.
        CheckpointError: The encoder here is not the one that the models were trained with.
        StorageError: The disk refused a write; what was finished is kept.
    """
    began, settings = time.monotonic(), work.stage.config.predict
    slide, ensemble = work.slide, work.ensemble
    tissue = slide_tissue(slide, work.stage.config.data.tissue)
    folder = SlideFolder(work.folder, _key(work, tissue))
    if folder.done is None:
        folder.begin()
        plan = plan_raster(ensemble, slide.frame, tissue, settings)
        _say_size(work, plan)
        views = slide_views(work.stage, slide, model_features(work))
        _refuse_other_encoder(work, [raster.facts.fingerprint for raster in views.rasters])
        write_raster(ensemble, views, plan, work.folder / GENES, settings)
        told = _table(work, open_raster(work.folder / GENES))
        _draw(work, plan)
        folder.finish({**_facts(work, plan), **told, "seconds": round(time.monotonic() - began, 1)})
    assert folder.done is not None
    return folder.done


def model_features(work: SlidePrediction) -> FeatureSettings:
    """How the features of the models were made; where they are kept and what makes them is this study's."""
    told, here = work.ensemble.first.features, work.stage.config.features
    known = {key: value for key, value in told.items() if key in FeatureSettings.model_fields}
    own = {"cache": here.cache, "batch_size": here.batch_size, "device": here.device}
    return FeatureSettings.model_validate({**known, **own})


def _refuse_other_encoder(work: SlidePrediction, found: list[str]) -> None:
    """`found` are the encoder's fingerprints, one for each view."""
    expected = work.ensemble.first.features.get("fingerprints")
    if expected is not None and found != list(expected):
        raise CheckpointError(
            f"encoder {work.ensemble.first.features.get('encoder')}",
            f"its fingerprints here are {', '.join(found)}; the models were trained with {', '.join(expected)}",
            "Use the encoder that they were trained with: its features mean something else to any other.",
        )


def _key(work: SlidePrediction, tissue: TissueMap) -> dict[str, Any]:
    """What the slide's files depend on."""
    with open_slide(work.slide.wsi_path, mpp=work.slide.mpp_stated) as slide:
        mark = slide_mark(slide)
    return {
        "models": [model.fingerprint for model in work.ensemble.models],
        "slide": mark,
        "tissue": array_mark(tissue.mask),
        "settings": work.stage.config.predict.deciding(),
    }


def _say_size(work: SlidePrediction, plan: RasterPlan) -> None:
    frame, tiling, genes = plan.frame, plan.tiling, len(work.ensemble.genes)
    share = len(tiling) / tiling.kept.size
    gigabytes = frame.width_px * frame.height_px * genes * 4 * share / 1e9
    print(
        f"{work.slide.slide_id}: {frame.width_px} x {frame.height_px} bins of {frame.mpp:g} um, {genes} genes, "
        f"{len(tiling)} tiles on tissue; up to {gigabytes:.2g} GB before compression",
        flush=True,
    )


def _table(work: SlidePrediction, raster: StoredRaster) -> dict[str, Any]:
    """Write the table of bins, where it is wanted; how many are on tissue, and each gene's mean there."""
    frame, slide, facts = raster.frame, work.slide.frame, _models_facts(work, raster.frame.mpp)
    count, total = 0, np.zeros(len(raster.names))
    with ExitStack() as opened:
        table = None
        if work.stage.config.predict.anndata:
            table = opened.enter_context(
                ExpressionH5ad(
                    work.folder / TABLE,
                    raster.names,
                    name=work.slide.slide_id,
                    bin_um=frame.mpp,
                    mpp=(slide.mpp_x, slide.mpp_y),
                    units=facts["units"],
                    uns=facts,
                )
            )
        for rc, values in rows_on_tissue(raster):
            if table is not None:
                table.append(values, rc)
            count, total = count + len(values), total + values.sum(0, dtype=np.float64)
    means = (float(f"{mean:.6g}") for mean in total / max(1, count))
    return {"bins_on_tissue": count, "mean_on_tissue": dict(zip(raster.names, means, strict=True))}


def _draw(work: SlidePrediction, plan: RasterPlan) -> None:
    """Some of the maps beside the slide."""
    facts = _models_facts(work, plan.frame.mpp)
    said = f"{facts['units']}; {', '.join(facts['model'])}; {facts['unseen']}"
    with open_slide(work.slide.wsi_path, mpp=work.slide.mpp_stated) as slide:
        draw_predicted_genes(
            slide,
            open_raster(work.folder / GENES),
            work.folder / PICTURE,
            heading=f"{work.slide.slide_id}: predicted expression",
            facts=[said],
        )


def rows_on_tissue(raster: StoredRaster) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(row, column) int32 (N, 2) and float32 (N, G) of the bins on tissue, band by band."""
    for y0, band_Ghw in raster.bands():
        there = np.isfinite(band_Ghw[0])
        if there.any():
            row, column = np.nonzero(there)
            yield np.stack([row + y0, column], 1).astype(np.int32), np.ascontiguousarray(band_Ghw[:, row, column].T)


def _models_facts(work: SlidePrediction, bin_um: float) -> dict[str, Any]:
    """What a number of the files means and whose it is."""
    ensemble, model = work.ensemble, work.ensemble.first
    counts = f"expected count per bin of {bin_um:g} um"
    return {
        "units": f"expected {model.target}" if model.rule == "value" else counts,
        "target": model.target,
        "model": [each.name for each in ensemble.models],
        "model_id": [each.fingerprint for each in ensemble.models],
        "encoder": str(model.features.get("encoder")),
        "unseen": work.unseen,
        "models_per_gene": list(ensemble.counts),
    }


def _facts(work: SlidePrediction, plan: RasterPlan) -> dict[str, Any]:
    frame, slide = plan.frame, work.slide
    return {
        "slide_id": slide.slide_id,
        "slide": slide.wsi_path.name,
        "slide_px0": [slide.frame.width_px, slide.frame.height_px],
        "slide_mpp": [slide.frame.mpp_x, slide.frame.mpp_y],
        "bin_um": frame.mpp,
        "raster_bins": [frame.width_px, frame.height_px],
        "tiles": len(plan.tiling),
        "genes": list(work.ensemble.genes),
        **_models_facts(work, frame.mpp),
        "files": {"maps": GENES, "table": TABLE if work.stage.config.predict.anndata else None, "picture": PICTURE},
    }


__all__ = ["GENES", "PREDICTION_FILE", "TABLE", "SlidePrediction", "model_features", "predict_one", "rows_on_tissue"]
