"""A slide's page as the server writes it."""

from __future__ import annotations

import pytest

from lamella.geometry import Frame
from lamella.view.server.catalogue.items import SlideItem
from lamella.view.server.layers.contract import LayerInfo, Legend, Look
from lamella.view.server.slide_page import facts_of

_EVIL = "<script>alert(1)</script>"


class _Genes:
    """A layer of 100 genes whose range depends on the gene."""

    settled = True
    frame = Frame(1536, 1024, 0.5, 0.5)
    names = tuple(f"G{number}" for number in range(100))
    info = LayerInfo("genes", _EVIL, "one", Legend(maps=["viridis", "magma"]), names[:64], 100, opacity=0.4)

    def legend(self, look: Look) -> Legend:
        if look.channel and look.channel not in self.names:
            raise KeyError(look.channel)
        high = 5.0 if look.channel == "G7" else 2.0
        return Legend(high=high, unit="counts", stops=["#000000", "#abcdef"], bare="glass")


class _Classes(_Genes):
    info = LayerInfo("classes", "classes", "two", Legend(classes=[("tumour", "#e69f00")]), ["tumour"], 1)


@pytest.fixture
def with_layers(viewer, make_slide, monkeypatch):
    found = {"genes": _Genes(), "classes": _Classes()}
    monkeypatch.setattr("lamella.view.server.served.find_layers", lambda *_: (found, [f"{_EVIL} is damaged"]))
    return viewer(make_slide("a.tif"))


def test_the_page_lists_layers_by_where_they_come_from(with_layers):
    text = with_layers.get("/slide/a").text
    places = [text.index(part) for part in ('"group">one', 'data-layer="genes"', '"group">two', 'data-layer="classes"')]
    assert places == sorted(places)
    assert 'value="0.4"' in text
    assert 'placeholder="one of 100"' in text
    assert '<select name="channel">' in text
    assert 'fill="#e69f00"' in text


def test_names_from_files_are_text_and_never_markup(with_layers):
    text = with_layers.get("/slide/a").text
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 3


def test_nothing_is_inline(with_layers):
    text = with_layers.get("/slide/a").text
    assert "style=" not in text
    assert "<style" not in text
    assert " onclick" not in text
    assert all("src=" in part.split(">")[0] for part in text.split("<script")[1:])


def test_the_range_is_that_of_the_channel(with_layers):
    legend = "/api/slides/a/layers/genes/legend"
    text = with_layers.get(f"{legend}?channel=G7&low=0.5&high=").json()["html"]
    assert 'max="5.0"' in text
    assert 'placeholder="5"' in text
    assert 'value="0.5"' in text
    assert 'stop-color="#abcdef"' in text
    assert "counts" in text
    assert "Left bare: glass" in text
    assert 'max="2.0"' in with_layers.get(legend).json()["html"]
    assert with_layers.get(f"{legend}?channel=none").status_code == 404
    assert with_layers.get("/api/slides/a/layers/none/legend").status_code == 404


def test_facts_tell_uneven_spacing():
    item = SlideItem("a", "a", None, facts={"reader": "tiff"})
    assert facts_of(item, Frame(2000, 1000, 0.5, 0.25)) == {
        "size": "2000 x 1000 px, 1 x 0.25 mm",
        "spacing": "0.5 x 0.25 µm per px",
        "reader": "tiff",
    }


def test_what_the_index_found_goes_before(make_slide):
    item = SlideItem("a", "a", None, facts={"size": "as the index says"})
    assert facts_of(item, Frame(2000, 1000, 0.5, 0.5))["size"] == "as the index says"


def test_an_unreadable_slide_shows_its_reason(viewer, make_slide, tmp_path):
    (tmp_path / "broken.svs").write_bytes(b"II*\0" + bytes(400))
    client = viewer(make_slide("a.tif"), tmp_path / "broken.svs")
    answer = client.get("/slide/broken")
    assert answer.status_code == 200
    assert 'role="alert"' in answer.text
    assert client.get("/slide/none").status_code == 404
