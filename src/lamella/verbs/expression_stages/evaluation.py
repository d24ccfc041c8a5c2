"""Stage `evaluate` of `lamella expression`: every cell, baseline, control and ceiling on the test patient of each fold.

All rows of the tables are of the same places and the same truth. Networks, ridges and mean maps of a fold have not seen
its test patient; what knows the truth is called a ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamella import __version__
from lamella.data.expression_digest import study_digest
from lamella.data.lopo import inner_note
from lamella.engine.world import choose_device
from lamella.errors import LamellaError
from lamella.metrics.genes.controls import KINDS, NOISE_CEILING
from lamella.metrics.genes.protocol import VERSION as MEASURES
from lamella.metrics.genes.scores import GeneScores
from lamella.metrics.genes.scoring import score
from lamella.metrics.genes.tables import write_expression_report
from lamella.metrics.genes.thinning import noise_ceilings
from lamella.models.expression.folder import expression_facts
from lamella.verbs.evaluation.judged_tiles import slug
from lamella.verbs.evaluation.report import RESULTS as RESULTS_JSON
from lamella.verbs.evaluation.report import command_of
from lamella.verbs.expression_stages.evaluation_kept import load_scores, save_scores
from lamella.verbs.expression_stages.evaluation_pictures import draw_pictures
from lamella.verbs.expression_stages.evaluation_predictors import (
    Predictor,
    baseline_predictors,
    cell_predictors,
    control_predictors,
)
from lamella.verbs.expression_stages.evaluation_truth import Truths, panel_note
from lamella.verbs.expression_stages.grid import Cell, cells_of
from lamella.verbs.expression_stages.stage import MODELS, RESULTS, Stage
from lamella.verbs.expression_stages.training_plan import trained_models
from lamella.verbs.progress import progress

# Models are known by their fingerprints: how they were trained need not be compared again.
_BLOCKS = ("data", "panel", "features", "evaluate", "seed")
_IGNORED = ("evaluate.device", "features.cache", "features.batch_size", "features.device")
SCORES = "scores"


@dataclass(frozen=True)
class Trained:
    """A cell of the ablation with its models.

    Attributes:
        cell: Which.
        folders: Name of a fold -> a model folder of each seed.
    """

    cell: Cell
    folders: dict[str, list[Path]]


def run_evaluation(stage: Stage) -> int:
    """Do the stage, or find that it is done.

    Returns:
        1 where a cell of the grid is left out because it is not trained in every fold.

    Raises:
        LamellaError: Nothing was trained, or a model, the study or an image cannot be used.
    """
    truths = Truths.of(stage)
    trained, missing = trained_cells(stage, truths)
    folder = stage.folder(RESULTS)
    claimed = stage.claim(RESULTS, _BLOCKS, _inputs(stage, trained), ignore=_IGNORED)
    if claimed.resumed and (folder / RESULTS_JSON).exists():
        print(f"nothing to do: {folder / RESULTS_JSON} holds these results already")
        return 1 if missing else 0
    device, reason = choose_device(stage.config.evaluate.device)
    print(f"evaluate on {device.type} ({reason}): {len(truths.folds)} folds, {panel_note(truths.panels)}")
    predictors = [each for one in trained for each in cell_predictors(truths, one.cell, one.folders, device)]
    predictors += [*baseline_predictors(truths), *control_predictors(truths)]
    results: dict[str, GeneScores] = {}
    for predictor in progress(predictors, "predictors"):
        results[predictor.name] = _scored(truths, predictor, folder)
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
        facts=_facts(truths, trained),
        notes=_notes(truths, predictors),
        warnings=_warnings(truths, missing),
        command=command_of(replace(stage.request, run=None)),
        pictures=pictures,
    )
    names = [path.name for path in files] + [name for name, _ in pictures]
    print(f"wrote {', '.join(names)} to {folder}")
    print(f"next: read {folder / 'results.md'}")
    return 1 if missing else 0


def trained_cells(stage: Stage, truths: Truths) -> tuple[list[Trained], list[str]]:
    """The cells that are trained in every fold, and sentences on those that are not.

    Raises:
        LamellaError: None is, or a cell that is asked for by name does not exist.
    """
    cells, wanted = cells_of(stage.config), stage.config.evaluate.cells
    names = [cell.name for cell in cells]
    unknown = [name for name in wanted or () if name not in names]
    if unknown:
        raise LamellaError("evaluate.cells", f"there is no {', '.join(unknown)}", f"Cells: {', '.join(names)}.")
    found, missing = [], []
    for cell in cells if wanted is None else [cells[names.index(name)] for name in wanted]:
        folders = {fold.name: trained_models(stage, cell, fold) for fold in truths.folds}
        absent = [name for name, models in folders.items() if not models]
        if absent:
            missing.append(f"{cell.name} is not trained in {', '.join(absent)} and has no row")
        else:
            found.append(Trained(cell, folders))
    if not found:
        raise LamellaError(
            stage.folder(MODELS),
            f"no cell is trained in every fold ({'; '.join(missing)})",
            "Run: lamella expression train study.yaml -o out.",
        )
    for sentence in missing:
        print(f"note: {sentence}")
    return found, missing


def _inputs(stage: Stage, trained: Sequence[Trained]) -> dict[str, Any]:
    """Digests of what is read: models and slides; and the version of the measures, whose meaning may change."""
    return {
        "models": {
            one.cell.name: {
                fold: [expression_facts(folder)["fingerprint"] for folder in folders]
                for fold, folders in one.folders.items()
            }
            for one in trained
        },
        "study": study_digest(stage.study),
        "measures": MEASURES,
    }


def _scored(truths: Truths, predictor: Predictor, folder: Path) -> GeneScores:
    """Its scores; those of an earlier run that was cut short are taken as they are."""
    path = folder / SCORES / f"{slug(predictor.name)}.npz"
    if path.exists():
        scores, notes = load_scores(path)
        predictor.notes.update(notes)
        return scores
    metrics = truths.stage.config.evaluate.metrics
    scores = GeneScores(tuple(each for judged in predictor.judged(truths) for each in score([judged], metrics).slides))
    save_scores(path, scores, predictor.notes)
    return scores


def _noise_ceiling(truths: Truths) -> GeneScores:
    """What the draw of counts alone leaves of a correlation."""
    slides = [truths.judged(fold, slide) for fold, slide in truths.each()]
    metrics = truths.stage.config.evaluate.metrics
    if truths.counts:
        return noise_ceilings(slides, metrics)
    return noise_ceilings(slides, metrics, counts=truths.raw_counts(), transform=truths.transformed)


def _pairs(predictors: Sequence[Predictor]) -> list[tuple[str, str]]:
    """The judged predictor against every other that could have been used instead of it."""
    return [(predictors[0].name, other.name) for other in predictors[1:] if other.kind != "ceiling"]


# ---- what the report says around the tables -------------------------------------------------------------------------


def _facts(truths: Truths, trained: Sequence[Trained]) -> dict[str, Any]:
    study = truths.stage.study
    seeds = sorted({len(models) for one in trained for models in one.folders.values()})
    return {
        "target": truths.target,
        "slides": f"{len(study.slides)} of {len(study.patients)} patients, each judged once",
        "places": f"{study.kind}s; predicted in bins of {study.bin_um:g} um",
        "panel": panel_note(truths.panels),
        "seeds": " or ".join(map(str, seeds)) + " of each cell and fold",
        "encoder": truths.stage.config.features.encoder,
        "version": __version__,
    }


def _notes(truths: Truths, predictors: Sequence[Predictor]) -> list[str]:
    notes = [*truths.stage.study.notes]
    notes += [
        f"{fold.name}: judged {', '.join(slide.slide_id for slide in truths.tested(fold))}; networks learned from "
        f"{', '.join(fold.train)}, {inner_note(fold)}; baselines and mean map from "
        f"{', '.join(slide.slide_id for slide in truths.learned_from(fold))}"
        for fold in truths.folds
    ]
    notes += [f"{each.name}, {fold}: {said}" for each in predictors for fold, said in each.notes.items()]
    return notes


def _warnings(truths: Truths, missing: Sequence[str]) -> list[str]:
    warnings = [*missing]
    chosen = [fold.name for fold in truths.folds if fold.inner is None]
    if chosen:
        warnings.append(f"No inner patient was left in {', '.join(chosen)}: see the notes on what said when to stop.")
    return warnings
