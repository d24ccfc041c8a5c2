"""Layers over a slide in a real browser: their colours, their genes, their objects, and what cannot be read."""

from __future__ import annotations

import pytest
from tests.ui.conftest import until
from tests.ui.fake_layers import BLUE, RED, Genes, Halves, Squares
from tests.ui.on_slide import DRAWN, colour_at, near, on_screen, open_slide_page

from lamella.geometry import Frame

pytestmark = pytest.mark.ui
_FRAME = Frame(1536, 1024, 0.5, 0.5)
_LEFT, _RIGHT = (400, 500), (1000, 500)


@pytest.fixture
def show(page, serve_paths, make_slide, monkeypatch):
    """show(layer, ..., view="", refused=()): open a slide with these layers; returns the address."""

    def start(*layers, view: str = "", refused=()) -> str:
        found = {layer.info.id: layer for layer in layers}
        monkeypatch.setattr("lamella.view.server.served.find_layers", lambda *_: (found, list(refused)))
        address = serve_paths(make_slide("a.tif"))
        open_slide_page(page, address, view=view)
        return address

    return start


def box(page, title: str):
    return page.get_by_role("checkbox", name=title, exact=True)


def until_colour(page, place, colour, by: int = 8) -> None:
    for _ in range(100):
        if near(colour_at(page, *place), colour, by):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"{colour_at(page, *place)} at {place}, not {colour}")


def test_a_layer_is_shown_made_fainter_and_hidden(page, show):
    show(Halves("one", RED, _FRAME))
    bare = colour_at(page, *_LEFT)
    assert not near(bare, RED)
    box(page, "classes of one").check()
    until_colour(page, _LEFT, RED)
    assert not near(colour_at(page, *_RIGHT), RED)
    assert page.locator("[data-layer=one] .classes").inner_text() == "tumour"  # the legend
    for _ in range(5):
        page.keyboard.press("[")
    until_colour(page, _LEFT, tuple((a + b) // 2 for a, b in zip(RED, bare[:3], strict=True)))
    box(page, "classes of one").uncheck()
    until_colour(page, _LEFT, tuple(bare[:3]))


def test_layers_are_reached_and_turned_on_by_keys_alone(page, show):
    show(Halves("one", RED, _FRAME))
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.shown')"):
            break
    page.keyboard.press("Space")
    until_colour(page, _LEFT, RED)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "opacity"
    page.keyboard.press("Home")
    until(page, "lamella.viewer.world.getItemAt(1).getOpacity() === 0")


def test_a_gene_is_found_among_thousands_and_shown(page, show):
    genes = Genes("genes", _FRAME)
    show(genes)
    assert genes.asked == []  # nothing is read before it is asked for
    box(page, "genes").check()
    until_colour(page, _LEFT, (0, 0, 0))
    page.get_by_role("combobox", name="Show", exact=True).fill("gene04")
    until(page, "document.querySelector('.found').textContent === '20 found'")
    page.get_by_role("combobox", name="Show", exact=True).fill("gene0400")
    until_colour(page, _LEFT, (13, 13, 13), by=0)  # 0.04 of 0 to 0.8
    assert page.get_by_label("Colours to", exact=True).get_attribute("placeholder") == "0.8"  # this gene's own range
    page.get_by_label("Colours to", exact=True).fill("0.16")
    page.keyboard.press("Enter")
    until_colour(page, _LEFT, (64, 64, 64), by=1)
    page.get_by_role("combobox", name="Colours", exact=True).select_option("yerg")
    until_colour(page, _LEFT, (191, 191, 191), by=1)
    until(page, "document.querySelector('[data-layer=genes] stop').getAttribute('stop-color') === '#ffffff'")
    page.get_by_label("Colours to, slider").fill("0.4")
    until_colour(page, _LEFT, (230, 230, 230), by=1)
    until(page, "location.hash.includes('genes~')")


def test_the_address_brings_back_the_layers_and_their_looks(page, show):
    layers = [Halves("one", RED, _FRAME), Genes("genes", _FRAME)]
    address = show(*layers, view="700,500,1,genes~GENE4000~0.5~grey~~0.5,one~1")
    until_colour(page, _LEFT, RED)
    assert page.get_by_role("combobox", name="Show", exact=True).input_value() == "GENE4000"
    assert page.evaluate("lamella.viewer.world.getItemAt(1).getOpacity()") == 0.5
    bare = page.evaluate("location.hash")
    box(page, "genes").uncheck()
    until(page, "!location.hash.includes('genes')")
    page.goto(f"{address}slide/a{bare}")  # the same page: only the part after # changes
    until(page, "document.querySelector('[data-layer=genes] .shown').checked")


def test_a_new_look_replaces_the_old_one_without_leaving_it_behind(page, show):
    show(Genes("genes", _FRAME), view="700,500,1,genes")
    for name in ("GENE1000", "GENE2000", "GENE3000", "GENE4000"):  # faster than tiles come
        page.evaluate(f"lamella.layers.rows.get('genes').turn(true, ['{name}', '1', 'grey', '', '1'])")
    until_colour(page, _LEFT, (102, 102, 102), by=1)
    until(page, "lamella.viewer.world.getItemCount() === 2")


def test_objects_are_outlined_where_few_are_in_view(page, show):
    show(Squares("nuclei", _FRAME))
    box(page, "nuclei").check()
    count = page.locator("[data-layer=nuclei] .count")
    until(page, "document.querySelector('.count').textContent.includes('25 % of the file read')")
    until(page, "document.querySelector('.count').textContent === '384 in view, too many to outline: zoom in'")
    until(page, "document.querySelector('[data-layer=nuclei] .classes')?.innerText === 'nucleus'")  # read meanwhile
    until_colour(page, _LEFT, BLUE)  # its tiles stand in
    page.evaluate("location.hash = '#340,340,0.25,nuclei'")
    until(page, "/^[0-9]+ in view$/.test(document.querySelector('.count').textContent)")
    shown = int(count.inner_text().split()[0])
    assert 35 <= shown <= 80
    assert not near(colour_at(page, *_LEFT), BLUE)  # outlines now
    assert near(on_screen(page, 340, 320), BLUE, 40)  # on the upper side of the square at 320, 320
    box(page, "nuclei").uncheck()
    assert count.inner_text() == ""


def test_tiles_that_cannot_be_read_are_said_and_seen(page, show):
    page.expected_faults = ["status of 500"]
    show(Halves("one", RED, _FRAME, damaged=True), refused=["weak: its raster is damaged. Make it again."])
    assert page.get_by_text("weak: its raster is damaged").is_visible()
    box(page, "classes of one").check()
    until(page, "document.getElementById('status').textContent.startsWith('Tiles that could not be read so far: ')")
    until(page, DRAWN)
    colours = {tuple(colour_at(page, x, 500)[:3]) for x in range(300, 1200, 9)}
    assert (255, 193, 7) in colours  # hatched


def test_a_slide_without_layers_says_so(page, show):
    show()
    assert page.get_by_text("Nothing to lay over this slide was found").is_visible()
    assert page.locator("#compare").count() == 0
