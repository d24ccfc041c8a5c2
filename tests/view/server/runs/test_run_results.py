"""Tables of results, and rows that may not stand in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.view.server.runs.conftest import AUTOMATIC, PROMPTED, TOLD, WEAK, protocol, row, write_results

from lamella.errors import LamellaError
from lamella.view.server.runs.run_compare import compared_results
from lamella.view.server.runs.run_results import results_of


def test_a_table_has_value_interval_baseline_control_and_n(tmp_path) -> None:
    rows = [row("Class", "ours", 0.8), row("Class", "random init", 0.6, control=None)]
    found = results_of(write_results(tmp_path, rows))
    assert [table.title for table in found.tables] == ["Class"]
    first, second = found.tables[0].lines
    assert first.cells[2:] == ("ours", "0.80 [0.70, 0.90]", "0.50 all gland", "0.49 labels exchanged", "40", "4", "few")
    assert second.cells[5] == "none"
    assert found.conclusions == ["ours is better", "Sites: not asked, one site"]
    # One scale for both: from the baseline, 0.5, to the end of the first interval, 0.9.
    assert first.bar.high == 116
    assert first.bar.base == second.bar.base == second.bar.low == 4


def test_three_tasks_are_three_tables_with_their_conditions(tmp_path) -> None:
    rows = [
        row(AUTOMATIC, "net", 0.8, protocol=protocol("automatic")),
        row(PROMPTED, "sam", 0.9, protocol=protocol("prompted")),
        row(WEAK, "weak", 0.7, protocol=protocol("weak")),
        row(WEAK, "weak (LABEL ORACLE)", 0.8, protocol=protocol("weak", prompt=TOLD)),
    ]
    found = results_of(write_results(tmp_path, rows))
    assert [(table.title, len(table.lines)) for table in found.tables] == [(AUTOMATIC, 1), (PROMPTED, 1), (WEAK, 2)]
    assert "prompted, oracle; scored: pixels" in found.tables[1].about[0]
    assert not found.refused


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("automatic", 4), ("prompted", 4)], "task: automatic and prompted"),
        ([("automatic", 4), ("automatic", 5)], "n: 4 and 5"),
        ([("prompted", 4)], "which its heading does not say"),
    ],
)
def test_rows_that_mean_different_things_are_not_shown_and_the_others_are(tmp_path, rows, reason) -> None:
    mixed = [row(AUTOMATIC, task, 0.8, protocol=protocol(task, n)) for task, n in rows]
    found = results_of(write_results(tmp_path, [*mixed, row("Class", "ours", 0.8)]))
    assert [table.title for table in found.tables] == ["Class"]
    assert len(found.refused) == 1
    assert reason in found.refused[0]


@pytest.mark.parametrize("lack", ["estimate", "baseline", "control", "encoder"])
def test_a_row_without_what_it_must_have_is_not_shown(tmp_path, lack) -> None:
    broken = row("Class", "ours", 0.8)
    del broken[lack]
    found = results_of(write_results(tmp_path, [broken]))
    assert not found.tables
    assert lack in found.refused[0]


def test_a_changed_protocol_is_not_believed(tmp_path) -> None:
    changed = protocol("automatic") | {"n": 99}
    found = results_of(write_results(tmp_path, [row(AUTOMATIC, "net", 0.8, protocol=changed)]))
    assert "does not belong to these conditions" in found.refused[0]


def test_a_damaged_file_says_so_and_none_is_none(tmp_path) -> None:
    assert results_of(tmp_path) is None
    (tmp_path / "results.json").write_text('{"title": "t"')
    with pytest.raises(LamellaError, match=r"results\.json: it cannot be read"):
        results_of(tmp_path)


PUBLISHED = Path(__file__).resolve().parents[4] / "docs" / "results"


@pytest.mark.parametrize("path", sorted(PUBLISHED.rglob("results.json")), ids=lambda path: path.parent.name)
def test_every_published_result_is_shown_whole(path) -> None:
    tree, found = json.loads(path.read_text()), results_of(path.parent)
    assert not found.refused
    assert sum(len(table.lines) for table in found.tables) == len(tree["rows"]) > 0
    assert all(line.bar.low <= line.bar.value <= line.bar.high for table in found.tables for line in table.lines)


def test_a_published_prompted_and_an_automatic_evaluation_are_not_compared() -> None:
    trees = [json.loads((PUBLISHED / name / "results.json").read_text()) for name in ("glas_prompted", "glas_sam2")]
    tables, refused = _compared(*trees)
    assert not tables
    assert any(text.startswith("Prompted (oracle") for text in refused)


def _genes(value: float, mark: str = "ab") -> dict:
    rows = [
        {
            "resolution_um": um, "measure": "pearson", "predictor": name, "kind": kind, "value": value, "low": 0.0,
            "high": 0.2, "median": None, "q25": None, "q75": None, "baseline": None, "baseline_note": "constant",
            "control": {"mean": 0.001, "high": 0.01, "shuffles": 20}, "control_note": "", "n": 4000, "genes": 12,
            "undefined": 0, "slides": 3, "patients": 3, "note": "3 patients",
        }
        for um in (2.0, 8.0)
        for name, kind in (("blur", "ceiling"), ("base", "model"))
    ]  # fmt: skip
    return {"title": "Genes", "protocol": {"hash": mark}, "predictors": {}, "rows": rows}


def test_expression_has_a_table_for_each_resolution_models_first(tmp_path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(_genes(0.1)))
    found = results_of(tmp_path)
    titles = ["Pearson (higher is better) at 2 µm", "Pearson (higher is better) at 8 µm"]
    assert [table.title for table in found.tables] == titles
    assert [line.cells[:3] for line in found.tables[0].lines] == [
        ("base", "model", "0.100 [0.000, 0.200]"),
        ("blur", "ceiling", "0.100 [0.000, 0.200]"),
    ]
    assert found.tables[0].lines[0].cells[4:6] == ("constant", "0.001, 0.010 (20)")


def _compared(first: dict, second: dict) -> tuple[list, list[str]]:
    refused: list[str] = []
    return compared_results((first, second), ("one", "two"), refused), refused


def test_runs_under_the_same_conditions_share_a_table() -> None:
    trees = [{"rows": [row(AUTOMATIC, name, 0.8, protocol=protocol("automatic"))]} for name in ("net", "other")]
    tables, refused = _compared(*trees)
    assert not refused
    assert "automatic, no oracle; scored: pixels, n = 4" in tables[0].about[0]
    assert [line.cells[:4] for line in tables[0].lines] == [
        ("one", "Dice (higher is better)", "all pixels", "net"),
        ("two", "Dice (higher is better)", "all pixels", "other"),
    ]


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (row(AUTOMATIC, "net", 0.8, protocol=protocol("automatic", split="cd")), "split: ab and cd"),
        (row(AUTOMATIC, "net", 0.8, protocol=protocol("prompted")), "task: automatic and prompted"),
        (row(AUTOMATIC, "net", 0.8), "with and without a protocol"),
        (row(PROMPTED, "net", 0.8, protocol=protocol("prompted")), "some measures or probes are only in one"),
    ],
)
def test_runs_under_other_conditions_do_not(second, reason) -> None:
    tables, refused = _compared(
        {"rows": [row(AUTOMATIC, "net", 0.8, protocol=protocol("automatic"))]}, {"rows": [second]}
    )
    assert not tables
    assert reason in refused[0]


def test_a_table_of_two_runs_is_not_mixed_through_its_measures() -> None:
    mixed = [
        row(AUTOMATIC, "net", 0.8, protocol=protocol("automatic")),
        row(AUTOMATIC, "net", 0.8, measure="IoU", protocol=protocol("prompted")),
    ]
    tables, refused = _compared({"rows": mixed}, {"rows": mixed})
    assert not tables
    assert "rows of different protocols" in refused[0]


def test_classifiers_of_other_data_do_not_share_a_table() -> None:
    other = row("Class", "ours", 0.8, baseline={"name": "majority class", "value": 0.25})
    tables, refused = _compared({"rows": [row("Class", "ours", 0.8)]}, {"rows": [other]})
    assert not tables
    assert "other data (baseline: 0.5 all gland and 0.25 majority class)" in refused[0]
    more = row("Class", "ours", 0.8, estimate={"value": 0.8, "low": 0.7, "high": 0.9, "n": 50, "groups": 5, "note": ""})
    tables, refused = _compared({"rows": [row("Class", "ours", 0.8)]}, {"rows": [more]})
    assert not tables
    assert "other data (n: 40 and 50; groups: 4 and 5)" in refused[0]
    named = [{"rows": [row("Class", "ours", 0.8)], "facts": {"data set": name}} for name in ("one", "two")]
    assert "other data sets (one and two)" in _compared(*named)[1][0]
    tables, refused = _compared({"rows": [row("Class", "ours", 0.8)]}, {"rows": [row("Class", "theirs", 0.7)]})
    assert len(tables[0].lines) == 2


def test_expression_is_compared_under_one_protocol_only() -> None:
    tables, _ = _compared(_genes(0.1), _genes(0.12))
    assert len(tables) == 2
    assert len(tables[0].lines) == 4
    tables, refused = _compared(_genes(0.1), _genes(0.12, "cd"))
    assert not tables
    assert "protocols ab and cd" in refused[0]
    assert _compared(_genes(0.1), {"rows": []})[1] == ["One report is of gene expression and the other is not."]
