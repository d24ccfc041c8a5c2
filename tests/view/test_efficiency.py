"""Label curves are those of the table, and nothing else."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lamella.errors import LamellaError
from lamella.view import efficiency
from lamella.view.efficiency import draw_efficiency, read_curves

TABLE = """encoder,share,labels,draws,auc,auc_low,auc_high
ours,1.0,400,1,0.9,0.85,0.95
ours,0.1,40,5,0.8,0.7,0.88
random init,0.1,40,5,0.6,0.5,0.7
random init,1.0,400,3,0.7,0.65,0.75
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "efficiency.csv").write_text(TABLE)
    return tmp_path / "efficiency.csv"


def test_curves_go_from_few_labels_to_many(table) -> None:
    curves = read_curves(table, "share")
    assert list(curves) == ["auc"]
    assert list(curves["auc"]) == ["ours", "random init"]
    assert [(p.place, p.labels, p.value, p.low, p.high, p.draws) for p in curves["auc"]["ours"]] == [
        (0.1, 40, 0.8, 0.7, 0.88, 5),
        (1.0, 400, 0.9, 0.85, 0.95, 1),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("labels", "lables", "lacks the columns labels"),
        ("auc_low", "low", "lacks the columns of any measure"),
        ("0.6,", "?,", r"line 4.*could not convert"),
        ("0.6,", "nan,", r"line 4.*finite"),
    ],
)
def test_a_damaged_table_is_refused(table, old: str, new: str, message: str) -> None:
    table.write_text(TABLE.replace(old, new))
    with pytest.raises(LamellaError, match=message):
        read_curves(table, "share")


def test_lines_and_ribbons_are_the_table_s_numbers(table, tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(efficiency, "save_figure", lambda figure, path: seen.append(figure))
    draw_efficiency(read_curves(table, "share")["auc"], tmp_path / "a.png", title="t", measure="auc", judged="99 items")
    axis = seen[0].axes[0]
    assert axis.get_ylabel() == "AUC"
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
    assert lines == {"ours": [[0.1, 0.8], [1.0, 0.9]], "random init": [[0.1, 0.6], [1.0, 0.7]]}
    ribbon = axis.collections[0].get_paths()[0].vertices
    assert (ribbon[:, 1].min(), ribbon[:, 1].max()) == (0.7, 0.95)
    assert [text.get_text() for text in axis.get_xticklabels()] == ["10 %\n40", "100 %\n400"]
    assert "99 items; 1 to 5 draws" in " ".join(text.get_text() for text in seen[0].texts)
    plt.close(seen[0])


def test_encoders_at_a_single_place_stand_beside_each_other(table, tmp_path, monkeypatch) -> None:
    table.write_text("\n".join(line for line in TABLE.splitlines() if ",1.0," not in line) + "\n")
    seen = []
    monkeypatch.setattr(efficiency, "save_figure", lambda figure, path: seen.append(figure))
    draw_efficiency(read_curves(table, "share")["auc"], tmp_path / "a.png", title="t", measure="auc")
    places = [line.get_xdata()[0] for line in seen[0].axes[0].get_lines()]
    assert places[0] < 0.1 < places[1]
    np.testing.assert_allclose(places, 0.1, rtol=0.05)
    plt.close(seen[0])
