"""A slide in a real browser."""

from __future__ import annotations

import pytest
from tests.ui.conftest import until

pytestmark = pytest.mark.ui


def test_a_slide_opens(page, serve_paths, make_slide):
    address = serve_paths(make_slide("a.tif"))
    page.goto(address)
    page.get_by_role("link", name="a").first.click()
    until(page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded()")
    page.screenshot(path="/tmp/slide.png")
    assert page.evaluate("lamella.slide.width_px0") == 1536
