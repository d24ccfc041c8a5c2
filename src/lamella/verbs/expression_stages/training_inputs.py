"""What the models of a study learn from. Read once by each process and shared by all cells, folds and seeds.

Shapes: N places, G genes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lamella.data.expression import ExpressionSlide, Fold
from lamella.data.expression_batches import ExpressionBatches, ExpressionBatchSettings
from lamella.data.expression_samples import SlideSamples
from lamella.data.expression_views import SlideViews
from lamella.data.gene_panel import PanelSettings, choose_panel
from lamella.data.kept import Kept
from lamella.data.lopo import training_slides
from lamella.formats.spatial_counts import ExpressionError
from lamella.geometry import BinGrid
from lamella.methods.expression_losses import COUNT_TARGETS
from lamella.models.expression.expectation import Rule
from lamella.verbs.expression_stages.feature_settings import FeatureSettings
from lamella.verbs.expression_stages.features import slide_views
from lamella.verbs.expression_stages.grid import Cell
from lamella.verbs.expression_stages.stage import Stage


@dataclass(frozen=True)
class _Sampled:
    """The views of one sample, as kept in memory."""

    features: tuple[np.ndarray, ...]
    seen: tuple[np.ndarray, ...]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in (*self.features, *self.seen))


@dataclass(frozen=True)
class KeptViews(SlideViews):
    """The views of a slide, of which samples that come again and again stay in memory.

    They are kept in 16 bits, as they lie on disk, and are the same whether they were kept or not.
    """

    memory: Kept[_Sampled] | None = None
    key: str = ""

    def at(
        self, grid: BinGrid, row_c: float, col_c: float, bins: int | None = None
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """As `SlideViews.at`."""
        assert self.memory is not None

        def make() -> _Sampled:
            features, seen = SlideViews.at(self, grid, row_c, col_c, bins)
            return _Sampled(tuple(each.astype(np.float16) for each in features), tuple(seen))

        found = self.memory.get((self.key, grid, row_c, col_c, bins), make)
        return [each.astype(np.float32) for each in found.features], list(found.seen)


class TrainingInputs:
    """The samples, views and genes of a study.

    Args:
        stage: Of the study.
        memory_mb: Views of samples kept in memory.
    """

    def __init__(self, stage: Stage, memory_mb: float) -> None:
        self.stage = stage
        self._memory: Kept[_Sampled] = Kept(memory_mb)
        self._panels: dict[tuple[int, str], tuple[str, ...]] = {}
        self._samples: dict[tuple[str, tuple[str, ...]], SlideSamples] = {}
        self._views: dict[tuple[str, str], SlideViews] = {}

    def panel(self, fold: Fold, settings: PanelSettings) -> tuple[str, ...]:
        """The genes of a fold, chosen on its training slides alone.

        Raises:
            DatasetError: They cannot be chosen.
        """
        key = (fold.number, settings.model_dump_json())
        if key not in self._panels:
            # mistake: the source chose genes on all patients, the judged one among them.
            self._panels[key] = choose_panel(training_slides(self.stage.study, fold), settings)
        return self._panels[key]

    def samples(self, slide: ExpressionSlide, genes: tuple[str, ...]) -> SlideSamples:
        """Labels of a slide, checked for whole counts where the target is counts.

        Raises:
            ExpressionError: The slide has no such genes, or fractional or negative counts.
        """
        key = (slide.slide_id, genes)
        if key not in self._samples:
            settings = self.stage.config.data
            made = SlideSamples.of(slide, self.stage.study, genes, settings)
            if settings.target in COUNT_TARGETS and not slide.counts.are_counts:
                raise ExpressionError(
                    slide.counts.source,
                    "it holds fractional or negative values, which are no counts",
                    "Give the raw counts, or set data.target=values and train.loss.name=mse.",
                )
            self._samples[key] = made
        return self._samples[key]

    def views(self, slide: ExpressionSlide, settings: FeatureSettings, *, again: bool) -> SlideViews:
        """Views of a slide; `again`: the same samples come again and again, and stay in memory."""
        key = (slide.slide_id, settings.model_dump_json())
        if key not in self._views:
            self._views[key] = slide_views(self.stage, slide, settings)
        views = self._views[key]
        if not again:
            return views
        return KeptViews(views.rasters, views.shapes, views.standardise, self._memory, "/".join(key))

    def batches(
        self,
        cell: Cell,
        slides: tuple[ExpressionSlide, ...],
        genes: tuple[str, ...],
        settings: ExpressionBatchSettings,
        seed: int,
        *,
        shuffle_labels: bool = False,
    ) -> ExpressionBatches:
        """Batches of some slides with a cell's features."""
        again = self.stage.study.kind == "spot" or settings.centres == "cover" or shuffle_labels
        samples = [self.samples(slide, genes) for slide in slides]
        views = [self.views(slide, cell.config.features, again=again) for slide in slides]
        return ExpressionBatches(samples, views, settings, seed, shuffle_labels=shuffle_labels)


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of the training places before training.

    Attributes:
        mean_G: Mean count of a bin, or mean value of a place: where the network starts.
        library: Median count of all genes of a place that has any.
        places: How many.
        silent: Genes without a single count.
    """

    mean_G: np.ndarray
    library: float
    places: int
    silent: tuple[str, ...]


def training_facts(samples: tuple[SlideSamples, ...], rule: Rule, target: str) -> TrainingFacts:
    """Means over all judged places of the training slides, one slide in memory at a time.

    Of spots that are counted, the mean count of a spot is shared out over the bins under its disk.
    """
    total_G, some_G, places, libraries = 0.0, 0.0, 0, []
    for one in samples:
        truth = one.judged_truth()
        if rule != "value" and target == "log1p":
            truth = np.expm1(truth)
        area = float(one.disk.sum()) if one.kind == "spot" and rule != "value" else 1.0
        total_G = total_G + truth.sum(0, dtype=np.float64) / area
        some_G = some_G + np.count_nonzero(truth, axis=0)
        places += len(truth)
        libraries.append(one.judged_total())
    library = np.concatenate(libraries)
    counted = library[library > 0]
    silent = tuple(gene for gene, some in zip(samples[0].genes, np.atleast_1d(some_G), strict=True) if not some)
    mean_G = (np.atleast_1d(total_G) / max(1, places)).astype(np.float32)
    return TrainingFacts(mean_G, float(np.median(counted)) if len(counted) else 1.0, places, silent)
