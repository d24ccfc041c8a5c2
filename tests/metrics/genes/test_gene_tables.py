from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from tests.metrics.genes.judged_slides import bins, spots

from lamella.metrics.genes.comparison import differences
from lamella.metrics.genes.controls import KINDS, MEAN_MAP, NOISE_CEILING, controls
from lamella.metrics.genes.measures import AGREEMENT, FISHER
from lamella.metrics.genes.protocol import GeneReportError
from lamella.metrics.genes.scores import GeneScores
from lamella.metrics.genes.scoring import score
from lamella.metrics.genes.settings import GeneMetricSettings
from lamella.metrics.genes.summary import GeneRow, Shuffled, gene_means, summarise
from lamella.metrics.genes.tables import few_patients, write_expression_report
from lamella.metrics.genes.thinning import noise_ceilings

SETTINGS = GeneMetricSettings(block_um=20, resolutions_um=(2, 8), draws=100)
MODEL, WORSE = "base", "loss=mse"


@pytest.fixture(scope="module")
def study():
    """Two predictors and all controls on three slides of two patients; one gene is nowhere."""
    slides = []
    for number, patient in enumerate("AAB"):
        slide = bins(number, side=32, genes=4, slide_id=f"s{number}", patient=patient)
        truth = slide.truth.copy()
        truth[:, 3] = 0
        slides.append(replace(slide, truth=truth))
    results = {MODEL: score(slides, SETTINGS)}
    noise = np.random.default_rng(0).gamma(1, 1, slides[0].truth.shape).astype(np.float32)
    results[WORSE] = score(
        [slide.with_predicted(slide.predicted * noise[: len(slide.truth)]) for slide in slides], SETTINGS
    )
    beside = [controls(slide, SETTINGS) for slide in slides]
    for name in beside[0]:
        results[name] = score([each[name] for each in beside], SETTINGS)
    results[NOISE_CEILING] = noise_ceilings(slides, SETTINGS)
    return results, {MODEL: "model", WORSE: "model", **KINDS}


@pytest.fixture(scope="module")
def summary(study):
    return summarise(*study, SETTINGS)


def test_every_row_has_n_interval_baseline_and_control(study, summary):
    results, rows = study[0], summary.rows
    assert {row.predictor for row in rows} == set(results)
    for row in rows:
        assert row.low <= row.high
        assert row.n > 0
        assert row.genes <= 3
        assert (row.baseline is None) == (row.measure in ("pearson", "spearman", FISHER, AGREEMENT))
        assert row.control is not None or row.control_note
        if row.kind == "model" and row.measure in ("pearson", "ssim_joint", "ssim_separate_skill", "auprc", "nb_d2"):
            assert row.control is not None
            assert row.control.shuffles == 20


def test_a_row_is_the_mean_over_genes_then_slides(study, summary):
    results = study[0]
    row = next(row for row in summary.rows if row.predictor == MODEL)
    slides = results[MODEL].at(2)
    assert (row.measure, row.resolution_um) == ("pearson", 2)
    assert row.value == pytest.approx(np.mean([np.nanmean(slide.values["pearson"]) for slide in slides]))
    assert row.control.mean == pytest.approx(
        np.mean([np.nanmean(slide.shuffled["pearson"][:, :3]) for slide in slides])
    )
    means = list(gene_means(slides, "pearson").values())
    assert (row.q25, row.median, row.q75) == pytest.approx(tuple(np.percentile(means, [25, 50, 75])))
    assert (row.undefined, row.genes, row.slides, row.patients) == (3, 3, 3, 2)


def test_a_constant_has_no_correlation_and_is_named(summary):
    gone = {(each.measure, each.predictor): each.reason for each in summary.undefined}
    assert gone["pearson", MEAN_MAP] == "constant prediction"
    baseline = {row.measure: row for row in summary.rows if row.predictor == MODEL and row.resolution_um == 2}
    assert baseline["pearson"].baseline_note == "undefined: constant"
    assert baseline["auroc"].baseline == pytest.approx(0.5)
    assert baseline["poisson_d2"].baseline <= 0


def test_differences_are_paired(study):
    results, _ = study
    found = {
        (each.measure, each.resolution_um): each
        for each in differences(results, [(MODEL, WORSE), (MODEL, NOISE_CEILING)], SETTINGS)
        if each.second == WORSE
    }
    one = found["pearson", 2]
    means = [np.mean([np.nanmean(slide.values["pearson"]) for slide in results[name].at(2)]) for name in (MODEL, WORSE)]
    assert one.value == pytest.approx(means[0] - means[1])
    assert one.low > 0
    assert (one.better, one.patients) == (2, 2)
    assert "no claim of significance" in one.note
    same = differences({"a": results[MODEL], "b": results[MODEL]}, [("a", "b")], SETTINGS)
    assert all((each.value, each.low, each.high, each.better) == (0, 0, 0, 0) for each in same)
    with pytest.raises(ValueError, match="not scored: other"):
        differences(results, [(MODEL, "other")], SETTINGS)


def test_genes_that_one_of_a_pair_lacks_count_for_neither(study):
    results, _ = study
    flat = results[WORSE]
    broken = []
    for slide in flat.slides:
        values, sums = dict(slide.values), dict(slide.sums)
        values["pearson"] = values["pearson"].copy()
        values["pearson"][0] = np.nan
        sums["pearson"] = sums["pearson"].copy()
        sums["pearson"][:, 0] = np.nan
        broken.append(replace(slide, values=values, sums=sums))
    found = differences({**results, WORSE: GeneScores(tuple(broken))}, [(MODEL, WORSE)], SETTINGS)
    one = next(each for each in found if each.measure == "pearson" and each.resolution_um == 2)
    expected = [
        np.nanmean(slide.values["pearson"][1:3]) - np.nanmean(other.values["pearson"][1:3])
        for slide, other in zip(results[MODEL].at(2), flat.at(2), strict=True)
    ]
    assert one.value == pytest.approx(np.mean(expected))
    assert one.genes == 2


def test_the_three_files(study, tmp_path):
    results, kinds = study
    files = write_expression_report(
        tmp_path,
        results,
        kinds,
        SETTINGS,
        title="Toy",
        pairs=[(MODEL, WORSE)],
        facts={"target": "counts"},
        notes=["two folds"],
        warnings=["one | bar"],
        command="lamella expression run toy.yaml",
        pictures=[("pictures/a.png", "gene a")],
    )
    assert [file.name for file in files] == ["results.md", "results.json", "per_gene.csv"]
    text = files[0].read_text(encoding="utf-8")
    assert "n = 2 patients: this allows no claim of significance" in text.split("## ")[0]
    for part in (
        "label shuffle: mean, 95th pct.",
        "baseline: mean map",
        "Descriptive only",
        "Not judged, all zero: gene3 (s0)",
    ):
        assert part in text
    short = text.split("## In short")[1].split("## ")[0]
    assert f"At 2 µm {MODEL} has a mean Pearson of" in short
    for name in ("label shuffle", "total count", "darkness", "blurred truth", "count-thinning ceiling"):
        assert short.count(name) == 2
    glance, tables = text.split("## At a glance")[1].split("## How to read")[0], text.split("## At 2 µm")[1]
    for line in tables.splitlines():
        if line.startswith("| base | model"):
            assert "[" in line
            assert "3 / 2" in line
    tree = json.loads(files[1].read_text(encoding="utf-8"))
    assert tree["predictors"][MODEL] == "model"
    (pearson,) = (
        row for row in tree["rows"] if (row["predictor"], row["measure"], row["resolution_um"]) == (MODEL, "pearson", 2)
    )
    assert f"| {MODEL} | model | {pearson['value']:.3f} [{pearson['low']:.3f}, {pearson['high']:.3f}] |" in glance
    assert "| training mean map | control |  |" in glance  # a constant has no correlation
    assert tree["protocol"]["hash"] in text
    assert tree["unjudged_genes"]["2"] == {"all zero": ["gene3 (s0)", "gene3 (s1)", "gene3 (s2)"]}
    rows = list(csv.DictReader(files[2].read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(results) * 2 * 4
    zero = next(row for row in rows if row["gene"] == "gene3" and row["predictor"] == MODEL)
    assert zero["pearson"] == ""
    assert zero["undefined"].startswith("all zero (s0)")
    assert zero["stratum"] == "99-100 % zero"


def test_the_hash_is_of_the_conditions(study, tmp_path):
    results, kinds = study

    def digest(scores, settings=SETTINGS):
        write_expression_report(tmp_path, scores, kinds, settings, title="t")
        return json.loads((tmp_path / "results.json").read_text())["protocol"]["hash"]

    first = digest({MODEL: results[MODEL]})
    assert first == digest({WORSE: results[WORSE]})
    assert first != digest({MODEL: GeneScores(results[MODEL].slides[:4])})
    assert first != digest({MODEL: results[MODEL]}, SETTINGS.model_copy(update={"seed": 9}))


def test_predictors_of_different_truths_share_no_table(study):
    results, kinds = study
    other = score(
        [bins(9, side=32, genes=4, slide_id=f"s{number}", patient=p) for number, p in enumerate("AAB")], SETTINGS
    )
    with pytest.raises(GeneReportError, match="judged by different truths"):
        summarise({**results, WORSE: other}, kinds, SETTINGS)
    with pytest.raises(GeneReportError, match="not scored on the same slides"):
        summarise({**results, WORSE: GeneScores(results[WORSE].slides[1:])}, kinds, SETTINGS)
    with pytest.raises(GeneReportError, match="what these predictors are"):
        summarise(results, {MODEL: "model"}, SETTINGS)
    with pytest.raises(GeneReportError, match="no predictor"):
        summarise({}, kinds, SETTINGS)


ROW = GeneRow(
    2, "auroc", "m", "model", 0.6, 0.5, 0.7, 0.6, 0.5, 0.7, 0.5, "", Shuffled(0.5, 0.52, 20), "", 9, 3, 0, 1, 1
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": math.nan}, "interval"),
        ({"low": 0.9}, "in order"),
        ({"n": 0}, "at least 1"),
        ({"baseline": None}, "without a baseline"),
        ({"control": None}, "without a control"),
    ],
)
def test_a_row_that_says_less_cannot_be_made(change, message):
    with pytest.raises(GeneReportError, match=message):
        replace(ROW, **change)


def test_few_patients():
    assert few_patients(1)[0].startswith("n = one patient: this allows no claim")
    assert few_patients(3)
    assert not few_patients(4)


def test_spots_alone_make_a_report(tmp_path):
    slides = [spots(number, slide_id=f"s{number}", patient=patient) for number, patient in enumerate("AC")]
    results = {
        "ridge": score(slides, SETTINGS),
        MEAN_MAP: score([controls(each, SETTINGS)[MEAN_MAP] for each in slides], SETTINGS),
    }
    write_expression_report(tmp_path, results, {"ridge": "baseline", MEAN_MAP: "control"}, SETTINGS, title="Spots")
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "## At 100 µm" in text
    assert "SSIM" not in text.split("## At 100")[1]
