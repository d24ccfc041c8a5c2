"""Two looks at one slide in a real browser."""

from __future__ import annotations

import pytest
from tests.ui.conftest import until
from tests.ui.fake_layers import BLUE, RED, Halves
from tests.ui.on_slide import colour_at, near, on_screen, open_slide_page

from lamella.geometry import Frame

pytestmark = pytest.mark.ui
_TOGETHER = """(({viewport: one}, {viewport: other}) => Math.abs(one.getZoom(true) / other.getZoom(true) - 1) < 1e-6
  && one.getCenter(true).distanceTo(other.getCenter(true)) < 1e-6)
  (lamella.viewer, OpenSeadragon.getViewer(document.getElementById("second")))"""
_SECOND = "OpenSeadragon.getViewer(document.getElementById('second'))"


@pytest.fixture
def two(page, serve_paths, make_slide, monkeypatch):
    """A slide with two predictions of which the first is shown."""
    frame = Frame(1536, 1024, 0.5, 0.5)
    layers = {"one": Halves("one", RED, frame), "two": Halves("two", BLUE, frame)}
    monkeypatch.setattr("lamella.view.server.served.find_layers", lambda *_: (layers, []))
    open_slide_page(page, serve_paths(make_slide("a.tif")), view="500,500,1,one")


def until_seen(page, x, y, colour) -> None:
    for _ in range(60):
        if near(on_screen(page, x, y), colour):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{on_screen(page, x, y)} at {x}, {y}, not {colour}")


def test_side_by_side_shows_each_its_own_and_both_the_same_place(page, two):
    page.get_by_role("combobox", name="with", exact=True).select_option("two")
    page.get_by_label("Side by side").check()
    until(page, f"{_SECOND}?.world.getItemAt(1)?.getFullyLoaded()")
    until(page, _TOGETHER)
    until(page, "lamella.viewer.world.getItemAt(1)?.getFullyLoaded()")
    assert near(colour_at(page, 400, 500), RED)
    assert near(colour_at(page, 400, 500, _SECOND), BLUE)
    zoom = page.evaluate("lamella.viewer.viewport.getZoom()")
    box = page.locator("#second").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -300)  # over the second
    until(page, f"lamella.viewer.viewport.getZoom(true) > 1.1 * {zoom}")
    page.mouse.move(box["x"] - 200, box["y"] + 200)
    page.evaluate("lamella.viewer.canvas.focus()")
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(700)  # the movement is not cut off by the other viewer
    assert page.evaluate("lamella.viewer.viewport.getCenter(true).y * 1536") > 550
    until(page, _TOGETHER)
    page.get_by_label("Off").check()
    assert not page.locator("#second").is_visible()
    page.get_by_label("Side by side").check()  # hidden, it had no size
    until(page, _TOGETHER)
    assert page.evaluate("lamella.viewer.viewport.getCenter(true).y * 1536") > 550


def test_the_handle_swipes_between_the_two_by_keys(page, two):
    page.get_by_role("combobox", name="with", exact=True).select_option("two")
    page.get_by_label("Swipe", exact=True).check()
    until_seen(page, 300, 500, RED)
    until_seen(page, 600, 500, BLUE)  # the middle is at 500
    handle = page.get_by_label("Swipe between the two")
    handle.focus()
    for _ in range(150):
        page.keyboard.press("ArrowLeft")
    assert handle.input_value() == "350"
    until_seen(page, 420, 500, BLUE)
    page.keyboard.press("End")
    until_seen(page, 600, 500, RED)
    corner = page.locator("#viewer").bounding_box()
    before = page.evaluate("lamella.viewer.viewport.getCenter().x")
    page.mouse.move(corner["x"] + 300, corner["y"] + 300)
    page.mouse.down()
    page.mouse.move(corner["x"] + 200, corner["y"] + 300, steps=4)
    page.mouse.up()
    until(page, f"lamella.viewer.viewport.getCenter().x > {before}")  # the slide is dragged beside the handle


def test_a_prediction_beside_the_bare_slide(page, two):
    page.get_by_label("Side by side").check()
    until(page, f"{_SECOND}?.world.getItemAt(0)?.getFullyLoaded()")
    assert page.evaluate(f"{_SECOND}.world.getItemCount()") == 1
