"""Reports and model cards as web pages."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from lamella.view.markdown_page import html_of, write_report_page

REPORT = """# How well does a_b segment <glas>?

> **few slides**

## Automatic: glas

| measure | value [95 % interval] | model |
|---|---|---|
| Dice | 0.87 [0.84, 0.89] | a \\| b |

## Pictures

![Best & worst](best.png)

![gone](gone.png) ![up](../up.png) ![far](https://host/x.png)

## Repeat

```
lamella evaluate "a b" -o out
```
"""


def test_a_report_becomes_a_page_beside_it_that_asks_nothing_of_the_network(tmp_path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "results.md").write_text(REPORT)
    Image.new("RGB", (2, 2)).save(folder / "best.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "up.png")
    page = write_report_page(folder / "results.md")
    assert page == folder / "results.html"
    text = page.read_text()
    assert "<title>How well does a_b segment &lt;glas&gt;?</title>" in text
    assert '<td class="number">0.87 [0.84, 0.89]</td>' in text
    assert "<td>a | b</td>" in text
    assert 'aria-label="Automatic: glas"' in text
    assert '<img src="best.png" alt="Best &amp; worst"' in text
    assert text.count("<img") == 1
    assert "[picture not shown: gone]" in text
    assert not re.search(r"https?:|<script|@import", text)
    changed = page.stat().st_mtime_ns
    write_report_page(folder / "results.md")
    assert page.stat().st_mtime_ns == changed  # word for word the same: left alone


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[a](javascript:alert(1))",
        "[a](data:text/html;base64,PHNjcmlwdD4=)",
        "![a](javascript:alert(1))",
        '[a](x "<script>")',
        "| <b onclick=x> |\n|---|\n| <iframe> |",
        "# <script>",
    ],
)
def test_a_hostile_text_is_only_text(text: str) -> None:
    found = html_of(text, lambda _: None)
    assert not re.search(r"<(script|img|iframe|b)\b|<[^>]*(href|src)=\"(javascript|data):|<[^>]*\son\w+=", found)


def test_a_table_without_headings_has_none() -> None:
    found = html_of("| | a |\n|---|---|\n| b | c |\n", lambda _: None)
    assert "<th></th>" not in found
    assert found.count("<th") - found.count("<thead") == found.count("</th>") == 1


def test_headings_are_lowered_and_front_matter_is_left_out() -> None:
    found = html_of("---\nlicense: x\n---\n# One\n\n##### Five\n", lambda _: None, deeper=2)
    assert found == "<h3>One</h3>\n<h6>Five</h6>\n"


def test_a_report_that_is_not_there_is_an_error(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        write_report_page(tmp_path / "results.md")
