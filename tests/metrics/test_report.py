from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamella.metrics.bootstrap import Estimate
from lamella.metrics.report import MAJORITY, Reference, Report, ReportError, Row, Unasked, digits, span

FOUND = Estimate(0.71, 0.62, 0.8, 300, 9)
BASE = Reference(MAJORITY, 0.4)


def row(measure: str = "balanced accuracy", **changes: object) -> Row:
    given = {
        "question": "Tissue",
        "measure": measure,
        "probe": "linear",
        "encoder": "mine",
        "estimate": FOUND,
        "baseline": BASE,
        "better": "higher",
    }
    return Row(**{**given, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"estimate": None},
        {"baseline": None},
        {"estimate": Estimate(0.7, float("nan"), 0.8, 300, 9)},
        {"estimate": Estimate(0.7, 0.6, float("inf"), 300, 9)},
        {"estimate": Estimate(0.7, 0.8, 0.6, 300, 9)},
        {"estimate": Estimate(0.7, 0.6, 0.8, 0, 9)},
        {"estimate": Estimate(0.7, 0.6, 0.8, 300, 0)},
        {"baseline": Reference("", 0.4)},
        {"baseline": Reference(MAJORITY, float("nan"))},
        {"encoder": ""},
    ],
)
def test_a_row_without_n_interval_or_baseline_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(ReportError, match="Tissue / balanced accuracy"):
        row(**changes)


def test_accuracy_never_stands_without_balanced_accuracy_and_the_majority_rate() -> None:
    with pytest.raises(ReportError, match="without balanced accuracy"):
        Report("t", [row("accuracy")])
    with pytest.raises(ReportError, match="without balanced accuracy"):
        Report("t", [row("accuracy"), row(encoder="another")])
    with pytest.raises(ReportError, match="majority rate"):
        Report("t", [row("accuracy", baseline=Reference("chance", 0.5)), row()])
    Report("t", [row("accuracy"), row()])


def test_markdown_says_first_what_must_be_read_first() -> None:
    report = Report(
        "Did it learn?",
        [row(control=Reference("labels exchanged", 0.41), note="a | b")],
        meanings={"Tissue": "Higher is better."},
        warnings=["pixels seen"],
        conclusions=["mine is better"],
        unasked=[Unasked("Site", "one site only")],
        notes=["a note"],
        facts={"tiles": 300},
        command="lamella evaluate a b",
    )
    text = report.markdown()
    parts = ["# Did it learn?", "**pixels seen**", "- mine is better", "## Tissue", "Higher is better.", "| 0.71 [0.62"]
    parts += ["0.40 majority class", "0.41 labels exchanged", "| 300 | 9 |", "a \\| b", "**Site**: one site only"]
    parts += ["- a note", "- tiles: 300", "lamella evaluate a b"]
    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)


def test_both_files_are_written_and_json_holds_every_number(tmp_path: Path) -> None:
    markdown, data = Report("t", [row()]).write(tmp_path / "out")
    assert markdown.read_text().startswith("# t")
    read = json.loads(data.read_text())
    assert read["rows"][0]["estimate"] == {
        "value": 0.71, "low": 0.62, "high": 0.8, "n": 300, "groups": 9, "note": "",
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.json", "results.md"]


def test_digits_follow_n_and_zero_has_no_sign() -> None:
    assert (digits(999), digits(1000)) == (2, 3)
    assert span(Estimate(0.5, 0.25, 0.75, 1000, 9)) == "0.500 [0.250, 0.750]"
    assert span(Estimate(-0.0001, -0.2, 0.1, 50, 9), sign=True) == "+0.000 [-0.200, +0.100]"
