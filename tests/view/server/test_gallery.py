"""The first page, and messages of the log."""

from __future__ import annotations

import json
import logging
import re

import pytest

from lamella.cli import main
from lamella.view.server import log
from lamella.view.server.catalogue.items import Catalogue, LayerSource, QueueItem, SlideItem
from lamella.view.server.gallery import cards


@pytest.fixture
def folder(make_slide, tmp_path):
    (tmp_path / "slides").mkdir()
    make_slide("good.tif", 256, 256, folder=tmp_path / "slides")
    (tmp_path / "slides" / "broken.svs").write_bytes(b"no slide")
    (tmp_path / "slides" / "good.geojson").write_text("[]")
    return tmp_path / "slides"


def test_every_slide_is_there_and_an_unreadable_one_tells_why(viewer, folder):
    client = viewer(folder)
    text = client.get("/").text
    assert 'href="./slide/good"' in text
    assert 'src="./api/slides/good/thumbnail.jpg"' in text
    assert "256 x 256 px" in text
    assert "outlines: slides" in text
    assert 'href="./slide/broken"' not in text
    assert "no reader takes it" in text
    assert client.get("/api/slides/good/thumbnail.jpg").headers["content-type"] == "image/jpeg"
    page = client.get("/slide/broken")
    assert "no reader takes it" in page.text


def test_search_keeps_what_holds_all_words(viewer, folder):
    client = viewer(folder)
    found = client.get("/", params={"q": "OUTLINES good"}).text
    assert 'href="./slide/good"' in found
    assert "broken" not in found
    assert "1 of 2 shown" in found
    assert "0 of 2 shown" in client.get("/", params={"q": "good nowhere"}).text


def test_what_comes_from_files_and_addresses_is_escaped(viewer, make_slide, tmp_path):
    (tmp_path / "in").mkdir()
    make_slide("<b>bold<b>&.tif", 256, 256, folder=tmp_path / "in")
    client = viewer(tmp_path / "in")
    text = client.get("/", params={"q": '"><script>alert(1)</script>'}).text
    assert "<script>" not in text
    text = client.get("/").text
    assert "<b>" not in text
    assert "&lt;b&gt;bold&lt;b&gt;&amp;" in text


def test_all_addresses_are_relative_behind_any_prefix(viewer, folder):
    plain, prefixed = viewer(folder), viewer(folder, prefix="/far/lamella")
    for path in ("/", "/slide/good", "/log", "/nowhere/at/all"):
        text = prefixed.get(f"/far/lamella{path}").text
        assert text == plain.get(path).text
        links = re.findall(r'(?:href|src|action)="([^"]*)"', text)
        assert links
        assert not [link for link in links if link.startswith("/") or ":" in link]
    assert prefixed.get("/").status_code == 404


def test_a_thousand_slides_are_cards_at_once(tmp_path):
    slides = {f"s{n}": SlideItem(f"s{n}", f"s{n}", tmp_path / f"{n}.svs") for n in range(1000)}
    sources = [LayerSource("features", tmp_path / f"{n}.h5", f"s{n}", f"run{n % 5}") for n in range(1000)] * 5

    class Served:
        catalogue = Catalogue("many", slides, sources, queue=[QueueItem("s7", (0, 0, 1, 1), "")] * 3)

    made = cards(Served())
    assert [len(made), made[7].waiting, made[8].waiting] == [1000, 3, 0]
    assert made[9].layers == ["features: run4"]


def test_people_get_a_page_and_scripts_get_json(viewer, folder):
    client = viewer(folder)
    page, answer = client.get("/slide/nobody"), client.get("/api/slides/nobody")
    assert page.status_code == answer.status_code == 404
    assert "There is no such thing here." in page.text
    assert answer.json() == {"error": "There is no such thing here."}
    wrong = client.put("/api/log", json={}, headers={"x-lamella": "1"})
    assert wrong.status_code == 405
    assert "GET" in wrong.headers["allow"]
    broken = client.get("/api/slides/broken")
    assert broken.status_code == 400
    assert "no reader takes it" in broken.json()["error"]


def test_messages_of_the_log_are_on_a_page(viewer, folder):
    client = viewer(folder)
    before = max((message["number"] for message in client.get("/api/log").json()["messages"]), default=0)
    client.get("/api/slides/broken")
    logging.getLogger("lamella.view").warning("a <tile> is %s", "damaged")
    answer = client.get("/api/log", params={"after": before}).json()["messages"]
    assert [message["level"] for message in answer] == ["warning", "warning"]
    assert "/api/slides/broken" in answer[0]["text"]
    assert answer[1]["text"] == "a <tile> is damaged"
    assert "a &lt;tile&gt; is damaged" in client.get("/log").text


def test_the_log_keeps_the_last_messages_only():
    memory = log.LogMemory(kept=3)
    for number in range(5):
        memory.emit(logging.LogRecord("x", logging.INFO, "", 0, "%d", (number,), None))
    assert [message["text"] for message in memory.after(0)] == ["2", "3", "4"]
    assert [message["text"] for message in memory.after(4)] == ["4"]


def test_an_index_shows_its_qc(viewer, folder, tmp_path):
    main(["index", str(folder / "good.tif"), "-o", str(tmp_path / "index")])
    text = viewer(tmp_path / "index").get("/").text
    assert re.search(r"<dt>tissue</dt><dd>[\d.]+ mm², \d+% of the slide</dd>", text)
    assert "tissue: index" in text


def test_runs_stand_under_headings_and_can_be_compared(viewer, tmp_path):
    for name, verb in (("b", "weak results"), ("a", "pretrain"), ("c", "embed")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.yaml").touch()
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps({"verb": verb}))
    text = viewer(tmp_path / "runs").get("/").text
    places = [text.index(part) for part in ("Training", "run/a", "Results", "run/b", "What the other verbs", "run/c")]
    assert places == sorted(places)
    assert 'action="./runs/compare"' in text
    assert '<option value="b" selected>' in text  # the first is the first, so this is another one
