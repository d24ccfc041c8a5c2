"""The first page in a real browser."""

from __future__ import annotations

import pytest
from tests.ui.conftest import until

from lamella.view.server.safety import Safety

pytestmark = pytest.mark.ui


@pytest.fixture
def folder(make_slide, tmp_path):
    (tmp_path / "slides").mkdir()
    for name in ("first.tif", "second.tif"):
        make_slide(name, 512, 768, folder=tmp_path / "slides")
    (tmp_path / "slides" / "broken.svs").write_bytes(b"no slide")
    return tmp_path / "slides"


def test_slides_are_found_seen_and_opened_by_keys_alone(page, serve_paths, folder):
    page.goto(serve_paths(folder))
    until(page, "[...document.querySelectorAll('.thumb img')].every(image => image.complete && image.naturalWidth)")
    assert page.evaluate("document.querySelector('.thumb img').naturalWidth") == 256
    assert page.get_by_text("no reader takes it").is_visible()
    page.get_by_label("Search names, facts and layers").focus()
    page.keyboard.type("second")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?q=second")
    assert page.get_by_role("link", name="first").count() == 0
    page.get_by_role("link", name="second").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/slide/second*")
    assert page.get_by_role("heading", name="second").is_visible()


def test_a_thousand_cards_ask_only_for_the_pictures_in_view(page, serve, tmp_path, make_slide):
    from lamella.view.server.annotations.store import AnnotationStore
    from lamella.view.server.catalogue.items import Catalogue, SlideItem
    from lamella.view.server.served import Served
    from lamella.view.server.slide_pool import SlidePool
    from lamella.view.server.tile_memory import TileMemory

    path = make_slide("a.tif", 256, 256)
    slides = {f"s{number:04}": SlideItem(f"s{number:04}", f"s{number:04}", path) for number in range(1000)}
    store = AnnotationStore(tmp_path / "annotations")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "thumbnail" in request.url else None)
    page.goto(serve(Served(Catalogue("many", slides), SlidePool(slides), TileMemory(), store)))
    until(page, "document.querySelector('.thumb img').naturalWidth > 0")
    assert page.locator(".card").count() == 1000
    assert 0 < len(asked) < 100
    page.get_by_role("link", name="s0999").scroll_into_view_if_needed()
    until(page, "[...document.querySelectorAll('.thumb img')].at(-1).naturalWidth > 0")
    assert len(asked) < 300


def test_the_token_is_kept_in_a_cookie_that_scripts_cannot_read(page, serve, serve_paths, folder, tmp_path):
    address = serve_paths(folder, safety=Safety(token="a-long-token"))
    page.expected_faults.append("401")
    assert page.goto(address).status == 401
    page.goto(f"{address}?token=a-long-token")
    assert page.url in (address, f"{address}./")
    assert page.get_by_role("heading", name="slides").first.is_visible()
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("link", name="first").click()
    until(page, "globalThis.lamella?.viewer.world.getItemAt(0)?.getFullyLoaded()")


def test_another_site_gets_nothing(page, serve_paths, folder):
    """A page of another origin (localhost is not 127.0.0.1) tries to read and to write."""
    address = serve_paths(folder)
    other = address.replace("127.0.0.1", "localhost")
    page.expected_faults += ["CORS", "Failed to load resource", "Content Security Policy", "Refused to"]
    page.goto(address)  # its own policy forbids asking others, which is the first wall; a stranger's page has none
    context = page.context.browser.new_context(bypass_csp=True)
    stranger = context.new_page()
    stranger.goto(other)
    tried = """async ([address, options]) => {
      try { const answer = await fetch(address, options); return answer.type + answer.status; }
      catch (error) { return "refused"; }
    }"""
    read = f"{address}api/slides/first"
    assert stranger.evaluate(tried, [read, {}]) == "refused"
    assert stranger.evaluate(tried, [read, {"mode": "no-cors"}]) == "refused"
    write = {"method": "POST", "body": "{}", "mode": "no-cors", "headers": {"content-type": "text/plain"}}
    assert stranger.evaluate(tried, [f"{read}/annotations/eve", write]) == "refused"
    assert stranger.evaluate(tried, [f"{other}api/slides/first", {}]) == "basic200"  # its own origin works
    context.close()
