from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lamella.data.splits import group_folds
from lamella.metrics.probes import ProbeSettings
from lamella.metrics.questions import DROP, INDEX, SHORTCUT, TISSUE, ask_drop, ask_index, ask_shortcut, ask_tissue
from lamella.metrics.robustness import RobustnessSettings
from lamella.metrics.study import Answer, CannotAsk, Study

PER_SLIDE, SLIDES = 24, 8


def study(seed: int = 0) -> Study:
    """Eight slides of two sites, two classes on each; one encoder sees tissue, one nothing, one the site."""
    rng = np.random.default_rng(seed)
    slides = np.repeat(np.arange(SLIDES), PER_SLIDE)
    labels = np.tile([0, 1], SLIDES * PER_SLIDE // 2)
    sites = slides % 2
    noise = lambda: 0.3 * rng.normal(size=(len(slides), 3))  # noqa: E731
    return Study(
        features={
            "morphology": (np.concatenate([2.0 * labels[:, None] - 1 + noise(), noise()], axis=1),),
            "random init": tuple(rng.normal(size=(len(slides), 6)) for _ in range(3)),
            "colour": (np.concatenate([2.0 * sites[:, None] - 1 + noise(), noise()], axis=1),),
        },
        slides=slides,
        groups=slides,
        make_folds=group_folds,
        labels=labels,
        class_names=("stroma", "tumour"),
        sites=sites,
        site_names=("A", "B"),
        probes=ProbeSettings(c_grid=(0.1, 1.0), folds=4, knn_k=5, control_draws=2),
        robustness=RobustnessSettings(correlations=(1.0,), repeats=2),
        twin="random init",
    )


def value(answer: Answer, measure: str, encoder: str, probe: str = "linear") -> float:
    (row,) = [r for r in answer.rows if (r.measure, r.encoder, r.probe) == (measure, encoder, probe)]
    return row.estimate.value


def test_tissue_is_found_by_morphology_and_not_by_colour() -> None:
    answer = ask_tissue(study())
    assert value(answer, "balanced accuracy", "morphology") > 0.98
    assert value(answer, "balanced accuracy", "colour") == pytest.approx(0.5, abs=0.12)
    assert value(answer, "balanced accuracy", "random init") == pytest.approx(0.5, abs=0.12)
    assert value(answer, "balanced accuracy", "morphology", "kNN, k=5") > 0.98
    assert value(answer, "balanced accuracy", "morphology, labels exchanged") == pytest.approx(0.5, abs=0.15)
    assert value(answer, "balanced accuracy", "majority class", "constant") == 0.5
    assert {row.question for row in answer.rows} == {TISSUE}
    first, second = answer.conclusions
    assert first.startswith("Tissue class: pretraining helped: morphology is better than random init.")
    assert "192 tiles, 8 groups" in first
    assert second.startswith("Tissue class: morphology is better than colour.")


def test_the_shortcut_is_found_by_colour_and_lower_is_better() -> None:
    answer = ask_shortcut(study())
    assert value(answer, "balanced accuracy", "colour") > 0.98
    assert value(answer, "balanced accuracy", "morphology") < 0.75
    assert {row.better for row in answer.rows if row.encoder == "morphology"} == {"lower"}
    assert answer.conclusions[1].startswith("Site shortcut: morphology is better than colour.")
    assert "lower is better" in answer.conclusions[1]


def test_a_model_no_better_than_random_weights_is_not_praised() -> None:
    # One random network judged against others: chance differences between them must not count as learning.
    praised = 0
    quick = ProbeSettings(c_grid=(0.1,), folds=4, knn_k=5, control_draws=1)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        base = study(seed)
        networks = rng.normal(size=(4, 12, 6)) / 3
        raw = np.concatenate([base.features["morphology"][0], base.features["colour"][0]], axis=1)
        seen = [np.tanh(raw @ weights) + 0.7 * rng.normal(size=(len(raw), 6)) for weights in networks]
        fair = replace(base, probes=quick, features={"model": (seen[0],), "random init": tuple(seen[1:])})
        praised += "pretraining helped" in ask_tissue(fair).conclusions[0]
    assert praised <= 1


def test_the_index_and_the_drop_part_morphology_from_colour() -> None:
    answer = ask_index(study())
    assert value(answer, "robustness index", "morphology", "10 neighbours") > 0.95
    assert value(answer, "robustness index", "colour", "10 neighbours") < 0.05
    assert answer.rows[-1].baseline.value == pytest.approx(4 / 7, abs=0.1)  # 4 of 7 other slides are of the other site
    assert {row.question for row in answer.rows} == {INDEX}
    assert "pretraining helped" in answer.conclusions[0]
    answer = ask_drop(study())
    assert {row.question for row in answer.rows} == {DROP}
    assert value(answer, "accuracy lost as class and site go together (APD)", "morphology") == pytest.approx(
        0, abs=0.02
    )
    assert value(answer, "balanced accuracy, class and site unrelated", "morphology") > 0.98


def test_unlabelled_tiles_and_classes_of_one_group_are_left_out_and_said() -> None:
    base = study()
    labels = base.labels.copy()
    labels[:5] = -1
    labels[5:9] = 2
    answer = ask_tissue(replace(base, labels=labels, class_names=("stroma", "tumour", "necrosis")))
    assert answer.rows[0].estimate.n == SLIDES * PER_SLIDE - 9
    assert "class necrosis occurs in one group only and is left out" in answer.notes


def test_sites_are_balanced_within_each_class() -> None:
    base = study()
    keep = ~((base.sites == 1) & (base.labels == 1) & (np.arange(len(base.labels)) % 4 == 1))
    answer = ask_shortcut(base.rows(keep))
    assert answer.rows[0].estimate.n % 4 == 0
    assert any(note == "Site shortcut, tiles: A 48, B 48" for note in answer.notes)


def one_site(base: Study) -> Study:
    return replace(base, sites=np.zeros_like(base.sites), site_names=("A",))


@pytest.mark.parametrize(
    ("ask", "change", "reason"),
    [
        (ask_tissue, lambda s: replace(s, labels=None), "no tile labels"),
        (ask_tissue, lambda s: s.rows(s.slides == 0), "tiles of 1 group"),
        (ask_tissue, lambda s: s.rows(s.labels == 0), "1 class"),
        (ask_shortcut, lambda s: replace(s, sites=None), "no site column"),
        (ask_shortcut, one_site, r"1 site\(s\) only"),
        (ask_shortcut, lambda s: s.rows(s.slides < 3), "fewer than two sites have two groups"),
        (ask_index, lambda s: replace(s, labels=None), "tile labels beside sites"),
        (ask_index, one_site, r"1 site\(s\) only"),
        (ask_index, lambda s: replace(s, labels=s.sites), "class and site cannot be told apart"),
        (ask_drop, lambda s: s.rows(np.arange(len(s.slides)) % PER_SLIDE < 2), "tiles of some class at some site"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_asked_says_why(ask, change, reason: str) -> None:
    with pytest.raises(CannotAsk, match=reason):
        ask(change(study()))


def test_two_groups_get_an_answer_whose_interval_claims_nothing() -> None:
    base = study()
    answer = ask_tissue(base.rows(base.slides < 2))
    judged = [row for row in answer.rows if row.encoder == "morphology"]
    assert all((row.estimate.low, row.estimate.high) == (0, 1) for row in judged)
    assert "made no measurable difference" in answer.conclusions[0]
    assert "too few for an interval" in answer.conclusions[0]


def test_the_shortcut_can_be_asked_without_tile_labels() -> None:
    answer = ask_shortcut(replace(study(), labels=None, class_names=()))
    assert {row.question for row in answer.rows} == {SHORTCUT}
    assert any("the tissue is not" in note for note in answer.notes)
