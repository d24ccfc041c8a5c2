"""What is asked of an encoder, on plain arrays: tissue class, site shortcut, robustness index, accuracy drop.

Every question answers with table rows, each beside a baseline and a negative control, or says why it cannot be asked.
"""

from __future__ import annotations

import numpy as np

from lamella.metrics.bootstrap import group_sums
from lamella.metrics.compared import Measure, difference_rows, encoder_rows, estimate
from lamella.metrics.controls import exchange_labels
from lamella.metrics.probe_rows import EXCHANGED, LINEAR, ProbeQuestion
from lamella.metrics.report import Reference
from lamella.metrics.robustness import (
    accuracy_drop,
    cell_accuracy,
    cell_sums,
    confounded_hits,
    neighbour_counts,
    robustness_index,
)
from lamella.metrics.study import (
    NO_CLASS,
    Answer,
    CannotAsk,
    Study,
    balanced_rows,
    crossed_study,
    folds_of,
    fully_crossed,
    in_two_groups,
    need_groups,
    renumbered,
    with_sites,
)

TISSUE, SHORTCUT, INDEX, DROP = "Tissue class", "Site shortcut", "Robustness index", "Accuracy drop"
MEANINGS = {
    TISSUE: "Can the tissue class be read from the features of tiles of held-out groups? Higher is better.",
    SHORTCUT: "Can the site or scanner be read from the features of tiles of held-out groups, sites balanced? "
    "**Lower is better** where morphology is what we want: a high number means that the features carry the stain.",
    INDEX: "Among each tile's nearest neighbours in other groups: same class & other site, over that plus other class "
    "& same site. 1 = tissue decides, 0 = the site decides; random features show what no preference gives here.",
    DROP: "Balanced accuracy of a probe on held-out groups when, in its training tiles, class and site are unrelated, "
    "minus the mean over stronger links between them. Who knows nothing has nothing to lose: read both measures.",
}
_AT_ZERO, _LOST = "balanced accuracy, class and site unrelated", "accuracy lost as class and site go together (APD)"
_NOISE_DIM = 32  # wide enough that neighbours in noise are by chance


def ask_tissue(study: Study) -> Answer:
    """(a) Can the tissue class be read from the features of tiles of unseen groups?

    Raises:
        CannotAsk: No labels, fewer than two groups, or fewer than two classes that occur in two groups.
    """
    if study.labels is None:
        raise CannotAsk("no tile labels were given (labels.table, labels.column or label_mask_path in the manifest)")
    study = study.rows(study.labels != NO_CLASS)
    need_groups(study)
    keep, notes = in_two_groups(study.labels, study.groups, study.class_names, "class")
    study = study.rows(keep)
    labels, names = renumbered(study.labels, study.class_names)
    if len(names) < 2:
        raise CannotAsk(f"{len(names)} class(es) occur in two groups; a probe needs two")
    return ProbeQuestion(TISSUE, study, labels, names, "higher").answer(notes)


def ask_shortcut(study: Study) -> Answer:
    """(b) Can the site (or scanner) be read from the features? It should not: lower is better.

    The sites are balanced within each tissue class where classes are known, so that tissue does not give the site away.

    Raises:
        CannotAsk: No sites, one site only, or no two sites with two groups each.
    """
    study, notes = with_sites(study)
    sites, names = renumbered(study.sites, study.site_names)
    keys = sites
    crossed = np.zeros(len(sites), bool) if study.labels is None else fully_crossed(study.labels, study.sites)
    if crossed.any():
        study, sites = study.rows(crossed), sites[crossed]
        keys = study.labels * len(names) + sites
    else:
        notes.append("Site shortcut: no tissue class is known at every site; sites are balanced, the tissue is not")
    keep = balanced_rows(keys, study.seed)
    return ProbeQuestion(SHORTCUT, study.rows(keep), sites[keep], names, "lower").answer(notes)


def ask_index(study: Study) -> Answer:
    """(c) Among a tile's nearest neighbours in other groups, does tissue decide or the site?

    Raises:
        CannotAsk: Sites or labels are missing, or fewer than two classes occur at every one of two sites.
    """
    study, notes = crossed_study(study)
    k = study.robustness.neighbours
    measure = Measure(INDEX, "robustness index", f"{k} neighbours", robustness_index, "higher", dims=1)

    def sums(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
        counts = neighbour_counts(features, labels, study.sites, study.groups, k)
        if not counts.any():
            raise CannotAsk(f"no tile has a telling neighbour among its {k} nearest in other groups")
        return group_sums(counts, study.groups)

    counted = {
        name: np.stack([sums(features, study.labels) for features in replicates], axis=1)
        for name, replicates in study.features.items()
    }
    draws = [
        exchange_labels(study.labels, study.slides, len(study.class_names), study.seed + 1 + draw)
        for draw in range(study.probes.control_draws)
    ]
    sham = np.stack([sums(study.judged_features, labels) for labels in draws], axis=1)
    noise = np.random.default_rng(study.seed).normal(size=(len(study.slides), _NOISE_DIM))
    baseline = Reference("random features", estimate(study, measure, sums(noise, study.labels)[:, None]).value)
    control = Reference(EXCHANGED, estimate(study, measure, sham).value)
    differences, conclusions = difference_rows(study, measure, counted)
    rows = encoder_rows(study, measure, counted, baseline, control)
    return Answer((*differences, *rows), tuple(conclusions), tuple(notes))


def ask_drop(study: Study) -> Answer:
    """(d) How much accuracy is lost when, in training, class and site go together?

    The control links the classes to sites exchanged among the slides: a link without meaning costs nothing.

    Raises:
        CannotAsk: As for `ask_index`, or a training set would be too small.
    """
    study, notes = crossed_study(study)
    counted = {
        name: np.stack([_drop_sums(study, features, study.sites) for features in replicates], axis=1)
        for name, replicates in study.features.items()
    }
    exchanged = exchange_labels(study.sites, study.slides, len(study.site_names), study.seed + 1)
    try:
        sham = _drop_sums(study, study.judged_features, exchanged)[:, None]
    except CannotAsk as reason:
        sham = None
        notes.append(f"{DROP}: no control with exchanged sites ({reason})")
    chance, none = Reference("chance", 1 / len(study.class_names)), Reference("no drop", 0.0)
    lost = Measure(DROP, _LOST, LINEAR, accuracy_drop, "lower", dims=3, bounds=(-1.0, 1.0))
    at_zero = Measure(DROP, _AT_ZERO, LINEAR, _unrelated, "higher", dims=3)
    rows, conclusions = difference_rows(study, lost, counted)
    for measure, baseline in ((lost, none), (at_zero, chance)):
        control = None if sham is None else Reference("sites exchanged", estimate(study, measure, sham).value)
        rows += encoder_rows(study, measure, counted, baseline, control)
    return Answer(tuple(rows), tuple(conclusions), tuple(notes))


def _unrelated(sums: np.ndarray) -> np.ndarray:
    return cell_accuracy(sums)[..., 0]


def _drop_sums(study: Study, features: np.ndarray, sites: np.ndarray) -> np.ndarray:
    """(G, C, S, strengths + 1) hits and tries of each group; see `robustness.cell_sums`."""
    # Folds hold classes and sites alike, so that every training set has tiles of each class at each site.
    folds = folds_of(study, study.labels * len(study.site_names) + study.sites)
    try:
        hits = confounded_hits(features, study.labels, sites, folds, study.robustness, seed=study.seed)
    except ValueError as error:
        raise CannotAsk(str(error)) from error
    return group_sums(cell_sums(hits, study.labels, sites), study.groups)
