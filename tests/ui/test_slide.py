"""A slide in a real browser: its pixels, its scale, the way through it by keys and by its address."""

from __future__ import annotations

import numpy as np
import pytest
from tests.conftest import write_pyramid
from tests.ui.conftest import until
from tests.ui.on_slide import DRAWN, colour_at, near, open_slide_page

pytestmark = pytest.mark.ui

_CORNERS = {
    (100, 100): (200, 40, 40),
    (1400, 100): (40, 160, 40),
    (100, 900): (40, 40, 200),
    (1400, 900): (220, 200, 60),
}


@pytest.fixture
def quarters(tmp_path):
    """A slide of four colours, 1536 x 1024 pixels of 0.5 um."""
    pixels = np.empty((1024, 1536, 3), np.uint8)
    for (x, y), colour in _CORNERS.items():
        pixels[y // 512 * 512 :, x // 768 * 768 :][:512, :768] = colour
    return write_pyramid(tmp_path / "a.tif", pixels)


def um_per_px(page) -> float:
    return page.evaluate(
        "lamella.slide.mpp_x / lamella.viewer.viewport.viewportToImageZoom(lamella.viewer.viewport.getZoom())"
    )


def test_a_slide_opens_from_the_gallery(page, serve_paths, make_slide):
    page.goto(serve_paths(make_slide("a.tif")))
    page.locator("a[href$='slide/a']").first.click()
    until(page, DRAWN)
    assert page.evaluate("lamella.slide.width_px0") == 1536
    assert page.locator("dl.facts").inner_text().startswith("size\n1536 x 1024 px, 0.768 x 0.512 mm")


def test_known_pixels_have_their_colours_at_known_zooms(page, serve_paths, quarters):
    address = serve_paths(quarters)
    open_slide_page(page, address)
    for place, colour in _CORNERS.items():
        assert near(colour_at(page, *place), colour)
    for place, colour in _CORNERS.items():  # two display pixels for each of the slide's
        page.goto("about:blank")  # else it is the same page, drawn already, whose next picture is a moment away
        page.goto(f"{address}slide/a#{place[0]},{place[1]},0.25")
        until(page, DRAWN)
        assert abs(um_per_px(page) - 0.25) < 1e-6
        assert near(colour_at(page, *place), colour)


def test_one_pixel_apart_the_colour_changes(page, serve_paths, quarters):
    open_slide_page(page, serve_paths(quarters), view="768,100,0.25")
    assert near(colour_at(page, 764.5, 100), _CORNERS[100, 100], 30)
    assert near(colour_at(page, 771.5, 100), _CORNERS[1400, 100], 30)


def test_the_scale_bar_is_as_long_as_it_says(page, serve_paths, make_slide):
    open_slide_page(page, serve_paths(make_slide("a.tif")), view="700,500,1")
    bar = page.locator("#scale")
    assert bar.inner_text() == "100 µm"
    assert abs(bar.bounding_box()["width"] - 100) < 0.6  # 1 um per screen pixel
    assert page.locator("#zoom").inner_text() == "1.00 µm per screen pixel"


def test_uneven_spacing_gives_the_bar_an_arm_of_as_many_micrometres(page, serve, make_slide, tmp_path):
    from lamella.view.server.annotations.store import AnnotationStore
    from lamella.view.server.catalogue.items import Catalogue, SlideItem
    from lamella.view.server.served import Served
    from lamella.view.server.slide_pool import SlidePool
    from lamella.view.server.tile_memory import TileMemory

    slides = {"a": SlideItem("a", "a", make_slide("a.tif"), (0.5, 1.0))}
    store = AnnotationStore(tmp_path / "annotations")
    open_slide_page(page, serve(Served(Catalogue("t", slides), SlidePool(slides), TileMemory(), store)))
    box = page.locator("#scale").bounding_box()
    assert abs(box["width"] / box["height"] - 2) < 0.05
    middle = page.evaluate(
        "lamella.viewer.viewport.imageToViewerElementCoordinates(new OpenSeadragon.Point(768.5, 512.5))"
    )
    corner = page.locator("#viewer").bounding_box()
    page.mouse.move(corner["x"] + middle["x"], corner["y"] + middle["y"])
    until(page, "document.getElementById('place').textContent")
    place = page.locator("#place").inner_text()
    assert place.startswith("384.")
    assert " 512." in place
    assert "px 768, 512" in place


def test_the_road_by_keys_alone(page, serve_paths, make_slide):
    open_slide_page(page, serve_paths(make_slide("a.tif")))
    home = um_per_px(page)
    page.keyboard.press("+")
    assert abs(um_per_px(page) * 1.5 - home) < 1e-6
    x = page.evaluate("lamella.viewer.viewport.getCenter().x")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("lamella.viewer.viewport.getCenter().x") > x
    page.keyboard.press("0")
    assert abs(um_per_px(page) - home) < 1e-6
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Enter")  # Close has the focus
    assert not page.get_by_role("dialog").is_visible()
    page.keyboard.press("l")
    assert not page.locator("#panel").is_visible()
    page.keyboard.press("l")
    assert page.locator("#panel").is_visible()


def test_the_address_brings_back_the_view(page, serve_paths, make_slide):
    address = serve_paths(make_slide("a.tif"))
    open_slide_page(page, address, view="900,400,0.5")
    page.keyboard.press("ArrowRight")
    until(page, "location.hash !== '#900,400,0.5'")
    kept = page.evaluate("location.hash")
    x, y, kept_um_per_px = (float(part) for part in kept[1:].split(","))
    assert (y, kept_um_per_px) == (400, 0.5)
    assert x > 900
    page.goto("about:blank")
    open_slide_page(page, address, view=kept[1:])
    centre = page.evaluate("lamella.viewer.viewport.viewportToImageCoordinates(lamella.viewer.viewport.getCenter())")
    assert abs(centre["x"] - x) < 1
    assert abs(centre["y"] - 400) < 1


def test_an_address_that_is_none_opens_the_whole_slide(page, serve_paths, make_slide):
    open_slide_page(page, serve_paths(make_slide("a.tif")), view="x,y,-1,nothing~%zz")
    assert page.evaluate("lamella.viewer.viewport.getZoom() === lamella.viewer.viewport.getHomeZoom()")


def test_an_unreadable_slide_shows_its_reason(page, serve_paths, make_slide, tmp_path):
    (tmp_path / "broken.svs").write_bytes(b"II*\0" + bytes(400))
    page.goto(serve_paths(make_slide("a.tif"), tmp_path / "broken.svs") + "slide/broken")
    assert page.get_by_role("alert").inner_text()
