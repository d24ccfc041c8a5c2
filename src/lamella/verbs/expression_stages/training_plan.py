"""Which models the stage `train` makes: one for each cell of the grid, fold and seed; and where they are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lamella.data.expression import ExpressionSlide, ExpressionStudy, Fold
from lamella.data.lopo import choosing_slides, folds, inner_note, training_slides
from lamella.errors import ConfigError
from lamella.formats.digests import value_digest
from lamella.methods.expression_losses import loss_problem, make_loss
from lamella.models.expression.folder import is_expression
from lamella.verbs.expression_stages.grid import Cell, cells_of
from lamella.verbs.expression_stages.stage import MODELS, Stage

MODEL = "model"


@dataclass(frozen=True)
class TrainingPart:
    """One model.

    Attributes:
        cell: With what settings.
        fold: Which patients it learns from.
        seed: Of its weights and draws.
        folder: Where it is trained.
    """

    cell: Cell
    fold: Fold
    seed: int
    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @property
    def is_done(self) -> bool:
        """Whether the model is there; its configuration is written last."""
        return is_expression(self.model)

    @property
    def title(self) -> str:
        return f"{self.cell.name} {self.fold.name} seed{self.seed}"

    @property
    def is_fixed(self) -> bool:
        """Whether nothing chooses: all slides that are not of the test patient are trained on."""
        return self.cell.config.train.validation.criterion == "none"

    def learned_from(self, study: ExpressionStudy) -> tuple[ExpressionSlide, ...]:
        """The slides that it is trained on; never one of the test patient."""
        slides = training_slides(study, self.fold)
        return (*slides, *choosing_slides(study, self.fold)) if self.is_fixed else slides

    def chosen_on(self, study: ExpressionStudy) -> tuple[ExpressionSlide, ...]:
        """The slides that choose its weights."""
        return () if self.is_fixed else choosing_slides(study, self.fold)

    @property
    def chosen_by(self) -> str:
        """What reports say of the choice."""
        return "a fixed budget: all other patients are trained on" if self.is_fixed else inner_note(self.fold)


def planned(stage: Stage) -> tuple[TrainingPart, ...]:
    """All models of a study, cell by cell, then fold by fold, then seed by seed.

    Raises:
        ConfigError: A cell has a loss that its target or its places do not allow; all such cells are named.
        SplitError: There is one patient only.
    """
    cells = cells_of(stage.config)
    check_cells(cells, stage.study)
    return tuple(
        TrainingPart(cell, fold, seed, part_folder(stage, cell, fold, seed))
        for cell in cells
        for fold in folds(stage.study)
        for seed in seeds_of(cell)
    )


def trained_models(stage: Stage, cell: Cell, fold: Fold) -> list[Path]:
    """The model folders of a cell and fold that are whole, in the order of the seeds; none where nothing is trained."""
    folders = (part_folder(stage, cell, fold, seed) / MODEL for seed in seeds_of(cell))
    return [folder for folder in folders if is_expression(folder)]


def cell_folder(stage: Stage, cell: Cell) -> Path:
    return stage.folder(MODELS) / cell.name


def part_folder(stage: Stage, cell: Cell, fold: Fold, seed: int) -> Path:
    return cell_folder(stage, cell) / _as_folder(fold.name) / f"seed{seed}"


def _as_folder(name: str) -> str:
    """A name of a patient may hold what a folder's cannot; a digest keeps two such names apart."""
    plain = re.sub(r"[^\w.+-]+", "_", name)
    return plain if plain == name else f"{plain}-{value_digest(name)}"


def seeds_of(cell: Cell) -> tuple[int, ...]:
    return cell.config.train.seeds or (cell.config.seed,)


def check_cells(cells: tuple[Cell, ...], study: ExpressionStudy) -> None:
    """Refuse losses that do not go with the target, the places or the size of the bins.

    Raises:
        ConfigError: All of them.
    """
    problems = []
    for cell in cells:
        train, target = cell.config.train, cell.config.data.target
        problem = loss_problem(train.loss, target, study.kind, train.library == "offset")
        if problem is not None:
            problems.append(f"cell {cell.name}: {problem}")
            continue
        try:
            make_loss(train.loss, target, study.bin_um, study.tile_bins)
        except ConfigError as error:
            problems += [f"cell {cell.name}: {each}" for each in error.problems]
    if problems:
        raise ConfigError(problems, "expression")
