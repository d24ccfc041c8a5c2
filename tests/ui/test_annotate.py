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
    assert re.fullmatch(r"no class, 110 × 80\.\d µm", entries(page)[0])


def click(page, x: float, y: float) -> None:
    page.mouse.click(*display(page, x, y))
    page.wait_for_timeout(350)  # two clicks within 300 ms at one place would be a double click


def by_numbers(page, *, x: float, y: float, w: float | None = None, h: float | None = None, unit: str = "px0") -> None:
    if not page.locator("[data-part=numbers]").is_visible():
        page.get_by_text("Add by numbers").click()
    for name, value in {"x": x, "y": y, "w": w, "h": h}.items():
        page.locator(f"[data-part=numbers] [name={name}]").fill("" if value is None else str(value))
    page.locator("[data-part=numbers] [name=unit]").select_option(unit)
    page.get_by_role("button", name="Add", exact=True).click()


def entries(page) -> list[str]:
    return page.get_by_label("Your annotations").locator("option").all_inner_texts()


def select(page, text: str) -> None:
    page.get_by_label("Your annotations").select_option(label=text)
    page.wait_for_timeout(800)  # the flight there


def test_an_outline_by_clicks_and_a_point(drawing, tmp_path):
    page = drawing
    page.get_by_label("New class").fill("gland")
    page.get_by_role("button", name="Add class").click()
    page.keyboard.press("Tab")
    page.keyboard.press("o")
    corners = [(300, 300), (500, 320), (480, 520), (320, 480)]
    for corner in corners:
        click(page, *corner)
    click(page, 301, 301)  # the first again closes it
    page.keyboard.press("p")
    click(page, 700, 400)
    until(page, "document.querySelectorAll('[data-part=drawn] option').length === 2")
    page.get_by_role("button", name="Save").click()
    until(page, "document.querySelector('[data-part=saved]').textContent.startsWith('Saved')")
    outline, point = sorted(saved(tmp_path), key=lambda feature: feature["geometry"]["type"], reverse=True)
    assert {feature["properties"]["classification"]["name"] for feature in (outline, point)} == {"gland"}
    assert point["geometry"]["coordinates"] == pytest.approx([700, 400], abs=1)
    drawn = outline["geometry"]["coordinates"][0]
    assert len(drawn) == 5
    assert all(min(abs(x - a) + abs(y - b) for x, y in drawn) < 2 for a, b in corners)
    page.reload()
    until(page, "globalThis.lamella?.annotations")
    assert "gland, Point" in entries(page)
    page.get_by_role("button", name="Select").click()
    click(page, 702, 401)  # a few pixels beside it still hit it
    assert page.locator("[data-part=drawn] option:checked").inner_text() == "gland, Point"
    page.keyboard.press("Delete")
    until(page, "document.querySelectorAll('[data-part=drawn] option').length === 1")


def test_edit_class_undo_and_delete(drawing, tmp_path):
    page = drawing
    by_numbers(page, x=300, y=200, w=200, h=100)
    wait_saved(page, 1)
    select(page, "no class, 100 × 50.0 µm")
    drag(page, (500, 300), (560, 360))  # its lower right corner
    wait_saved(page, 2)
    ring = saved(tmp_path)[0]["geometry"]["coordinates"][0]
    assert [min(side) for side in zip(*ring, strict=True)] == pytest.approx([300, 200], abs=1)
    assert [max(side) for side in zip(*ring, strict=True)] == pytest.approx([560, 360], abs=2)
    page.get_by_label("New class").fill("tumour")
    page.get_by_label("New class").press("Enter")
    wait_saved(page, 3)
    found = saved(tmp_path)[0]["properties"]["classification"]
    assert found["name"] == "tumour"
    assert found["color"] == [230, 159, 0]  # the first colour of the palette
    page.wait_for_timeout(300)  # changes within 250 ms are undone together
    page.get_by_role("button", name="Undo").click()
    wait_saved(page, 4)
    assert "classification" not in saved(tmp_path)[0]["properties"]
    select(page, entries(page)[0])
    page.get_by_role("button", name="Delete").click()
    wait_saved(page, 5)
    assert saved(tmp_path) == []
    page.get_by_role("button", name="Undo").click()
    wait_saved(page, 6)
    assert len(saved(tmp_path)) == 1


def test_keys_alone(drawing, tmp_path):
    page = drawing
    page.locator("summary", has_text="Add by numbers").focus()
    page.keyboard.press("Enter")
    for value in ("100", "50", "25.5", "10"):  # micrometres
        page.keyboard.press("Tab")
        page.keyboard.type(value)
    page.keyboard.press("Enter")
    wait_saved(page, 1)
    ring = saved(tmp_path)[0]["geometry"]["coordinates"][0]
    assert [*map(min, zip(*ring, strict=True)), *map(max, zip(*ring, strict=True))] == [200, 100, 251, 120]
    page.get_by_label("Your annotations").focus()
    page.keyboard.press("ArrowDown")
    until(page, "!document.querySelector('[data-act=remove]').disabled")
    page.keyboard.press("Delete")
    wait_saved(page, 2)
    assert saved(tmp_path) == []


def other_page(page, change) -> dict:
    """Somebody else saves."""
    return page.evaluate(
        """async (body) => (await fetch("../api/slides/a/annotations/anna", {method: "POST",
          headers: {"content-type": "application/json", "x-lamella": "1"}, body: JSON.stringify(body)})).json()""",
        change,
    )


def test_what_others_save_meanwhile_is_merged_and_conflicts_keep_both(drawing, tmp_path):
    page = drawing
    by_numbers(page, x=300, y=200, w=200, h=100)
    wait_saved(page, 1)
    (first,) = saved(tmp_path)
    ring = [[600, 500], [700, 500], [700, 600], [600, 600], [600, 500]]
    more = {
        **first,
        "id": "00000000-0000-0000-0000-000000000001",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    assert other_page(page, {"base_version": 1, "upserts": [more]})["version"] == 2
    by_numbers(page, x=10, y=10)
    wait_saved(page, 3)
    assert len(entries(page)) == len(saved(tmp_path)) == 3
    theirs = {**first, "properties": {"objectType": "annotation", "name": "theirs"}}
    other_page(page, {"base_version": 3, "upserts": [theirs]})
    select(page, "no class, 100 × 50.0 µm")
    page.get_by_label("New class").fill("mine")
    page.get_by_label("New class").press("Enter")
    said = "Saved as version 5. Changed elsewhere in the meantime: 1; both versions are kept."
    until(page, f"document.querySelector('[data-part=saved]').textContent === '{said}'")
    now = {feature["id"]: feature["properties"] for feature in saved(tmp_path)}
    assert len(now) == len(entries(page)) == 4
    assert now.pop(first["id"])["name"] == "theirs"
    assert [kept.get("classification", {}).get("name") for kept in now.values()].count("mine") == 1


def test_a_crossing_outline_is_held_back_and_the_rest_saved(drawing, tmp_path):
    page = drawing
    page.expected_faults = ["400"]
    page.keyboard.press("o")
    for corner in [(300, 300), (500, 500), (500, 300), (300, 500)]:
        click(page, *corner)
    click(page, 301, 301)
    page.keyboard.press("Escape")
    by_numbers(page, x=600, y=200, w=50, h=50)
    until(page, "document.querySelector('[data-part=saved]').textContent.includes('crosses itself')")
    page.wait_for_timeout(500)
    (kept,) = saved(tmp_path)
    assert [600, 250] in kept["geometry"]["coordinates"][0]
    assert len(entries(page)) == 2
    assert "crosses itself" in page.locator("[data-part=saved]").inner_text()


def test_a_server_that_does_not_answer_is_asked_again(drawing, tmp_path):
    page = drawing
    page.expected_faults = ["ERR_FAILED", "Failed to load"]
    page.route("**/annotations/anna", lambda route: route.abort())
    by_numbers(page, x=300, y=200, w=200, h=100)
    until(page, "document.querySelector('[data-part=saved]').textContent.includes('trying again in 2 s')")
    page.unroute("**/annotations/anna")
    wait_saved(page, 1)
    assert len(saved(tmp_path)) == 1


def test_others_are_shown_and_cannot_be_changed_and_files_come_in_and_out(drawing, tmp_path):
    page = drawing
    by_numbers(page, x=300, y=200, w=200, h=100)
    wait_saved(page, 1)
    page.get_by_text("Author and files").click()
    page.get_by_label("Your name").fill("Bob")
    page.get_by_label("Your name").press("Enter")
    page.wait_for_timeout(500)
    until(page, "globalThis.lamella?.annotations?.author === 'Bob'")
    assert page.evaluate("lamella.annotations.anno.getAnnotations().length") == 1
    page.evaluate("lamella.viewer.viewport.goHome(true)")
    page.wait_for_timeout(300)
    click(page, 400, 250)
    assert page.evaluate("lamella.annotations.anno.getSelected().length") == 0
    page.get_by_text("Author and files").click()
    ring = [[800, 500], [900, 500], [900, 600], [800, 500]]
    hole = [[860, 520], [880, 520], [880, 540], [860, 520]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring, hole]},
        "properties": {"classification": {"name": "vessel", "color": [0, 200, 0]}},
    }
    collection = {"type": "FeatureCollection", "features": [feature]}
    name = "export.geojson"
    file = [{"name": name, "mimeType": "application/json", "buffer": json.dumps(collection).encode()}]
    with page.expect_event("load"):
        page.locator("[data-part=import]").set_input_files(file)
    until(page, "document.querySelector('[data-part=drawn] option')")
    page.get_by_text("Author and files").click()
    assert entries(page) == ["vessel, 50.0 × 50.0 µm"]
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as GeoJSON").click()
    (out,) = json.loads(download.value.path().read_text())["features"]
    assert out["properties"]["classification"] == feature["properties"]["classification"]
    assert len(out["geometry"]["coordinates"]) == 2
    assert len(saved(tmp_path)) == 1


def test_the_queue_leads_from_place_to_place_and_remembers(page, serve, make_slide, tmp_path):
    from lamella.view.server.annotations.store import AnnotationStore
    from lamella.view.server.catalogue.items import Catalogue, QueueItem, SlideItem
    from lamella.view.server.served import Served
    from lamella.view.server.slide_pool import SlidePool
    from lamella.view.server.tile_memory import TileMemory

    slides = {"a": SlideItem("a", "a", make_slide("a.tif"))}
    queue = [QueueItem("a", (100, 100, 300, 300), "likeliest gland"), QueueItem("a", (900, 500, 1100, 700), "second")]
    store = AnnotationStore(tmp_path / "annotations")
    address = serve(Served(Catalogue("queue", slides, queue=queue), SlidePool(slides), TileMemory(), store, "anna"))
    page.goto(f"{address}slide/a")
    until(page, "globalThis.lamella?.annotations && document.querySelector('#queue:not([hidden])')")
    told = page.locator("#queue [data-part=at]")
    assert told.inner_text() == "2 of 2 left."
    page.keyboard.press("n")
    assert told.inner_text() == "1: likeliest gland. 2 of 2 left."
    page.get_by_label("Dealt with").check()
    until(page, "document.querySelector('#queue [data-part=at]').textContent.includes('1 of 2 left')")
    page.get_by_role("button", name="Next", exact=True).click()
    page.wait_for_timeout(900)  # the flight
    middle = page.evaluate(
        """(() => { const {viewport} = lamella.viewer;
          const at = viewport.viewportToImageCoordinates(viewport.getCenter()); return [at.x, at.y]; })()"""
    )
    assert middle == pytest.approx([1000, 600], abs=2)
    assert not page.get_by_label("Dealt with").is_checked()
    assert page.locator(".queue-box").count() == 1
    page.reload()
    until(page, "document.querySelector('#queue:not([hidden])')")
    assert told.inner_text() == "1 of 2 left."


def test_a_thousand_objects_are_drawn_and_saved_one_by_one(drawing, tmp_path):
    page = drawing
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[x, y], [x + 9, y], [x + 9, y + 9], [x, y + 8], [x, y]]]},
        }
        for x in range(100, 1100, 25)
        for y in range(100, 725, 25)
    ]
    file = {"name": "many.geojson", "mimeType": "application/json", "buffer": json.dumps(features).encode()}
    page.get_by_text("Author and files").click()
    with page.expect_event("load"):
        page.locator("[data-part=import]").set_input_files([file])
    until(page, "globalThis.lamella?.annotations")
    assert len(entries(page)) == 200
    assert page.locator("[data-part=more]").inner_text() == "and 800 more"
    by_numbers(page, x=20, y=20, w=30, h=30)
    wait_saved(page, 2)
    assert len(saved(tmp_path)) == 1001
