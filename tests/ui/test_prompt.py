"""Pointing at objects in a real browser: a box or clicks, the answer's outline, corrected, kept or forgotten."""

from __future__ import annotations

import json

import pytest
from tests.ui.conftest import until

from lamella.view.server.prompts import PromptAnswer

pytestmark = pytest.mark.ui
READY = "globalThis.lamella?.prompts && lamella.viewer.world.getItemAt(0)?.getFullyLoaded()"


class Diamonds:
    """Outlines a diamond in what was pointed at; each negative click cuts a tenth off its right."""

    name = "diamonds"

    def __init__(self) -> None:
        self.asked: list[dict] = []

    def ask(self, slide, region_px0, boxes_px0, positives_px0, negatives_px0) -> PromptAnswer:
        asked = {"region": region_px0, "boxes": boxes_px0, "yes": positives_px0, "no": negatives_px0}
        self.asked.append(asked)
        view = (region_px0.x0, region_px0.y0, region_px0.x1, region_px0.y1)
        if not boxes_px0 and not positives_px0:
            return PromptAnswer([], 0.0, False, 0.1, view)
        x, y = boxes_px0[0].center if boxes_px0 else positives_px0[0]
        right = x + 100 - 10 * len(negatives_px0)
        ring = [[x - 100, y], [x, y + 100], [right, y], [x, y - 100], [x - 100, y]]
        feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
        return PromptAnswer([feature], 0.9, True, 0.1, view)


@pytest.fixture
def opened(page, serve_paths, make_slide):
    """The slide's page with a model, and the model."""
    model = Diamonds()
    address = serve_paths(make_slide("a.tif"), prompter=model, author="ann")
    page.goto(f"{address}slide/a")
    until(page, READY)
    return page, model


def at(page, x_px0: float, y_px0: float) -> tuple[float, float]:
    """Where a place of the slide is on the page."""
    x, y = page.evaluate(
        "([x, y]) => { const v = lamella.viewer, r = v.element.getBoundingClientRect();"
        " const p = v.viewport.imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y));"
        " return [p.x + r.x, p.y + r.y]; }",
        [x_px0, y_px0],
    )
    return x, y


def saved(page, count: int) -> list[dict]:
    """The features that the server has, once there are so many: the page saves by itself after a moment."""
    for _ in range(100):
        answer = page.evaluate("fetch('../api/slides/a/annotations').then((answer) => answer.json())")
        features = [feature for each in answer["authors"].values() for feature in each["features"]]
        if len(features) == count:
            break
        page.wait_for_timeout(100)
    assert len(features) == count
    return features


def test_a_box_then_a_correction_then_kept_and_saved(opened):
    page, model = opened
    page.get_by_role("button", name="Point at an object").click()
    until(page, "document.querySelector('[data-part=answer]').textContent.startsWith('Ready')")
    centre = page.evaluate("lamella.viewer.viewport.getCenter().toString()")
    page.mouse.move(*at(page, 600, 400))
    page.mouse.down()
    page.mouse.move(*at(page, 700, 500), steps=4)
    page.mouse.move(*at(page, 800, 600), steps=4)
    page.mouse.up()
    until(page, "lamella.prompts().outline")
    assert page.evaluate("lamella.viewer.viewport.getCenter().toString()") == centre  # drawn, not panned
    box = model.asked[-1]["boxes"][0]
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx((600, 400, 800, 600), abs=1.5)
    page.mouse.click(*at(page, 790, 500))  # part of it, too
    page.keyboard.down("Shift")
    page.mouse.click(*at(page, 900, 300))
    page.keyboard.up("Shift")
    until(page, "lamella.prompts().outline.geometry.coordinates[0][2][0] < 795")
    assert (len(model.asked[-1]["yes"]), len(model.asked[-1]["no"])) == (1, 1)
    assert page.locator(".sign.positives").inner_text() == "+"
    assert page.locator(".sign.negatives").inner_text() == "−"
    page.keyboard.press("Enter")  # the slide has the focus now, not the button that was clicked at first
    until(page, "!lamella.prompts().prompts.length")
    (feature,) = saved(page, 1)
    ring = feature["geometry"]["coordinates"][0]
    assert max(x for x, _ in ring) == pytest.approx(790, abs=2)  # 700 + 100 - 10
    page.reload()
    until(page, READY)
    assert saved(page, 1) == [feature]


def test_by_keys_alone(opened):
    page, model = opened
    page.locator("body").press("s")
    until(page, "document.querySelector('[data-part=answer]').textContent.startsWith('Ready')")
    page.keyboard.press("c")
    until(page, "lamella.prompts().outline")
    assert model.asked[-1]["yes"][0] == pytest.approx((768, 512), abs=2)  # the cross is the slide's middle here
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(800)
    page.keyboard.press("x")
    until(page, "lamella.prompts().prompts.length === 2")
    assert page.evaluate("lamella.prompts().prompts[1][1][0]") > 800
    page.keyboard.press("Backspace")
    until(page, "lamella.prompts().prompts.length === 1")
    page.keyboard.press("Delete")
    until(page, "!lamella.prompts().outline && !lamella.prompts().prompts.length")
    page.keyboard.press("c")
    until(page, "lamella.prompts().outline")
    page.keyboard.press("Enter")
    until(page, "!lamella.prompts().outline")
    saved(page, 1)
    page.locator("body").press("Escape")
    until(page, "document.querySelector('[data-part=asking]').hidden")


def test_a_refused_prompt_says_why(opened):
    page, model = opened
    page.expected_faults.append("400")
    page.locator("body").press("s")
    page.evaluate("lamella.viewer.viewport.panTo(new OpenSeadragon.Point(0.5, 0.3), true)")
    from lamella.models.prompts import PromptError

    def refuse(*asked):
        raise PromptError("a click", "it lies outside", "Click in view.")

    model.ask = refuse
    page.keyboard.press("c")
    until(page, "document.querySelector('[data-part=answer]').textContent.includes('it lies outside')")
    assert page.evaluate("document.querySelector('[data-part=answer]').classList.contains('fault')")


def test_without_a_model_the_page_says_how_to_start_one(page, serve_paths, make_slide):
    page.goto(f"{serve_paths(make_slide('a.tif'))}slide/a")
    until(page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded()")
    text = page.locator("#prompt").inner_text()
    assert "No promptable model is loaded" in text
    assert "model=sam2.1-hiera-tiny" in text
    page.locator("body").press("s")
    assert json.loads(page.evaluate("JSON.stringify(globalThis.lamella.prompts ?? null)")) is None
