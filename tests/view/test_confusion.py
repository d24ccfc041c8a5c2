from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lamella.view import confusion
from lamella.view.confusion import draw_confusion


def texts_of(matrix: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **more: object) -> list[str]:
    """What stands in the figure."""
    found: list[str] = []

    def save(figure: Figure, path: Path) -> None:
        (axis,) = figure.axes
        found.extend(text.get_text() for text in axis.texts)
        found.extend(label.get_text() for label in axis.get_xticklabels())
        figure.savefig(path)

    monkeypatch.setattr(confusion, "save_figure", save)
    draw_confusion(matrix, ["background", "gland"], tmp_path / "c.png", title="t", **more)
    return found


def test_rows_are_shares_of_the_truth_and_their_area_stands_beside_them(monkeypatch, tmp_path):
    texts = texts_of(np.array([[997, 3, 0], [25, 75, 0]]), monkeypatch, tmp_path, area_px_mm2=0.25e-6)
    assert texts[:6] == ["100 %", "<1 %", "0.00025 mm²", "25 %", "75 %", "2.5e-05 mm²"]
    assert "not looked at" not in texts


def test_what_was_not_looked_at_has_a_column_and_an_absent_class_no_shares(monkeypatch, tmp_path):
    texts = texts_of(np.array([[50, 25, 25], [0, 0, 0]]), monkeypatch, tmp_path)
    assert texts[:4] == ["50 %", "25 %", "25 %", "100 px"]
    assert "not in the truth" in texts
    assert texts[-1] == "not looked at"


def test_a_picture_is_written_whole(tmp_path):
    draw_confusion(np.eye(6, 7, dtype=np.int64) * 9, list("abcdef"), tmp_path / "c.png", title="six classes")
    with Image.open(tmp_path / "c.png") as picture:
        assert min(picture.size) > 500
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]
