"""Stage `predict`: expression of whole slides, without any being measured there.

Slides of the study are predicted by the models that have not seen their patient, new ones by all models together. Each
slide has a folder of its own and is resumed on its own; one that fails is listed in failed.csv and the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lamella.data.expression import ExpressionSlide
from lamella.data.lopo import folds
from lamella.engine.world import choose_device
from lamella.errors import LamellaError, SlideError
from lamella.formats.digests import ends_digest, value_digest
from lamella.formats.spatial_counts import ExpressionError, SpatialCounts
from lamella.models.expression.folder import expression_facts, expression_record, load_expression
from lamella.slides.manifest import ManifestRow, find_slides
from lamella.slides.slide import open_slide
from lamella.verbs.expression_stages.grid import cells_of
from lamella.verbs.expression_stages.prediction_raster import Ensemble
from lamella.verbs.expression_stages.prediction_settings import NOT_DECIDING
from lamella.verbs.expression_stages.prediction_slide import SlidePrediction, predict_one
from lamella.verbs.expression_stages.stage import PREDICTIONS, Stage
from lamella.verbs.expression_stages.training_plan import trained_models
from lamella.verbs.slide_jobs import Selection, record_failures, say_failed, say_shard


@dataclass(frozen=True)
class ToPredict:
    """One slide, with the folders of the models that predict it.

    Attributes:
        row: Of a new slide, which is opened in its turn; or a slide of the study.
        models: At least one.
        unseen: What is known of the models' having seen its patient.
    """

    row: ManifestRow | ExpressionSlide
    models: tuple[str, ...]
    unseen: str

    @property
    def slide_id(self) -> str:
        return self.row.slide_id


def run_prediction(stage: Stage) -> int:
    """Predict every slide; 1 if some failed and are listed in failed.csv.

    Raises:
        LamellaError: There is no model or no such slide, or the folder holds other predictions.
    """
    settings = stage.config.predict
    items = to_predict(stage)
    selection = Selection.of(stage.request)
    todo = set(selection.take([item.slide_id for item in items], stage.folder(PREDICTIONS)))
    mine = [item for item in items if item.slide_id in todo]
    device, reason = choose_device(settings.device)
    if part := selection.describe(len(mine), len(items)):
        print(part)
    print(f"predict {len(mine)} slides on {device.type} ({reason})")
    every = sorted({spec for item in items for spec in item.models})
    claimed = stage.claim(
        PREDICTIONS,
        ("predict",),
        {"models": value_digest([expression_facts(spec)["fingerprint"] for spec in every])},
        ignore=tuple(f"predict.{name}" for name in NOT_DECIDING),
        shared=selection.shard is not None,
    )
    failed = _predict_all(stage, mine, device)
    record_failures(claimed.folder, failed, selection.mark)
    print(f"wrote {len(mine) - len(failed)} slides to {claimed.folder}/<slide_id>/; {len(failed)} failed")
    if selection.shard:
        say_shard(selection)
    if failed:
        say_failed(claimed.folder, selection.mark, None)
    return 1 if failed else 0


def to_predict(stage: Stage) -> list[ToPredict]:
    """The slides behind the configuration or of the settings, or else the study's own.

    Raises:
        LamellaError: A path is missing, two slides have one name, or there are no models.
    """
    settings = stage.config.predict
    by_patient = {} if settings.models else _models_by_patient(stage)
    every = settings.models or tuple(sorted({spec for specs in by_patient.values() for spec in specs}))
    if paths := stage.more or settings.slides:
        rows = find_slides(list(paths), settings.mpp0)
        return [ToPredict(row, every, what_was_seen(row.wsi_path, every)) for row in rows]
    if settings.models:
        return [ToPredict(slide, every, what_was_seen(slide.wsi_path, every)) for slide in stage.study.slides]
    return [
        ToPredict(slide, by_patient[slide.patient], f"no model has seen patient {slide.patient}")
        for slide in stage.study.slides
    ]


def what_was_seen(wsi_path: Path, models: Sequence[str]) -> str:
    """What the models' records say of their having learned from this image."""
    records = [expression_record(spec) for spec in models]
    digest, known = ends_digest(wsi_path), [record for record in records if record is not None]
    seen = sum(digest in record.digests for record in known)
    if seen:
        return f"{seen} of {len(models)} models have learned from this very image"
    if len(known) < len(records):
        return f"{len(records) - len(known)} of {len(models)} models do not say what they have learned from"
    return "no model has learned from this image; whether one has from its patient is not known"


def _models_by_patient(stage: Stage) -> dict[str, tuple[str, ...]]:
    """Patient -> folders of the models whose test patient it is."""
    name = stage.config.predict.cell
    cells = {cell.name: cell for cell in cells_of(stage.config)}
    if name not in cells:
        raise LamellaError(f"predict.cell={name}", "the ablation has no such cell", f"Cells: {', '.join(cells)}.")
    found = {fold.test: tuple(map(str, trained_models(stage, cells[name], fold))) for fold in folds(stage.study)}
    absent = [patient for patient, specs in found.items() if not specs]
    if absent:
        raise LamellaError(
            stage.out,
            f"there are no finished models of {name} for {', '.join(absent)}",
            "Train them first: lamella expression train.",
        )
    return found


def _predict_all(stage: Stage, items: Sequence[ToPredict], device: torch.device) -> list[dict[str, str]]:
    failed = []
    models: tuple[str, ...] = ()
    ensemble: Ensemble | None = None
    for item in items:
        if ensemble is None or item.models != models:  # slides of one patient follow each other, as a rule
            models, ensemble = item.models, _ensemble(item.models, stage.config.predict.genes).to(device)
        try:
            slide = _opened(item.row)
            told = predict_one(SlidePrediction(stage, slide, ensemble, item.unseen))
        except SlideError as error:
            failed.append({"slide_id": item.slide_id, "path": str(item.row.wsi_path), "error": str(error)})
            print(f"{item.slide_id} failed: {error}")
            continue
        rows, width = told["bins_on_tissue"], told["bin_um"]
        print(f"{slide.slide_id}: {rows} bins of {width:g} um on tissue, {len(told['genes'])} genes ({told['unseen']})")
    return failed


def _ensemble(models: tuple[str, ...], genes: tuple[str, ...]) -> Ensemble:
    ensemble = Ensemble.of([load_expression(spec) for spec in models], genes)
    fewer = sum(count < len(models) for count in ensemble.counts)
    if fewer:
        every = len(ensemble.genes)
        print(f"{fewer} of {every} genes are predicted by some of the {len(models)} models only, as panels differ")
    return ensemble


def _opened(row: ManifestRow | ExpressionSlide) -> ExpressionSlide:
    """A new slide as the stages know slides; it has no expression.

    Raises:
        SlideError: It cannot be read, or states no mpp.
    """
    if isinstance(row, ExpressionSlide):
        return row
    with open_slide(row.wsi_path, mpp=row.mpp) as slide:
        frame = slide.frame

    def load() -> SpatialCounts:
        raise ExpressionError(row.wsi_path, "it is a new slide without expression", "Predict it; nothing is measured.")

    return ExpressionSlide(row.slide_id, row.wsi_path, frame, "", load, mask_path=row.mask_path, mask_mpp=row.mask_mpp)
