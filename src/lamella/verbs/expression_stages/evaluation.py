"""Stage `evaluate` of `lamella expression`: every cell, baseline, control and ceiling on the test patient of each fold.

All rows of the tables are of the same places and the same truth. Networks, ridges and mean maps of a fold have not seen
its test patient; what knows the truth is called a ceiling.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamella.data.expression_digest import study_digest
from lamella.engine.world import choose_device
from lamella.formats.atomic import write_json
from lamella.metrics.genes.controls import KINDS, NOISE_CEILING
from lamella.metrics.genes.protocol import VERSION as MEASURES
from lamella.metrics.genes.scores import GeneScores, SlideScores
from lamella.metrics.genes.scoring import score
from lamella.metrics.genes.tables import write_expression_report
from lamella.metrics.genes.thinning import noise_ceilings
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.report import RESULTS as RESULTS_JSON
from lamella.verbs.evaluation.report import command_of
from lamella.verbs.expression_stages.evaluation_kept import load_scores, save_scores
from lamella.verbs.expression_stages.evaluation_models import asked_for, trained_cells
from lamella.verbs.expression_stages.evaluation_pictures import draw_pictures
from lamella.verbs.expression_stages.evaluation_predictors import (
    Predictor,
    baseline_predictors,
    cell_predictors,
    control_predictors,
)
from lamella.verbs.expression_stages.evaluation_report import report_facts, report_notes, report_warnings
from lamella.verbs.expression_stages.evaluation_truth import Truths, panel_note
from lamella.verbs.expression_stages.stage import RESULTS, Stage
from lamella.verbs.progress import progress
from lamella.view.markdown_page import write_report_page

# Models are known by their fingerprints: a grid that grows adds rows, and what was scored stays.
_BLOCKS = ("data", "panel", "features", "evaluate", "seed")
_IGNORED = (
    *("features.cache", "features.batch_size", "features.device"),
    *("evaluate.device", "evaluate.cells", "evaluate.seeds", "evaluate.pictures"),
)
SCORES, ASKED = "scores", "evaluated.json"


def run_evaluation(stage: Stage) -> int:
    """Do the stage, or find that it is done.

    Returns:
        1 where a cell or a seed of the grid is not trained in every fold.

    Raises:
        LamellaError: Nothing was trained, or a model, the study or an image cannot be used.
    """
    truths = Truths.of(stage)
    trained, missing = trained_cells(stage, truths)
    folder = stage.folder(RESULTS)
    inputs = {"study": study_digest(stage.study), "measures": MEASURES}
    claimed = stage.claim(RESULTS, _BLOCKS, inputs, ignore=_IGNORED)
    told = asked_for(stage, trained)
    if claimed.resumed and (folder / RESULTS_JSON).exists() and _asked_before(folder) == told:
        print(f"nothing to do: {folder / RESULTS_JSON} holds these results already")
        return 1 if missing else 0
    device, reason = choose_device(stage.config.evaluate.device)
    print(f"evaluate on {device.type} ({reason}): {len(truths.folds)} folds, {panel_note(truths.panels)}")
    predictors = [each for one in trained for each in cell_predictors(truths, one, device)]
    predictors += [*baseline_predictors(truths), *control_predictors(truths)]
    results: dict[str, GeneScores] = {}
    for predictor in progress(predictors, "predictors"):
        results[predictor.name] = _scored(truths, predictor, folder / SCORES)
    kinds = {predictor.name: predictor.kind for predictor in predictors}
    if truths.target != "values":  # values as a file has them are not counts, and cannot be thinned
        results[NOISE_CEILING], kinds[NOISE_CEILING] = _noise_ceiling(truths), KINDS[NOISE_CEILING]
    pictures = draw_pictures(truths, predictors[0], results[predictors[0].name], folder)
    files = write_expression_report(
        folder,
        results,
        kinds,
        stage.config.evaluate.metrics,
        title=f"Gene expression of {stage.out.resolve().name} from H&E: {predictors[0].name} beside what is simpler",
        pairs=_pairs(predictors),
        facts=report_facts(truths, trained),
        notes=report_notes(truths, trained, predictors),
        warnings=report_warnings(truths, trained, missing),
        command=command_of(replace(stage.request, run=None)),
        pictures=pictures,
    )
    page = write_report_page(files[0])
    write_json(folder / ASKED, told)  # last: with it the results are whole
    names = [path.name for path in (*files, page)] + [name for name, _ in pictures]
    print(f"wrote {', '.join(names)} to {folder}")
    print(f"next: read {files[0]}, or open {page.name} beside it in a browser")
    return 1 if missing else 0


def _scored(truths: Truths, predictor: Predictor, folder: Path) -> GeneScores:
    """Its scores; those of an earlier run are taken as they are, networks by their fingerprints."""
    path = folder / f"{slug(predictor.name)}{predictor.digest and '_'}{predictor.digest}.npz"
    if path.exists():
        scores, notes = load_scores(path)
        predictor.notes.update(notes)
        return scores
    metrics = truths.stage.config.evaluate.metrics
    scores = GeneScores(tuple(each for judged in predictor.judged(truths) for each in score([judged], metrics).slides))
    save_scores(path, scores, predictor.notes)
    return scores


def _noise_ceiling(truths: Truths) -> GeneScores:
    """What the draw of counts alone leaves of a correlation, slide by slide."""
    metrics = truths.stage.config.evaluate.metrics
    found: list[SlideScores] = []
    for fold, slide in truths.each():
        judged = [truths.judged(fold, slide)]
        if truths.counts:
            found += noise_ceilings(judged, metrics).slides
        else:
            counts = {slide.slide_id: truths.raw_counts(fold, slide)}
            found += noise_ceilings(judged, metrics, counts=counts, transform=truths.transformed).slides
    return GeneScores(tuple(found))


def _pairs(predictors: Sequence[Predictor]) -> list[tuple[str, str]]:
    """The judged predictor against every other that could have been used instead of it."""
    return [(predictors[0].name, other.name) for other in predictors[1:] if other.kind != "ceiling"]


def _asked_before(folder: Path) -> Any:
    """What the results in the folder are of; None where they are not whole, or the file is damaged."""
    try:
        return json.loads((folder / ASKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
