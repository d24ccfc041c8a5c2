"""What the stage `check` finds of a study as a whole: folds, panels, genes that cannot be judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lamella.data.expression import ExpressionStudy, Fold
from lamella.data.expression_samples import SlideSamples
from lamella.data.gene_panel import PanelSettings, choose_panel
from lamella.data.lopo import folds, inner_note, training_slides
from lamella.imaging.datasets.problems import named


@dataclass(frozen=True)
class FoldFindings:
    """Of one fold.

    Attributes:
        fold: Which.
        genes: Its panel.
        empty: Test slide -> genes of the panel without a count at its judged places. Their measures are undefined
            there, not 0.
    """

    fold: Fold
    genes: tuple[str, ...]
    empty: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class StudyFindings:
    """Of all folds."""

    folds: tuple[FoldFindings, ...]
    genes_of_all: int
    genes_of_some: int

    def panel_rows(self) -> Iterator[dict[str, object]]:
        """A row for each gene of each fold's panel."""
        for one in self.folds:
            for place, gene in enumerate(one.genes):
                yield {
                    "fold": one.fold.name,
                    "test": one.fold.test,
                    "inner": one.fold.inner or "",
                    "train": " ".join(one.fold.train),
                    "place": place,
                    "gene": gene,
                    "not_judged_on": " ".join(slide for slide, genes in one.empty.items() if gene in genes),
                }

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.genes_of_some:
            yield f"{self.genes_of_some} genes are measured on some slides only, and {self.genes_of_all} on all"
        for one in self.folds:
            yield (
                f"{one.fold.name}: trained on {', '.join(one.fold.train)}, {inner_note(one.fold)}; "
                f"{len(one.genes)} genes: {named(one.genes, 8)}"
            )
            for slide_id, genes in one.empty.items():
                yield (
                    f"{one.fold.name}: {len(genes)} of them have no count on {slide_id}; their measures are undefined "
                    f"there: {named(genes, 8)}"
                )


def study_findings(
    study: ExpressionStudy,
    panel: PanelSettings,
    samples: Sequence[SlideSamples],
) -> StudyFindings:
    """Deal folds, choose every fold's panel on its training slides, and look whether it can be judged.

    Args:
        study: All slides, which can all be read.
        panel: How genes are chosen.
        samples: Of every slide, in the study's order; which places are judged.

    Raises:
        SplitError: There is one patient only.
        DatasetError: A panel cannot be chosen.
        ExpressionError: A slide did not measure a gene of a panel.
    """
    measured = [set(slide.counts.genes) for slide in study.slides]
    common = set.intersection(*measured)
    judged = {one.slide.slide_id: one.judged_rows for one in samples}
    found = []
    for fold in folds(study):
        genes = choose_panel(training_slides(study, fold), panel)
        empty = {}
        for slide in study.of((fold.test,)):
            sums = abs(slide.counts.of_genes(genes).counts[judged[slide.slide_id]]).sum(axis=0)
            none = tuple(gene for gene, total in zip(genes, np.asarray(sums).reshape(-1), strict=True) if not total)
            if none:
                empty[slide.slide_id] = none
        found.append(FoldFindings(fold, genes, empty))
    return StudyFindings(tuple(found), len(common), len(set.union(*measured) - common))
