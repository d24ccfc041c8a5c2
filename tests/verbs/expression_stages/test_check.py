"""Stage `check` of `lamella expression`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.tiny_expression import write_spot_study

from lamella.config import Request
from lamella.data.expression_study import open_expression
from lamella.data.splits import SplitError
from lamella.errors import DatasetError, OutputConflictError
from lamella.formats.tables import read_csv
from lamella.verbs.expression_stages.check import run_check
from lamella.verbs.expression_stages.settings import ExpressionConfig
from lamella.verbs.expression_stages.stage import Stage

RNG = np.random.default_rng(2)
TABLES = {name: (f"P{number}", RNG.poisson(4, (16, 6)) + 1) for number, name in enumerate("abc")}


def stage_of(folder: Path, *overrides: str) -> Stage:
    given = (f"data.slides={folder / 'manifest.csv'}", "data.bin_um=25", "panel.number=3", *overrides)
    request = Request("expression", out=folder / "out", overrides=given)
    resolved = request.resolve(ExpressionConfig)
    return Stage(request, resolved, open_expression(resolved.config.data, 0), folder / "out")


def test_everything_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_spot_study(tmp_path, TABLES)
    assert run_check(stage_of(tmp_path)) == 0
    folder = tmp_path / "out" / "checked"
    rows = read_csv(folder / "slides.csv")
    assert [(row["slide_id"], row["patient"], row["places"], row["judged"]) for row in rows] == [
        ("a", "P0", "16", "16"),
        ("b", "P1", "16", "16"),
        ("c", "P2", "16", "16"),
    ]
    assert rows[0]["total"] == str(TABLES["a"][1].sum())
    assert len(read_csv(folder / "shifts.csv")) == 3 * 21 * 21
    panel = read_csv(folder / "panel.csv")
    assert [row["fold"] for row in panel] == [f"without_P{fold}" for fold in range(3) for _ in range(3)]
    assert (panel[0]["inner"], panel[0]["train"]) == ("P1", "P2")
    report = (folder / "report.md").read_text()
    for part in ("3 slides of 3 patients", "no claim of significance", "## Doubts", "without_P0: trained on P2"):
        assert part in report
    with Image.open(folder / "a.png") as picture:
        assert picture.width > 500
    told = capsys.readouterr().out
    assert "a: patient P0, 16 spots of 100 um x 6 genes" in told
    assert run_check(stage_of(tmp_path)) == 0
    assert "done before" in capsys.readouterr().out
    with pytest.raises(OutputConflictError):
        run_check(stage_of(tmp_path, "panel.number=2"))


def test_a_gene_without_counts_on_a_test_slide_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad input: an all-zero gene. Its measures are undefined, not 0."""
    table = TABLES["a"][1].copy()
    table[:, 2] = 0
    write_spot_study(tmp_path, {**TABLES, "a": ("P0", table)})
    assert run_check(stage_of(tmp_path, "panel.genes=[G2,G0]")) == 0
    panel = read_csv(tmp_path / "out" / "checked" / "panel.csv")
    assert [row["not_judged_on"] for row in panel] == ["a", "", "", "", "", ""]
    assert "1 of them have no count on a; their measures are undefined there: G2" in capsys.readouterr().out


def test_slides_that_cannot_be_used_are_listed_and_the_others_looked_at(tmp_path: Path) -> None:
    """Bad input: fractions and negative values, a damaged file. Nothing is dropped in silence."""
    files = write_spot_study(tmp_path, {**TABLES, "b": ("P1", TABLES["b"][1] - 3)})
    (files.folder / "c_counts.npz").write_bytes(b"PK broken")
    assert run_check(stage_of(tmp_path)) == 1
    folder = tmp_path / "out" / "checked"
    failed = {row["slide_id"]: row["reason"] for row in read_csv(folder / "failed.csv")}
    assert set(failed) == {"b", "c"}
    assert "below zero" in failed["b"]
    assert (folder / "a.png").is_file()
    assert not (folder / "report.md").exists()


def test_one_patient_only_is_refused(tmp_path: Path) -> None:
    """Bad input: one patient only."""
    write_spot_study(tmp_path, {name: ("P0", table) for name, (_, table) in TABLES.items()})
    with pytest.raises(SplitError, match="one patient"):
        run_check(stage_of(tmp_path))


def test_a_stated_gene_that_was_not_measured_is_refused(tmp_path: Path) -> None:
    """Bad input: genes absent from the panel."""
    write_spot_study(tmp_path, TABLES)
    with pytest.raises(DatasetError, match="not measured on slide c: TP53"):
        run_check(stage_of(tmp_path, "panel.genes=[G2,TP53]"))
