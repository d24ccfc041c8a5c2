"""What is judged: the truth of every fold's test slides, and the training places that baselines learn from.

Shapes: N places of a slide, G genes of the fold's panel.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

from lamella.data.expression import ExpressionSlide, Fold, Target
from lamella.data.expression_darkness import darkness
from lamella.data.expression_samples import SlideSamples
from lamella.data.expression_targets import neighbour_means
from lamella.data.gene_panel import choose_panel
from lamella.data.lopo import choosing_slides, folds, training_slides
from lamella.metrics.genes.judged import JudgedSlide
from lamella.verbs.expression_stages.stage import Stage

# Kept between predictors, which all ask for the same: sparse tables (a million bins x 50 genes are 20 MB or so), and
# judged slides (200 MB).
_KEPT_TABLES, _KEPT_SLIDES = 32, 6
_SAME_PX0 = 1e-3  # two centres closer than this are of one place


@dataclass(frozen=True, eq=False)
class Truths:
    """The folds and their truth, read once.

    Attributes:
        stage: The study.
        folds: One for each patient.
        panels: Genes of each fold, chosen on its training slides.
    """

    stage: Stage
    folds: tuple[Fold, ...]
    panels: tuple[tuple[str, ...], ...]
    _samples: dict[tuple[str, tuple[str, ...], Target], SlideSamples] = field(default_factory=dict, repr=False)
    _judged: dict[str, JudgedSlide] = field(default_factory=dict, repr=False)
    _means: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, stage: Stage) -> Truths:
        """Make the folds and choose their panels.

        Raises:
            LamellaError: There is one patient only, or a panel cannot be chosen.
        """
        made = folds(stage.study)
        panels = [choose_panel(training_slides(stage.study, fold), stage.config.panel) for fold in made]
        return cls(stage, made, tuple(tuple(panel) for panel in panels))

    @property
    def target(self) -> Target:
        return self.stage.config.data.target

    @property
    def counts(self) -> bool:
        """Whether counts are judged, not values of another scale."""
        return self.target == "counts"

    def tested(self, fold: Fold) -> tuple[ExpressionSlide, ...]:
        """The slides of the fold's test patient."""
        return self.stage.study.of((fold.test,))

    def learned_from(self, fold: Fold) -> tuple[ExpressionSlide, ...]:
        """The slides that baselines and the mean map learn from: none of the test patient."""
        slides = training_slides(self.stage.study, fold)
        if self.stage.config.evaluate.baselines.learn_from == "train_and_inner":
            slides = (*slides, *choosing_slides(self.stage.study, fold))
        return slides

    def samples(self, slide: ExpressionSlide, fold: Fold, target: Target | None = None) -> SlideSamples:
        """The places of a slide with the fold's genes; on another target than the study's where it is named."""
        key = (slide.slide_id, self.panels[fold.number], target or self.target)
        if key not in self._samples:
            _forget(self._samples, _KEPT_TABLES)
            settings = self.stage.config.data.model_copy(update={"target": key[2]})
            self._samples[key] = SlideSamples.of(slide, self.stage.study, key[1], settings)
        return self._samples[key]

    def training_mean(self, fold: Fold) -> np.ndarray:
        """(G,) float32 mean over all places that baselines learn from."""
        if fold.number not in self._means:
            total, count = np.zeros(len(self.panels[fold.number])), 0
            for slide in self.learned_from(fold):
                truth = self.samples(slide, fold).judged_truth()
                total, count = total + truth.sum(0, dtype=np.float64), count + len(truth)
            self._means[fold.number] = (total / count).astype(np.float32)
        return self._means[fold.number]

    def judged(self, fold: Fold, slide: ExpressionSlide) -> JudgedSlide:
        """A test slide, with the mean map as its prediction."""
        if slide.slide_id not in self._judged:
            _forget(self._judged, _KEPT_SLIDES)
            samples, mean_G = self.samples(slide, fold), self.training_mean(fold)
            places, truth = samples.places(), samples.judged_truth()
            self._judged[slide.slide_id] = JudgedSlide(
                slide_id=slide.slide_id,
                patient=slide.patient,
                genes=samples.genes,
                truth=truth,
                predicted=np.broadcast_to(mean_G, truth.shape),
                scale="counts" if self.counts else "log",
                total=samples.judged_total(),
                darkness=darkness(slide, places.px0, samples.size_um, samples.kind),
                rc=places.rc,
                bin_um=samples.size_um,
                places_um=places.um,
                training_mean=mean_G,
            )
        return self._judged[slide.slide_id]

    def each(self) -> Iterator[tuple[Fold, ExpressionSlide]]:
        """All test slides, fold by fold."""
        return ((fold, slide) for fold in self.folds for slide in self.tested(fold))

    # ---- what ceilings need ------------------------------------------------------------------------------------------

    def raw_counts(self, fold: Fold, slide: ExpressionSlide) -> np.ndarray:
        """(N, G) counts of the judged places, where the target is made of counts."""
        return self.samples(slide, fold, "counts").judged_truth()

    def transformed(self, slide_id: str, counts_NG: np.ndarray, total_N: np.ndarray) -> np.ndarray:
        """(N, G) values of the study's target from counts and totals of the judged places of a slide.

        Neighbours of a smoothed target are the judged ones: those off the tissue are unknown here.
        """
        per = {"log10_library": 1e4, "log_cpm": 1e6, "log_cpm_smoothed": 1e6}.get(self.target)
        if per is None:
            return np.log1p(counts_NG) if self.target == "log1p" else counts_NG
        values: np.ndarray = np.log1p(per * counts_NG / np.maximum(total_N, 1)[:, None])
        if self.target == "log10_library":
            values = values / np.log(10)
        elif self.target == "log_cpm_smoothed":
            values = self._neighbours(slide_id) @ values
        return values

    @functools.lru_cache(maxsize=_KEPT_SLIDES)  # noqa: B019  (one object a run)
    def _neighbours(self, slide_id: str) -> sparse.csr_array:
        slide = self.stage.study.by_id[slide_id]
        return neighbour_means(slide.counts.of_places(self.rows_of(slide)))

    def rows_of(self, slide: ExpressionSlide) -> np.ndarray:
        """(N,) rows of a slide's own table that its judged spots are of, in their order."""
        fold = next(fold for fold in self.folds if fold.test == slide.patient)
        away, rows = KDTree(slide.counts.places_px0).query(self.samples(slide, fold).places().px0)
        if len(away) and away.max() > _SAME_PX0:
            raise ValueError(f"{slide.slide_id}: a judged spot is not of its table")
        return np.asarray(rows)


def panel_note(panels: Sequence[Sequence[str]]) -> str:
    """What a reader must know of panels that differ between folds."""
    sets = [frozenset(panel) for panel in panels]
    everywhere, anywhere = frozenset.intersection(*sets), frozenset.union(*sets)
    if everywhere == anywhere:
        return f"{len(anywhere)} genes, the same in all folds"
    return (
        f"Panels of {', '.join(str(len(each)) for each in sets)} genes were chosen on the training patients of each "
        f"fold: {len(anywhere)} genes in all, {len(everywhere)} of them in every fold"
    )


def _forget(kept: dict, most: int) -> None:  # type: ignore[type-arg]
    """Make room for one more of so many: the oldest goes."""
    while len(kept) >= most:
        del kept[next(iter(kept))]
