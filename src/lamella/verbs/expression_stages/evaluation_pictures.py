"""Truth, prediction and error of single genes beside the tissue, for the judged predictor."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lamella.data.expression import ExpressionSlide, Fold
from lamella.geometry import Box
from lamella.metrics.genes.judged import JudgedSlide
from lamella.metrics.genes.resolution import resolutions
from lamella.metrics.genes.scores import GeneScores, SlideScores
from lamella.slides.slide import open_slide
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.segment_report import chosen_ranks
from lamella.verbs.expression_stages.evaluation_predictors import Predictor
from lamella.verbs.expression_stages.evaluation_settings import PictureSettings
from lamella.verbs.expression_stages.evaluation_truth import Truths
from lamella.view.expression_pictures import GeneMap, Tissue, draw_gene_maps

PICTURES = "pictures"
_DRAWN_PX = 680  # twice the side of a panel: sharp when a page is enlarged
_PEARSON = "pearson"
_RANKS = 3  # best, median, worst


def draw_pictures(truths: Truths, predictor: Predictor, scores: GeneScores, folder: Path) -> list[tuple[str, str]]:
    """A page of genes for each of some slides; (file in `folder`, what it shows).

    Args:
        truths: Of the study.
        predictor: The judged one.
        scores: Of it.
        folder: Of the results.
    """
    settings = truths.stage.config.evaluate.pictures
    if settings.genes is None and not settings.number:
        return []
    own = {slide.slide_id: slide for slide in scores.slides if slide.own}
    drawn = []
    for fold, slide in chosen_slides(truths, settings.slides):
        picked = chosen_genes(own[slide.slide_id], settings)
        if not picked:
            continue
        judged = truths.judged(fold, slide).with_predicted(np.asarray(predictor.fit(fold)(slide), np.float32))
        name = f"{PICTURES}/{slug(predictor.name)}_{slug(slide.slide_id)}.png"
        heading = f"{predictor.name} on {slide.slide_id}, of patient {slide.patient}, who was not trained on"
        _draw(slide, _as_drawn(judged, settings.bin_um), picked, folder / name, heading, truths.target)
        drawn.append((name, f"{slide.slide_id}: tissue, truth, prediction and error of {len(picked)} genes"))
    return drawn


def chosen_slides(truths: Truths, most: int) -> list[tuple[Fold, ExpressionSlide]]:
    """The first slide of each patient, then the second ones, and so on."""
    each = [[(fold, slide) for slide in truths.tested(fold)] for fold in truths.folds]
    turns = itertools.zip_longest(*each)
    return [pair for turn in turns for pair in turn if pair is not None][:most]


def chosen_genes(scores: SlideScores, settings: PictureSettings) -> list[tuple[str, str]]:
    """(gene, what is said of it): those that are asked for and there, or the best, median and worst of the slide."""
    value_G = scores.values[_PEARSON]
    number_of = {gene: number for number, gene in enumerate(scores.genes)}
    if settings.genes is not None:
        return [(gene, _said(scores, number_of[gene], "")) for gene in settings.genes if gene in number_of]
    order = [int(number) for number in np.argsort(-value_G, kind="stable") if np.isfinite(value_G[number])]
    places = chosen_ranks(len(order), -(-settings.number // _RANKS))[: settings.number]
    return [
        (scores.genes[order[place]], _said(scores, order[place], f"{rank}, rank {place + 1} of {len(order)}; "))
        for place, rank in places
    ]


def _said(scores: SlideScores, number: int, rank: str) -> str:
    value = scores.values[_PEARSON][number]
    pearson = f"Pearson {value:.2f}" if np.isfinite(value) else f"no Pearson ({scores.reasons[number]})"
    return f"{rank}{pearson} of {scores.n:,} places, {scores.zero_share[number]:.1%} of them without it"


def _as_drawn(judged: JudgedSlide, bin_um: float) -> JudgedSlide:
    """In bins of the pictures' size where its own are smaller: sums of counts, means of values."""
    return max(resolutions(judged, (bin_um,)), key=lambda each: each.bin_um)


def _draw(
    slide: ExpressionSlide,
    judged: JudgedSlide,
    picked: Sequence[tuple[str, str]],
    path: Path,
    heading: str,
    target: str,
) -> None:
    number_of = {gene: number for number, gene in enumerate(judged.genes)}
    maps = [
        GeneMap(gene, judged.truth[:, number_of[gene]], judged.predicted[:, number_of[gene]], said)
        for gene, said in picked
    ]
    square = judged.rc is not None
    what = f"bins of {judged.bin_um:g} µm" if square else f"spots of {judged.bin_um:g} µm"
    draw_gene_maps(
        maps,
        judged.places_um,
        judged.bin_um,
        _tissue(slide, judged),
        path,
        heading=heading,
        facts=[f"{target} in {what}; Pearson at the size of the data."],
        square=square,
    )


def _tissue(slide: ExpressionSlide, judged: JudgedSlide) -> Tissue:
    """The image around the judged places."""
    frame = slide.frame
    low = np.maximum(judged.places_um.min(0) - judged.bin_um, 0).astype(np.float64)
    end = np.array([frame.width_px * frame.mpp_x, frame.height_px * frame.mpp_y])
    high = np.minimum(judged.places_um.max(0) + judged.bin_um, end)
    box = Box(low[0] / frame.mpp_x, low[1] / frame.mpp_y, high[0] / frame.mpp_x, high[1] / frame.mpp_y)
    um_per_px = float(max(high - low)) / _DRAWN_PX
    with open_slide(slide.wsi_path, mpp=slide.mpp_stated) as opened:
        region = opened.read(box, max(um_per_px, frame.mpp))
    return Tissue(region.pixels, (float(low[0]), float(low[1])), region.output_mpp)
