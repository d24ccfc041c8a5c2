"""Every page of the viewer under axe-core, in light and in dark: labels, names, contrast, landmarks, focus."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
from tests.ui.conftest import until

pytestmark = pytest.mark.ui

AXE = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
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
    found = page.evaluate(f"axe.run(document, {RULES!r})")["violations"]
    return [
        f"{page.url} [{one['impact']}] {one['id']}: {one['help']}: {node['html'][:160]} ({node['failureSummary'][:300]})"
        for one in found
        for node in one["nodes"][:3]
    ]


def settled(page):
    """Until what the page asked for has come."""
    page.wait_for_load_state("networkidle")
    if "/slide/" in page.url:
        until(page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded() || document.querySelector('.fault')")


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
            if link.startswith(address) and not urlsplit(link).path.startswith("/api/") and link not in {*seen, *waiting}:
                waiting.append(link)
    kinds = {urlsplit(url).path.split("/")[1] for url in seen}
    assert {"", "slide", "run", "scan", "runs"} <= kinds
    assert not found, "\n".join(found)
