import json
import re

import pytest
from PIL import Image

from lamella.view.page import Picture, Section, conclusions, result_table, write_page

REPORT = {
    "rows": [
        {
            "question": "Tissue class",
            "measure": "balanced accuracy",
            "probe": "linear",
            "encoder": encoder,
            "estimate": {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 1200, "groups": 6},
            "baseline": {"name": "majority class", "value": 0.25},
            "better": "higher",
        }
        for encoder, value in (("ours", 0.8), ("random init", 0.4))
    ],
    "warnings": ["few slides"],
    "conclusions": ["ours beats random init"],
    "unasked": [{"question": "Site shortcut", "reason": "one site only"}],
}


def test_page_shows_text_pictures_and_table_and_asks_nothing_of_the_network(tmp_path) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "a&b.png")
    section = Section(
        "Results <1>",
        ("x < y",),
        [Picture(tmp_path / "pictures" / "a&b.png", "a picture")],
        table=(["head"], [["cell & more"]]),
        code="lamella index a.csv",
    )
    page = tmp_path / "index.html"
    assert write_page(page, "Title", "lead", [section])
    text = page.read_text()
    for wanted in (
        "Results &lt;1&gt;",
        "x &lt; y",
        "cell &amp; more",
        "lamella index a.csv",
        'src="pictures/a&amp;b.png"',
    ):
        assert wanted in text
    assert not re.search(r"https?:|//|@import|<script", text)
    assert not write_page(page, "Title", "lead", [section])  # word for word the same: left alone


def test_other_pages_are_linked_and_pictures_without_a_caption_have_a_name(tmp_path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "all #1.html").write_text("")
    Image.new("RGB", (4, 4)).save(tmp_path / "curve.png")
    section = Section(
        "s", pictures=[Picture(tmp_path / "curve.png")], links=[("All <rows>", tmp_path / "results" / "all #1.html")]
    )
    write_page(tmp_path / "index.html", "t", "l", [section])
    text = (tmp_path / "index.html").read_text()
    assert '<a href="results/all%20%231.html">All &lt;rows&gt;</a>' in text
    assert 'alt="curve"' in text
    assert "<figcaption>" not in text
    with pytest.raises(FileNotFoundError, match=r"gone\.html"):
        write_page(tmp_path / "index.html", "t", "l", [Section("s", links=[("x", tmp_path / "gone.html")])])


def test_page_never_shows_a_hole(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        write_page(tmp_path / "index.html", "t", "l", [Section("s", pictures=[Picture(tmp_path / "gone.png")])])
    assert not (tmp_path / "index.html").exists()


def test_table_has_value_interval_baseline_and_n(tmp_path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(REPORT))
    head, rows = result_table(tmp_path / "results.json", {"Tissue class": ("balanced accuracy",), "Other": ("x",)})
    assert len(rows) == 2
    assert all(len(row) == len(head) for row in rows)
    assert rows[0][2:] == ["ours", "0.80 [0.70, 0.90]", "0.25 majority class", "1,200 (6)"]


def test_conclusions_begin_with_warnings_and_end_with_what_was_not_asked(tmp_path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(REPORT))
    assert conclusions(tmp_path / "results.json") == [
        "few slides",
        "ours beats random init",
        "Site shortcut: not asked, one site only.",
    ]
