"""Prompted, automatic and weak never share a table. Each test is one way to mix them by accident."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tests.metrics.segments.segment_rows import AUTOMATIC, PROMPTED, SPLIT, WEAK, protocol, row

from lamella.errors import LamellaError
from lamella.formats.atomic import write_json
from lamella.metrics.report import Report, ReportError, Row
from lamella.metrics.segments.protocol import FLAG, HEADS, LABEL_ORACLE, ORACLE, ProtocolError, refuse_mixed_trees
from lamella.verbs.evaluation.results_files import results_of
from lamella.verbs.release import _one_protocol_each
from lamella.view.page import result_table

TASKS = {"automatic": AUTOMATIC, "prompted": PROMPTED, "weak": WEAK}
PAIRS = [(one, other) for one in TASKS for other in TASKS if one != other]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_rows_of_two_tasks_in_one_table_are_refused(one, other):
    first, second = protocol(TASKS[one]), protocol(TASKS[other])
    for title in (first.question("toys"), second.question("toys"), "Segmentation"):
        with pytest.raises(ReportError):
            Report("t", [row(first, title), row(second, title)])
        with pytest.raises(ReportError):
            Report("t", [row(second, title), row(first, title)])


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_table_under_another_tasks_head_is_refused(one, other):
    with pytest.raises(ReportError, match="must be headed"):
        Report("t", [row(protocol(TASKS[one]), protocol(TASKS[other]).question("toys"))])


def test_a_prompted_table_says_oracle_in_its_title_or_is_not_made():
    assert ORACLE == "oracle: class and prompt given"
    assert ORACLE in row(protocol(PROMPTED)).question
    with pytest.raises(ReportError, match=r"must be headed 'Prompted \(oracle"):
        Report("t", [row(protocol(PROMPTED), "Dice on GlaS")])
    text = Report("t", [row(protocol(PROMPTED))]).markdown()
    assert f"## Prompted ({ORACLE}): toys" in text
    assert "prompted, oracle;" in text


@pytest.mark.parametrize("task", TASKS)
def test_rows_without_a_protocol_do_not_slip_in(task):
    given = protocol(TASKS[task])
    with pytest.raises(ReportError, match="with and without a protocol"):
        Report("t", [row(given), row(None, given.question("toys"))])
    with pytest.raises(ReportError, match="must say their protocol"):
        Report("t", [row(None, f"{HEADS[task]}: toys")])


def test_a_protocol_as_plain_values_is_none():
    with pytest.raises(ReportError, match="a protocol is a Protocol, not dict"):
        dataclasses.replace(row(protocol()), protocol=protocol().tree())


def test_a_row_that_was_told_the_true_labels_cannot_hide_it():
    """Mistake of the weak source: labels of the test images gated the maps, and the table did not say so."""
    told = protocol(WEAK, prompt=LABEL_ORACLE)
    honest = row(protocol(WEAK))
    with pytest.raises(ReportError, match=f"is named {FLAG}"):
        dataclasses.replace(honest, protocol=told)
    with pytest.raises(ReportError, match=f"is named {FLAG}"):
        dataclasses.replace(honest, encoder=f"model, {FLAG}")
    flagged = dataclasses.replace(honest, encoder=f"model, {FLAG}: true labels", protocol=told)
    text = Report("t", [honest, flagged]).markdown()
    assert f"no oracle but in the rows named {FLAG}" in text
    assert f"rows named {FLAG}" not in Report("t", [honest]).markdown()


@pytest.mark.parametrize(
    "changes",
    [
        {"ignored": ()},
        {"split": "another"},
        {"classes": ("background", "tumour")},
        {"mpp": 1.0},
        {"scored": "objects"},
        {"n": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_rows_of_other_conditions_are_refused_and_the_condition_is_named(changes):
    with pytest.raises(ReportError, match=next(iter(changes))):
        Report("t", [row(protocol()), row(protocol(**changes))])


def test_rows_of_different_n_in_one_measure_are_refused():
    """Mistake of the source: a different n in each row."""
    with pytest.raises(ReportError, match=r"rows of different n \(\[2, 3\]\)"):
        Report("t", [row(protocol(), n=2), row(protocol(), n=3)])


def test_prompts_of_one_oracle_may_stand_beside_each_other_and_tasks_below_each_other():
    rows = [row(protocol(PROMPTED, prompt=prompt)) for prompt in ("box", "1 click")]
    report = Report("t", [*rows, row(protocol()), row(protocol(WEAK))])
    tables = [line for line in report.markdown().splitlines() if line.startswith("## ")]
    assert [title.partition(" (")[0] for title in tables] == ["## Prompted", "## Automatic", "## Weak"]


def test_a_row_cannot_be_appended_once_the_report_was_checked():
    rows = [row(protocol())]
    report = Report("t", rows)
    rows.append(row(protocol(PROMPTED), protocol().question("toys")))
    assert len(report.rows) == 1
    with pytest.raises(AttributeError):
        report.rows.append(rows[1])  # type: ignore[attr-defined]


# ---- files ----------------------------------------------------------------------------------------------------------


def written(folder: Path, *rows: Row) -> Path:
    """A results folder."""
    Report("t", rows, command="lamella evaluate").write(folder)
    return folder


def test_every_row_of_a_results_file_has_its_protocol_with_both_hashes(tmp_path):
    found = json.loads((written(tmp_path, row(protocol(PROMPTED))) / "results.json").read_text())["rows"][0]
    assert found["protocol"] == protocol(PROMPTED).tree()
    assert found["protocol"]["split"] == SPLIT
    assert protocol(PROMPTED).hash in (tmp_path / "results.md").read_text()


def test_rows_of_two_files_pasted_into_one_table_are_found_out(tmp_path):
    trees = [
        json.loads((written(tmp_path / task, row(protocol(TASKS[task]))) / "results.json").read_text())
        for task in ("automatic", "prompted")
    ]
    pasted = {**trees[1]["rows"][0], "question": trees[0]["rows"][0]["question"]}
    write_json(tmp_path / "both" / "results.json", {**trees[0], "rows": [trees[0]["rows"][0], pasted]})
    with pytest.raises(LamellaError, match=r"changed since it was written .*task: automatic and prompted"):
        results_of(tmp_path / "both")
    # Calling the pasted row automatic does not help: its hash is another.
    pasted["protocol"] = {**pasted["protocol"], "task": "automatic", "oracle": False, "prompt": "none"}
    write_json(tmp_path / "both" / "results.json", {**trees[0], "rows": [trees[0]["rows"][0], pasted]})
    with pytest.raises(LamellaError, match="does not belong to these conditions"):
        results_of(tmp_path / "both")


def test_a_row_whose_protocol_was_removed_is_found_out(tmp_path):
    folder = written(tmp_path, row(protocol()), row(protocol(), value=0.8))
    tree = json.loads((folder / "results.json").read_text())
    del tree["rows"][0]["protocol"]
    write_json(folder / "results.json", tree)
    with pytest.raises(LamellaError, match="with and without a protocol"):
        results_of(folder)


def test_a_model_card_has_a_table_for_each_task(tmp_path):
    tree = results_of(written(tmp_path, row(protocol(PROMPTED)), row(protocol()), row(None)))
    tables = _one_protocol_each(tree["rows"])
    assert [[each["encoder"] for each in table] for table in tables] == [["prompted box"], ["automatic none"], ["sam"]]


def test_a_page_refuses_one_table_of_two_tasks(tmp_path):
    folder = written(tmp_path, row(protocol(PROMPTED)), row(protocol()))
    titles = [protocol(given).question("toys") for given in (PROMPTED, AUTOMATIC)]
    assert len(result_table(folder / "results.json", {titles[0]: ["Dice"]})[1]) == 1
    with pytest.raises(ProtocolError, match="task: prompted and automatic"):
        result_table(folder / "results.json", {title: ["Dice"] for title in titles})


def test_results_of_questions_without_a_protocol_are_read_as_before():
    refuse_mixed_trees([{"question": "Tissue"}, {"question": "Tissue", "protocol": None}], "Tissue")
