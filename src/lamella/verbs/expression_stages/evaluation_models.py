"""The trained networks that are judged, cell by cell: of every fold, and none that has seen its test patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.data.expression import Fold
from lamella.data.splits import LeakageError
from lamella.errors import LamellaError
from lamella.models.expression.folder import expression_facts
from lamella.verbs.expression_stages.evaluation_truth import Truths
from lamella.verbs.expression_stages.grid import Cell, cells_of
from lamella.verbs.expression_stages.stage import MODELS, Stage
from lamella.verbs.expression_stages.training_plan import seeds_of, trained_models


@dataclass(frozen=True)
class Trained:
    """A cell of the ablation with its models.

    Attributes:
        cell: Which.
        folders: Name of a fold -> a model folder of each seed, in the same order in all folds.
        told: Name of a fold -> what the config.json of each says.
    """

    cell: Cell
    folders: Mapping[str, Sequence[Path]]
    told: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def fingerprints(self) -> dict[str, list[str]]:
        """Name of a fold -> of each model."""
        return {fold: [str(each["fingerprint"]) for each in models] for fold, models in self.told.items()}

    @property
    def chosen_by(self) -> dict[str, str]:
        """Name of a fold -> who said when to stop."""
        return {fold: str(models[0]["facts"].get("chosen_by", "not said")) for fold, models in self.told.items()}


def trained_cells(stage: Stage, truths: Truths) -> tuple[list[Trained], list[str]]:
    """The cells that are trained in every fold, and sentences on what is not trained.

    Raises:
        LamellaError: None is, or a cell that is asked for by name does not exist.
        LeakageError: A model has seen the patient that it would be judged on.
    """
    cells, wanted = cells_of(stage.config), stage.config.evaluate.cells
    names = [cell.name for cell in cells]
    unknown = [name for name in wanted or () if name not in names]
    if unknown:
        raise LamellaError("evaluate.cells", f"there is no {', '.join(unknown)}", f"Cells: {', '.join(names)}.")
    found: list[Trained] = []
    missing: list[str] = []
    for cell in cells if wanted is None else [cells[names.index(name)] for name in wanted]:
        trained = _trained(stage, truths, cell, missing)
        if trained is not None:
            found.append(trained)
    if not found:
        raise LamellaError(
            stage.folder(MODELS),
            f"no cell is trained in every fold ({'; '.join(missing)})",
            "Run: lamella expression train study.yaml -o out.",
        )
    for sentence in missing:
        print(f"note: {sentence}")
    return found, missing


def asked_for(stage: Stage, trained: Sequence[Trained]) -> dict[str, Any]:
    """What the results are of, as plain values: the same again needs no work."""
    settings = stage.config.evaluate
    return {
        "models": {one.cell.name: one.fingerprints for one in trained},
        "seeds": settings.seeds,
        "pictures": settings.pictures.model_dump(mode="json"),
    }


def _trained(stage: Stage, truths: Truths, cell: Cell, missing: list[str]) -> Trained | None:
    """The cell, or None where a fold has no model of it; `missing` gets a sentence on what is not there."""
    by_seed = {fold.name: _by_seed(trained_models(stage, cell, fold)) for fold in truths.folds}
    absent = [name for name, models in by_seed.items() if not models]
    if absent:
        missing.append(f"{cell.name} is not trained in {', '.join(absent)} and has no row")
        return None
    common = [seed for seed in next(iter(by_seed.values())) if all(seed in models for models in by_seed.values())]
    if len(common) < len(seeds_of(cell)):
        missing.append(f"{cell.name}: {len(common)} of its {len(seeds_of(cell))} seeds are trained in every fold")
    if not common:
        return None
    folders = {fold: [models[seed] for seed in common] for fold, models in by_seed.items()}
    told = {fold: [expression_facts(folder) for folder in models] for fold, models in folders.items()}
    for fold in truths.folds:
        for folder, each in zip(folders[fold.name], told[fold.name], strict=True):
            _refuse_seen(folder, each, fold)
    return Trained(cell, folders, told)


def _by_seed(folders: Sequence[Path]) -> dict[str, Path]:
    """Name of a seed's folder -> the model in it."""
    return {folder.parent.name: folder for folder in folders}


def _refuse_seen(folder: Path, told: Mapping[str, Any], fold: Fold) -> None:
    facts = told["facts"]
    learned = {*facts.get("train_patients", ()), facts.get("inner_patient")}
    if fold.test in learned or facts.get("test_patient", fold.test) != fold.test:
        raise LeakageError(
            folder,
            f"it was trained with patient {facts.get('test_patient')} left out, and would be judged on {fold.test}",
            "Train it again: lamella expression run study.yaml --redo train.",
        )
