"""Does it hold at a hospital that it never saw? A linear probe fitted without one site, judged on that site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lamella.metrics.comparison import CONSTANT, Asked, Comparison, auc_title, class_measures, weighted
from lamella.metrics.image_study import ImageAnswer, ImageStudy, Part, with_classes
from lamella.metrics.report import Reference, Row
from lamella.metrics.resamples import Resamples, WeightedStatistic
from lamella.metrics.scored import linear_scores
from lamella.metrics.study import CannotAsk

SITES = "Sites left out"
MEANING = (
    "A linear probe fitted on all sites but one and judged on that one, for each site; then the worst of them. What "
    "holds at every site but the worst does not hold at a new one."
)
_LEAST = 2  # of each class at a site, or there is nothing to rank


def ask_sites(study: ImageStudy) -> ImageAnswer:
    """Leave-one-site-out probes of every encoder.

    Raises:
        CannotAsk: No sites, fewer than two, or fewer than two that hold two items of two classes each.
    """
    if study.sites is None:
        raise CannotAsk("no item states its site")
    study = with_classes(study)
    assert study.sites is not None
    parts, names, notes = _parts(study)
    study = replace(study, parts=tuple(parts))
    test, classes = study.test_rows, len(study.class_names)
    truth = study.labels[test]
    at = np.repeat(np.arange(len(parts)), [len(part.test) for part in parts])
    scores = {
        name: [linear_scores(each, study.labels, study) for each in replicates]
        for name, replicates in study.features.items()
    }
    rows: list[Row] = []
    main, differences, conclusions = auc_title(classes), [], []
    table = []
    for number, name in enumerate(names):
        here = at == number
        comparison = _comparison(study, test[here])
        probe = f"linear, without {name}"
        for measure, asked in class_measures(truth[here], classes).items():
            found = {
                encoder: comparison.resamples.of([weighted(measure, truth[here], one.scores[here]) for one in each])
                for encoder, each in scores.items()
            }
            made = comparison.rows(asked, probe, found)
            rows += made
            if measure == main:
                gaps, _ = comparison.differences(asked, probe)
                differences += gaps
                table += [
                    {
                        "site": name, "encoder": row.encoder, "items": row.estimate.n, "auc": row.estimate.value,
                        "auc_low": row.estimate.low, "auc_high": row.estimate.high,
                    }
                    for row in made
                ]  # fmt: skip
    worst = _comparison(study, test)
    asked = Asked(f"{main} at the worst site", Reference(CONSTANT, 0.5))
    found = {
        encoder: worst.resamples.of([_worst(main, truth, one.scores, at, len(parts)) for one in each])
        for encoder, each in scores.items()
    }
    first = worst.rows(asked, "linear", found)
    gaps, conclusions = worst.differences(asked, "linear")
    return ImageAnswer((*gaps, *first, *differences, *rows), tuple(conclusions), tuple(notes), tables={"sites": table})


def _comparison(study: ImageStudy, rows: np.ndarray) -> Comparison:
    resamples = Resamples(study.groups[rows], seed=study.seed)
    return Comparison(SITES, resamples, study.judged, study.twin, study.noun)


def _worst(name: str, truth: np.ndarray, scores: np.ndarray, at: np.ndarray, sites: int) -> WeightedStatistic:
    each: Sequence[WeightedStatistic] = [weighted(name, truth[at == s], scores[at == s]) for s in range(sites)]

    def of(weights_SN: np.ndarray) -> np.ndarray:
        found = np.stack([statistic(weights_SN[:, at == s]) for s, statistic in enumerate(each)])
        return found.min(0)  # NaN, if any site is undefined: left out of the resamples

    return of


def _parts(study: ImageStudy) -> tuple[list[Part], list[str], list[str]]:
    """One part for each site that can be judged; no group of its test rows is fitted on."""
    assert study.sites is not None
    judged = study.test_rows
    # With the data set's own split only its training part may teach; with folds every row was judged by others anyway.
    teaching = study.parts[0].train if len(study.parts) == 1 else np.arange(len(study.items))
    choosing = study.parts[0].val if len(study.parts) == 1 else np.zeros(0, np.int64)
    parts, names, notes = [], [], []
    for site, name in enumerate(study.site_names):
        test = judged[study.sites[judged] == site]
        counts = np.bincount(study.labels[test], minlength=len(study.class_names))
        if (counts >= _LEAST).sum() < 2:
            notes.append(f"{SITES}: {name} has not two judged {study.noun} of two classes and is left out")
            continue
        own = np.isin(study.groups, study.groups[test])

        def away(rows: np.ndarray, own: np.ndarray = own, site: int = site) -> np.ndarray:
            assert study.sites is not None
            return rows[(study.sites[rows] != site) & (study.sites[rows] >= 0) & ~own[rows]]

        train = away(teaching)
        if len(np.unique(study.labels[train])) < 2:
            notes.append(f"{SITES}: the other sites teach one class only without {name}, which is left out")
            continue
        parts.append(Part(train, away(choosing), test))
        names.append(name)
    if len(parts) < 2:
        raise CannotAsk("; ".join(notes) or f"{len(study.site_names)} site(s) only; leaving one out needs two")
    return parts, names, notes
