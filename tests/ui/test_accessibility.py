"""Every page of the viewer under axe-core, in light and in dark: labels, names, contrast, landmarks, focus."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from tests.ui.conftest import until

from lamella import cli

pytestmark = pytest.mark.ui

AXE = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
# Preloading fetches style sheets, which a page without a server may not.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], "preload": False}
MOST_PAGES = 60


@pytest.fixture(scope="session")
def axe():
    """axe-core's text."""
    path = Path(os.environ.get("LAMELLA_AXE", AXE))
    if not path.is_file():
        pytest.skip("axe-core is not installed: `cd web && npm ci --ignore-scripts`")
    return path.read_text(encoding="utf-8")


def violations(page, axe):
    """What axe-core finds, in lines."""
    page.evaluate(axe + "; 0")  # by the debugger, which the pages' policy does not bind
    found = page.evaluate(f"axe.run(document, {json.dumps(RULES)})")["violations"]
    return [
        f"{page.url} [{one['impact']}] {one['id']}: {one['help']}: {node['html'][:160]} ({node['failureSummary'][:99]})"
        for one in found
        for node in one["nodes"]
        # Both handles of a range share one bar, so their targets overlap. WCAG 2.5.8 allows it where another control
        # of the page does the same: the numbers below the bar.
        if not (one["id"] == "target-size" and "data-end=" in node["html"])
    ]


def settled(page):
    """Until what the page asked for has come."""
    page.wait_for_load_state("networkidle")
    if "/slide/" in page.url:
        until(
            page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded() || document.querySelector('.fault')"
        )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page(page, serve_paths, study, axe, scheme):
    page.emulate_media(color_scheme=scheme)
    address = serve_paths(study)
    unlinked = ("runs/compare?a=runs-one&b=runs-two", "?q=zzz", "slide/broken")
    waiting, seen, found = [address, *(address + place for place in unlinked)], set(), []
    while waiting:
        url = waiting.pop(0)
        seen.add(url)
        assert len(seen) <= MOST_PAGES
        status = page.goto(url).status
        if status != 200:
            found.append(f"{url}: status {status}")
            continue
        settled(page)
        found += violations(page, axe)
        for link in page.eval_on_selector_all("a[href]:not([download])", "links => links.map(link => link.href)"):
            link = urljoin(url, link).split("#")[0]
            if (
                link.startswith(address)
                and not urlsplit(link).path.startswith("/api/")
                and link not in {*seen, *waiting}
            ):
                waiting.append(link)
    kinds = {urlsplit(url).path.split("/")[1] for url in seen}
    assert {"", "slide", "run", "scan", "runs"} <= kinds
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_states_of_a_slide(page, serve_paths, study, axe, scheme):
    """What is hidden at first: the help, the controls of every layer, the comparison, what was drawn."""
    page.emulate_media(color_scheme=scheme)
    page.goto(serve_paths(study) + "slide/first")
    settled(page)
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    found = violations(page, axe)
    page.get_by_role("button", name="Close").click()
    for box in page.locator("input.shown").all():
        box.check()
    for summary in page.locator("summary").all():
        summary.click()
    for name, value in (("Left", "100"), ("Top", "100"), ("Width", "50"), ("Height", "50")):
        page.get_by_label(name, exact=True).fill(value)
    page.get_by_role("button", name="Add", exact=True).click()
    until(page, "document.querySelector('[data-part=drawn]').options.length === 1")
    settled(page)
    found += violations(page, axe)
    for way in ("Swipe", "Side by side"):
        page.get_by_role("radio", name=way).check()
        settled(page)
        found += violations(page, axe)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_exported_pages(page, study, tmp_path, axe, scheme):
    page.emulate_media(color_scheme=scheme)
    site = tmp_path / "site"
    assert cli.main(["view", str(study), "--export", str(site), "export.slides=[first]"]) == 0
    found = []
    for name in ("index.html", "first.html"):
        page.goto((site / name).as_uri())
        page.wait_for_timeout(500)
        found += violations(page, axe)
    assert not found, "\n".join(found)
