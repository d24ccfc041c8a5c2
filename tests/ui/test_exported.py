"""An exported folder opened by a double click: no server, no other file than its own."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.ui.conftest import until

from lamella.formats.annotation_folder import AnnotatedSlide
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.view.server.annotations.merge import Change
from lamella.view.server.annotations.store import AnnotationStore
from lamella.view.server.catalogue.discover import discover
from lamella.view.server.export import export_site
from lamella.view.server.served import Served
from lamella.view.server.slide_pool import SlidePool
from lamella.view.server.tile_memory import TileMemory

pytestmark = pytest.mark.ui
RED = (190, 30, 50)


@pytest.fixture
def site(tmp_path):
    """A grey slide of 900 x 700 px with a red square at (400, 300) - (500, 400), objects and annotations over it."""
    folder = tmp_path / "slides"
    folder.mkdir()
    pixels = np.full((700, 900, 3), 200, np.uint8)
    pixels[300:400, 400:500] = RED
    tifffile.imwrite(
        folder / "a.tif", pixels, tile=(256, 256), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3
    )
    square = np.array([[100, 100], [200, 100], [200, 200], [100, 200]], float)
    write_geojson(folder / "a.geojson", [GeoObject(polygons=((square,),), classification="tumour")])
    catalogue = discover([folder], None)
    store = AnnotationStore(tmp_path / "annotations")
    served = Served(catalogue, SlidePool(catalogue.slides), TileMemory(), store)
    with served.slides.slide("a") as slide:
        drawn_on = AnnotatedSlide("a", slide.path, slide.frame)
    outline = GeoObject(polygons=((square + 400,),), classification="stroma", object_id="0" * 8)
    store.save(drawn_on, "ann", Change(0, {outline.object_id: outline}))
    export_site(served, tmp_path / "site")
    served.close()
    return tmp_path / "site"


def shot(page):
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)


def on_screen(page, x, y):
    """A place in level-0 pixels, in pixels of the page."""
    return page.evaluate(
        """([x, y]) => {
            const point = lamella.viewer.viewport.imageToWindowCoordinates(new OpenSeadragon.Point(x, y));
            return [Math.round(point.x), Math.round(point.y)];
        }""",
        [x, y],
    )


def colour_at(page, x, y):
    column, row = on_screen(page, x, y)
    return shot(page)[row, column]


def test_the_folder_opens_from_the_disk(page, site):
    page.goto((site / "index.html").as_uri())
    page.get_by_role("link", name="a").first.click()
    until(page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded()")
    page.wait_for_timeout(300)
    assert np.abs(colour_at(page, 450, 350) - RED).max() <= 12  # a known place has its known colour
    assert np.abs(colour_at(page, 350, 350) - 200).max() <= 8
    assert page.locator("#scale").text_content() == "50 µm"
    bar = page.locator("#scale").bounding_box()["width"]
    (left, _), (right, _) = on_screen(page, 0, 0), on_screen(page, 100, 0)
    assert bar == pytest.approx(right - left, abs=2)  # 0.5 um per pixel


def test_layers_and_annotations_lie_where_they_should(page, site):
    page.goto((site / "a.html").as_uri())
    until(page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded()")
    page.evaluate(
        "lamella.viewer.viewport.fitBounds(lamella.viewer.viewport.imageToViewportRectangle(50, 50, 400, 300), true)"
    )
    page.wait_for_timeout(500)
    before = shot(page)
    page.get_by_role("checkbox", name="objects").check()
    until(page, "lamella.viewer.world.getItemCount() === 2 && lamella.viewer.world.getItemAt(1).getFullyLoaded()")
    page.wait_for_timeout(500)
    changed = np.abs(shot(page) - before).max(axis=2) > 20
    changed[:, -330:] = False  # the panel
    (left, top), (right, bottom) = on_screen(page, 100, 100), on_screen(page, 200, 200)
    assert changed[top - 6 : top + 7, (left + right) // 2].any()
    assert changed[(top + bottom) // 2, right - 6 : right + 7].any()
    page.evaluate("lamella.viewer.viewport.goHome(true)")
    page.wait_for_timeout(300)
    drawn = page.locator("#drawn path").bounding_box()
    (left, top), (right, bottom) = on_screen(page, 500, 500), on_screen(page, 600, 600)
    assert (drawn["x"], drawn["y"]) == pytest.approx((left, top), abs=3)
    assert (drawn["x"] + drawn["width"], drawn["y"] + drawn["height"]) == pytest.approx((right, bottom), abs=3)
    page.get_by_role("checkbox", name="ann").uncheck()
    assert not page.locator("#drawn path").is_visible()


def test_it_can_be_used_by_keys_alone(page, site):
    page.goto((site / "a.html").as_uri())
    until(page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded()")
    home = page.evaluate("lamella.viewer.viewport.getZoom()")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Zoom in":
            page.keyboard.press("Enter")
            break
    until(page, f"lamella.viewer.viewport.getZoom() > {home} * 1.9")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "checkbox":
            page.keyboard.press("Space")
            break
    until(page, "lamella.viewer.world.getItemCount() === 2")
