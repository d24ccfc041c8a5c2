"""A road through the viewer by keys alone, and a visible focus at every stop."""

from __future__ import annotations

import pytest
from tests.ui.conftest import until

pytestmark = pytest.mark.ui

MOST_STOPS = 150
FOCUS = """(() => {
  const element = document.activeElement, style = getComputedStyle(element), box = element.getBoundingClientRect();
  return {
    tag: element.tagName, said: element.getAttribute("aria-label") || element.labels?.[0]?.textContent ||
      element.textContent || element.title, id: element.id, name: element.getAttribute("name"),
    marked: style.outlineStyle !== "none" || style.boxShadow !== "none",
    seen: box.width > 0 && box.bottom > 0 && box.right > 0 && box.top < innerHeight && box.left < innerWidth,
  };
})()"""


def tab_to(page, wanted, key="Tab"):
    """Press Tab until the focus is where `wanted` says; every stop on the way is in sight and marked."""
    for _ in range(MOST_STOPS):
        page.keyboard.press(key)
        focus = page.evaluate(FOCUS)
        if focus["tag"] == "BODY":
            continue  # past the last stop; the next one is the first
        assert focus["seen"], f"the focus is out of sight: {focus}"
        assert focus["marked"], f"the focus is not marked: {focus}"
        if wanted({**focus, "said": " ".join((focus["said"] or "").split())}):
            return focus
    raise AssertionError("the keyboard does not get there")


def test_from_the_gallery_to_a_saved_box_by_keys_alone(page, serve_paths, study):
    address = serve_paths(study)
    page.goto(address)
    tab_to(page, lambda focus: focus["tag"] == "A" and focus["said"] == "first")
    page.keyboard.press("Enter")
    page.wait_for_url("**/slide/first*")
    until(page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded()")
    # A layer: shown, then fainter.
    tab_to(page, lambda focus: focus["said"] == "classes")
    page.keyboard.press("Space")
    until(page, "lamella.viewer.world.getItemCount() === 2 && lamella.viewer.world.getItemAt(1).getFullyLoaded()")
    before = page.evaluate("lamella.viewer.world.getItemAt(1).getOpacity()")
    page.keyboard.press("[")
    until(page, f"lamella.viewer.world.getItemAt(1).getOpacity() < {before}")
    # The view.
    zoom = page.evaluate("lamella.viewer.viewport.getZoom()")
    page.keyboard.press("+")
    until(page, f"lamella.viewer.viewport.getZoom() > {zoom} * 1.4")
    # A box by numbers.
    tab_to(page, lambda focus: focus["said"] == "Add by numbers")
    page.keyboard.press("Enter")
    for name, value in (("x", "200"), ("y", "120"), ("w", "40"), ("h", "30")):
        tab_to(page, lambda focus, name=name: focus["tag"] == "INPUT" and focus["name"] == name)
        page.keyboard.type(value)
    tab_to(page, lambda focus: focus["tag"] == "BUTTON" and focus["said"] == "Add")
    page.keyboard.press("Enter")
    drawn = "document.querySelector('[data-part=drawn]').options.length"
    until(page, f"{drawn} === 1")
    until(page, "/^Saved as version [1-9]/.test(document.querySelector('[data-part=saved]').textContent)")
    page.reload()
    until(page, "globalThis.lamella?.annotations")
    until(page, f"{drawn} === 1")


def test_help_opens_and_closes_by_keys(page, serve_paths, study):
    page.goto(serve_paths(study) + "slide/second")
    until(page, "globalThis.lamella?.annotations")
    page.keyboard.press("?")
    until(page, "document.getElementById('help').open")
    page.keyboard.press("Escape")
    until(page, "!document.getElementById('help').open")
    page.keyboard.press("l")
    until(page, "!document.getElementById('panel').getBoundingClientRect().width")
    page.keyboard.press("l")
    until(page, "document.getElementById('panel').getBoundingClientRect().width > 0")


@pytest.mark.parametrize("place", ["", "run/results", "run/runs-one", "scan/case_t1", "log"])
def test_every_stop_of_a_page_is_in_sight_and_marked(page, serve_paths, study, place):
    page.goto(serve_paths(study) + place)
    # Keys are pressed here faster than pictures come, which push away what was scrolled to.
    page.evaluate("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    until(page, "[...document.images].every((image) => image.complete)")
    page.wait_for_load_state("networkidle")
    first = tab_to(page, lambda focus: True)
    stops = 1
    while tab_to(page, lambda focus: True) != first and stops < MOST_STOPS:
        stops += 1
    assert stops > 1
