"""Which files are found, and which are not."""

from __future__ import annotations

import os

import pytest

from lamella.view.server.catalogue import walk as walk_module
from lamella.view.server.catalogue.ids import Ids
from lamella.view.server.catalogue.walk import Walk


def _files(walk: Walk) -> list[str]:
    return [path.name for place in walk.places() for path in place.files]


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_link_out_of_the_given_paths_is_not_followed_and_said(tmp_path):
    _touch(tmp_path / "secret" / "a.svs")
    _touch(tmp_path / "given" / "own.svs")
    (tmp_path / "given" / "file.svs").symlink_to(tmp_path / "secret" / "a.svs")
    (tmp_path / "given" / "folder").symlink_to(tmp_path / "secret")
    (tmp_path / "given" / "nothing").symlink_to(tmp_path / "gone")
    walk = Walk([tmp_path / "given"])
    assert _files(walk) == ["own.svs"]
    assert any("file.svs and 1 more: a symbolic link that leads out" in sentence for sentence in walk.said)
    assert any("nothing: it is a link to nothing" in sentence for sentence in walk.said)


def test_a_given_path_may_be_a_link_and_links_inside_it_are_followed(tmp_path):
    _touch(tmp_path / "real" / "a.svs")
    (tmp_path / "real" / "same.svs").symlink_to("a.svs")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "given").symlink_to(tmp_path / "real")
    walk = Walk([tmp_path / "given"])
    assert _files(walk) == ["a.svs", "same.svs"]
    assert walk.said == []


def test_what_a_link_leads_to_is_found_if_it_is_given_too(tmp_path):
    _touch(tmp_path / "other" / "a.svs")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "a.svs").symlink_to(tmp_path / "other" / "a.svs")
    walk = Walk([tmp_path / "given", tmp_path / "other"])
    assert _files(walk) == ["a.svs", "a.svs"]
    assert walk.said == []


def test_insides_and_hidden_files_are_left_out(tmp_path):
    for name in ("model/a.svs", "checkpoints/b.svs", "x.zarr/c.svs", ".hidden/d.svs", ".e.svs", "deep/f.svs"):
        _touch(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.svs")
    places = list(Walk([tmp_path]).places())
    assert [path.name for place in places for path in place.files] == ["f.svs"]
    assert "x.zarr" in [path.name for path in places[0].folders]


def test_a_walk_that_is_cut_says_so(tmp_path, monkeypatch):
    _touch(tmp_path / "1" / "2" / "3" / "deep.svs")
    monkeypatch.setattr(walk_module, "MAX_DEPTH", 2)
    walk = Walk([tmp_path])
    assert _files(walk) == []
    assert "deeper than 2" in walk.said[0]
    monkeypatch.setattr(walk_module, "MAX_ENTRIES", 1)
    for name in ("a.svs", "b.svs"):
        _touch(tmp_path / "0" / name)
    walk = Walk([tmp_path])
    assert "deep.svs" not in _files(walk)
    assert "first 1 files" in walk.said[0]


def test_a_folder_given_twice_is_found_once(tmp_path):
    _touch(tmp_path / "in" / "a.svs")
    assert _files(Walk([tmp_path, tmp_path / "in", tmp_path])) == ["a.svs"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TCGA-AA-3562_1.2", "TCGA-AA-3562_1.2"),
        ("../../etc/passwd", "etc-passwd"),
        ("a b/c?d#e%2f", "a-b-c-d-e-2f"),
        ("Präparat Ä", "Praparat-A"),
        ("切片", "item"),
        (".hidden", "hidden"),
        ("x" * 300, "x" * 100),
    ],
)
def test_ids_may_stand_in_urls_and_file_names(name, expected):
    assert Ids().new(name) == expected


def test_ids_are_unique_whatever_the_case():
    ids = Ids()
    assert [ids.new(name) for name in ("a", "A", "a", "a-2")] == ["a", "A-2", "a-3", "a-2-2"]
