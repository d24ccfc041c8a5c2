"""All that a table compares: trained cells, simple baselines, controls and ceilings, each as a maker of predictions.

Shapes: N places of a slide, G genes of the fold's panel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from lamella.data.expression import ExpressionSlide, Fold
from lamella.errors import LamellaError
from lamella.formats.digests import value_digest
from lamella.metrics.genes.controls import KINDS, NOISE_CEILING, controls
from lamella.metrics.genes.judged import JudgedSlide
from lamella.models.expression.folder import load_expression
from lamella.models.expression.model import ExpressionModel
from lamella.verbs.expression_stages.evaluation_baselines import Learned, fit_neighbours, fit_ridge_baseline
from lamella.verbs.expression_stages.evaluation_features import PlaceFeatures
from lamella.verbs.expression_stages.evaluation_models import Trained
from lamella.verbs.expression_stages.evaluation_rates import has_rates, true_rates
from lamella.verbs.expression_stages.evaluation_truth import Truths
from lamella.verbs.expression_stages.expected import expected_at
from lamella.verbs.expression_stages.feature_settings import FeatureSettings, ViewSettings
from lamella.verbs.expression_stages.features import slide_views
from lamella.verbs.expression_stages.grid import Cell

Kind = Literal["model", "baseline", "control", "ceiling"]
Predict = Callable[[ExpressionSlide], np.ndarray]
TRUE_RATE = "true rate (of the generator)"
# Features of a slide kept between the fits of an encoder: ridge and retrieval read the same.
_KEPT = 16


@dataclass(frozen=True, eq=False)
class Predictor:
    """One row of the tables.

    Attributes:
        name: Of the row.
        kind: Of the row.
        fit: From a fold to what predicts its test slides: (N, G) expected counts or values.
        digest: Of the networks behind it; empty where the settings say all.
        notes: Filled while it is fitted: fold -> what the report must say.
    """

    name: str
    kind: Kind
    fit: Callable[[Fold], Predict]
    digest: str = ""
    notes: dict[str, str] = field(default_factory=dict)

    def judged(self, truths: Truths) -> Iterator[JudgedSlide]:
        """Its predictions of all test slides, one after the other."""
        for fold in truths.folds:
            predict = self.fit(fold)
            for slide in truths.tested(fold):
                judged = truths.judged(fold, slide)
                predicted = np.asarray(predict(slide), np.float32)
                if not np.isfinite(predicted).all():
                    raise LamellaError(
                        slide.slide_id,
                        f"{self.name} predicts what is no number for {int((~np.isfinite(predicted)).any(1).sum())} of "
                        f"{len(predicted)} places",
                        "Train it again, or leave it out (evaluate.cells).",
                    )
                yield judged.with_predicted(predicted)


# ---- networks --------------------------------------------------------------------------------------------------------


def cell_predictors(truths: Truths, trained: Trained, device: torch.device) -> Iterator[Predictor]:
    """The rows of one cell: the mean of its seeds, or each seed.

    Args:
        truths: Of the study.
        trained: The cell and its models.
        device: Where the networks run.
    """
    cell, wanted, folders = trained.cell, truths.stage.config.evaluate.seeds, next(iter(trained.folders.values()))
    kind: Kind = "control" if cell.is_control else "model"
    groups = {}
    if len(folders) == 1 or wanted != "each":
        name = cell.name if len(folders) == 1 else f"{cell.name} (mean of {len(folders)} seeds)"
        groups[name] = range(len(folders))
    if len(folders) > 1 and wanted != "together":
        groups |= {f"{cell.name}, {folder.parent.name}": range(at, at + 1) for at, folder in enumerate(folders)}
    for name, seeds in groups.items():
        prints = [[fold, *(own[seed] for seed in seeds)] for fold, own in trained.fingerprints.items()]
        yield Predictor(name, kind, _networks(truths, trained, seeds, device), value_digest(prints))


def _networks(
    truths: Truths, trained: Trained, seeds: Iterable[int], device: torch.device
) -> Callable[[Fold], Predict]:
    def fit(fold: Fold) -> Predict:
        models = [load_expression(trained.folders[fold.name][seed]) for seed in seeds]
        for model in models:
            _refuse_other_genes(model, truths.panels[fold.number], fold)
        return functools.partial(_expected, truths, trained.cell, fold, models, device)

    return fit


def _expected(
    truths: Truths,
    cell: Cell,
    fold: Fold,
    models: list[ExpressionModel],
    device: torch.device,
    slide: ExpressionSlide,
) -> np.ndarray:
    samples, views = truths.samples(slide, fold), slide_views(truths.stage, slide, cell.config.features)
    total = np.zeros((samples.judged, len(samples.genes)), np.float64)
    for model in models:
        total += expected_at(model, samples, views, device)
    return (total / len(models)).astype(np.float32)


def _refuse_other_genes(model: ExpressionModel, panel: tuple[str, ...], fold: Fold) -> None:
    if tuple(model.genes) != panel:
        raise LamellaError(
            model.name,
            f"it predicts {len(model.genes)} genes, and the panel of {fold.name} holds {len(panel)} others or in "
            "another order",
            "The study or its panel changed since it was trained: lamella expression run study.yaml --redo train.",
        )


# ---- simple baselines ------------------------------------------------------------------------------------------------


def baseline_predictors(truths: Truths) -> Iterator[Predictor]:
    """Ridge and retrieval on each encoder, and a ridge on random weights."""
    settings = truths.stage.config.evaluate.baselines
    for encoder in settings.encoders:
        read = _reader(truths, encoder, None)
        if settings.ridge:
            yield _fitted(truths, f"ridge on {encoder}", "baseline", read, ridge=True)
        if settings.retrieval:
            yield _fitted(truths, f"retrieval (kNN) on {encoder}", "baseline", read, ridge=False)
    if settings.random_encoder is not None:
        read = _reader(truths, settings.random_encoder, truths.stage.config.seed)
        name = f"ridge on {settings.random_encoder} with random weights"
        yield _fitted(truths, name, "control", read, ridge=True)


Reader = Callable[[ExpressionSlide, Fold], PlaceFeatures]


def _reader(truths: Truths, encoder: str, random_seed: int | None) -> Reader:
    """Features of places by an encoder; of the slides asked for last they are kept."""
    baselines = truths.stage.config.evaluate.baselines
    settings = baseline_features(truths.stage.config.features, baselines.token_um)
    settings = settings.model_copy(update={"encoder": encoder, "random_seed": random_seed})
    kept: dict[str, PlaceFeatures] = {}

    def read(slide: ExpressionSlide, fold: Fold) -> PlaceFeatures:
        # The places of a slide are the same in all folds: genes have no say in them.
        if slide.slide_id not in kept:
            while len(kept) >= _KEPT:
                del kept[next(iter(kept))]
            samples = truths.samples(slide, fold)
            rasters = slide_views(truths.stage, slide, settings).rasters
            kept[slide.slide_id] = PlaceFeatures(
                rasters,
                samples.places().px0,
                samples.size_um,
                samples.kind,
                slide.mpp_stated,
                texture=encoder in baselines.texture,
            )
        return kept[slide.slide_id]

    return read


def baseline_features(own: FeatureSettings, token_um: tuple[float, ...] | None) -> FeatureSettings:
    """The study's scales, or those that the baselines have of their own."""
    views = own.views if token_um is None else tuple(ViewSettings(token_um=each) for each in token_um)
    return own.model_copy(update={"views": views})


def _fitted(truths: Truths, name: str, kind: Kind, read: Reader, *, ridge: bool) -> Predictor:
    settings, seed, notes = truths.stage.config.evaluate.baselines, truths.stage.config.seed, {}

    def fit(fold: Fold) -> Predict:
        slides = [
            Learned(
                read(slide, fold), truths.samples(slide, fold).judged_truth(), truths.samples(slide, fold).places().um
            )
            for slide in truths.learned_from(fold)
        ]
        learnt = (
            fit_ridge_baseline(slides, settings, counts=truths.counts, seed=seed)
            if ridge
            else fit_neighbours(slides, settings, seed=seed)
        )
        unseen = sum(read(slide, fold).unseen for slide in truths.tested(fold))
        notes[fold.name] = learnt.said + (f"; {unseen} judged places without features get what is usual" * bool(unseen))
        return lambda slide: learnt.predict(read(slide, fold))

    return Predictor(name, kind, fit, notes=notes)


# ---- controls and ceilings -------------------------------------------------------------------------------------------


def control_predictors(truths: Truths) -> Iterator[Predictor]:
    """What knows no detail of the image, or knows the truth; the generator's own rates where it left them."""
    for name, kind in KINDS.items():
        if name == NOISE_CEILING:  # it is no prediction
            continue
        yield Predictor(name, kind, functools.partial(_control, truths, name))
    if all(has_rates(truths, slide) for _, slide in truths.each()):
        yield Predictor(TRUE_RATE, "ceiling", functools.partial(_rates, truths))


def _control(truths: Truths, name: str, fold: Fold) -> Predict:
    metrics = truths.stage.config.evaluate.metrics
    return lambda slide: controls(truths.judged(fold, slide), metrics)[name].predicted


def _rates(truths: Truths, fold: Fold) -> Predict:
    return functools.partial(true_rates, truths, fold)
