"""Drawing in a real browser: what is drawn reaches the disk in level-0 pixels, and comes back."""

from __future__ import annotations

import json
import re

import pytest
from tests.ui.conftest import until

pytestmark = pytest.mark.ui


@pytest.fixture
def drawing(page, serve_paths, make_slide, tmp_path):
    """An open slide of 1536 x 1024 pixels of 0.5 um; what is saved lies in tmp_path/annotations/a."""
    address = serve_paths(make_slide("a.tif"), author="anna")
    page.goto(f"{address}slide/a")
    until(page, "globalThis.lamella?.annotations")
    page.evaluate(
        "lamella.viewer.viewport.fitBounds(lamella.viewer.viewport.imageToViewportRectangle(100, 100, 900, 600), true)"
    )
    page.wait_for_timeout(300)
    return page


def display(page, x: float, y: float) -> tuple[float, float]:
    """Where a level-0 pixel lies in the window."""
    return tuple(
        page.evaluate(
            """([x, y]) => {
              const box = lamella.viewer.element.getBoundingClientRect();
              const at = lamella.viewer.viewport.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));
              return [at.x + box.left, at.y + box.top];
            }""",
            [x, y],
        )
    )


def drag(page, start, end) -> None:
    page.mouse.move(*display(page, *start))
    page.mouse.down()
    for step in range(1, 11):
        at = [a + (b - a) * step / 10 for a, b in zip(start, end, strict=True)]
        page.mouse.move(*display(page, *at))
        page.wait_for_timeout(20)
    page.mouse.up()


def saved(tmp_path, author: str = "anna") -> list[dict]:
    return json.loads((tmp_path / "annotations" / "a" / f"{author}.geojson").read_text())["features"]


def wait_saved(page, version: int) -> None:
    until(page, f"document.querySelector('[data-part=saved]').textContent === 'Saved as version {version}.'")


def test_a_drawn_box_comes_back_in_level_0_pixels(drawing, tmp_path):
    page = drawing
    page.get_by_role("button", name="Box").click()
    drag(page, (300, 250), (520.4, 410.8))
    wait_saved(page, 1)
    (feature,) = saved(tmp_path)
    xs, ys = zip(*feature["geometry"]["coordinates"][0], strict=True)
    assert (min(xs), min(ys), max(xs), max(ys)) == pytest.approx((300, 250, 520.4, 410.8), abs=1)
    page.reload()
    until(page, "globalThis.lamella?.annotations")
    assert page.evaluate("lamella.annotations.anno.getAnnotations()[0].target.selector.type") == "RECTANGLE"
    assert re.search(r"110 × 80\.\d µm", page.get_by_label("Your annotations").inner_text())
    page.screenshot(path="/tmp/e_box.png")
