"""The viewer's own scripts and templates: few, plain, and such as the strict policy lets through."""

from __future__ import annotations

import re

import pytest

from lamella.view.server.pages import STATIC

TEMPLATES = STATIC.parent / "templates"
SCRIPTS = sorted(path for path in STATIC.rglob("*.js") if "vendor" not in path.parts)
SHEETS = sorted(path for path in STATIC.rglob("*.css") if "vendor" not in path.parts)
PAGES = sorted(TEMPLATES.rglob("*.html"))
MOST_LINES = 800
WIDEST = 120


def lines_of_code(text):
    """Lines that are neither blank nor only a comment."""
    bare = re.sub(r"/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    return [line for line in bare.splitlines() if line.strip() and not line.strip().startswith("//")]


def test_comments_and_blanks_are_no_code():
    assert lines_of_code("// a\n\n/* b\n c */\nconst a = 1; // d\n  f();\n") == ["const a = 1; // d", "  f();"]


def test_own_scripts_stay_few():
    counts = {path.name: len(lines_of_code(path.read_text(encoding="utf-8"))) for path in SCRIPTS}
    assert "slide.js" in counts
    assert sum(counts.values()) < MOST_LINES, counts


@pytest.mark.parametrize("path", [*SCRIPTS, *SHEETS], ids=lambda path: path.name)
def test_scripts_and_sheets_are_readable_and_ask_no_other_host(path):
    text = path.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > WIDEST] == []  # few lines must not mean long ones
    # Namespaces of SVG look like addresses and are none.
    assert re.findall(r"https?://(?!www\.w3\.org/)\S+", text) == []
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert unsafe not in text, unsafe


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_templates_hold_nothing_that_the_policy_refuses(path):
    text = re.sub(r"{#.*?#}", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.search(r"<style\b|\sstyle\s*=|\son[a-z]+\s*=|javascript:", text), "inline style or script"
    assert all("src=" in tag for tag in re.findall(r"<script\b[^>]*>", text)), "inline script"
    # Only a template's own words may go unescaped.
    assert not re.search(r"\|\s*safe\b", re.sub(r"'[^'{}]*'\s*\|\s*safe\b", "", text)), "text that is not escaped"
    # Addresses are relative to the viewer's root: it may stand behind a prefix.
    assert re.findall(r"""(?:href|src|action)=["'](?:/|https?:)""", text) == []
