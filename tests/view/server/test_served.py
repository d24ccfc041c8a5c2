"""Layers are found once for each slide, and slides do not wait for one another."""

from __future__ import annotations

import threading

import pytest

from lamella.errors import SlideError
from lamella.view.server import served as served_module


@pytest.fixture
def served(viewer, make_slide, tmp_path):
    (tmp_path / "slides").mkdir()
    for name in ("a.tif", "b.tif"):
        make_slide(name, 256, 256, folder=tmp_path / "slides")
    (tmp_path / "slides" / "broken.svs").write_bytes(b"no slide")
    return viewer(tmp_path / "slides").served


def test_layers_are_found_once_and_forgotten_for_others(served, monkeypatch):
    asked = []

    def find(item, slide, sources):
        asked.append(item.id)
        return {}, [f"of {item.id}"]

    monkeypatch.setattr(served_module, "find_layers", find)
    for slide_id in ("a", "a", "b", "a"):
        assert served.layers(slide_id) == ({}, [f"of {slide_id}"])
    assert asked == ["a", "b"]
    monkeypatch.setattr(served_module, "_LAYERED_SLIDES", 1)
    for slide_id in ("a", "b", "a"):
        served.layers(slide_id)
    assert asked == ["a", "b", "b", "a"]


def test_a_slow_slide_keeps_no_other_waiting(served, monkeypatch):
    go_on, waiting = threading.Event(), threading.Event()

    def find(item, slide, sources):
        if item.id == "a":
            waiting.set()
            assert go_on.wait(10)
        return {}, []

    monkeypatch.setattr(served_module, "find_layers", find)
    slow = threading.Thread(target=served.layers, args=("a",))
    slow.start()
    assert waiting.wait(10)
    assert served.layers("b") == ({}, [])  # would hang otherwise
    go_on.set()
    slow.join(10)


def test_what_cannot_be_had_is_an_error_each_time(served):
    for _ in range(2):
        with pytest.raises(SlideError):
            served.layers("broken")
        with pytest.raises(KeyError):
            served.layers("nobody")
