"""What annotations.json says is what was written, wherever the folder and the slides are moved together."""

from __future__ import annotations

import json
import shutil

import pytest

from lamella.errors import LamellaError
from lamella.formats.annotation_folder import (
    RECORDS,
    AnnotatedSlide,
    author_files,
    is_annotation_folder,
    read_annotated_slides,
    write_annotated_slides,
)
from lamella.geometry import Frame


def test_records_come_back_and_move_with_the_slides(tmp_path):
    folder, slides = tmp_path / "study" / "annotations", tmp_path / "study" / "slides"
    one = AnnotatedSlide("a", slides / "a.svs", Frame(100, 80, 0.25, 0.26))
    odd = AnnotatedSlide("b/c", slides / "b.svs", Frame(10, 8, 0.5, 0.5), patient="P1")
    assert not is_annotation_folder(folder)
    assert read_annotated_slides(folder) == {}
    write_annotated_slides(folder, {"b-c-12": odd, "a": one})
    assert is_annotation_folder(folder)
    found = read_annotated_slides(folder)
    assert {key: (each.name, each.frame, each.patient) for key, each in found.items()} == {
        "a": ("a", one.frame, ""),
        "b-c-12": ("b/c", odd.frame, "P1"),
    }
    shutil.move(tmp_path / "study", tmp_path / "moved")
    moved = read_annotated_slides(tmp_path / "moved" / "annotations")["a"]
    assert moved.path.resolve() == (tmp_path / "moved" / "slides" / "a.svs").resolve()


def test_only_authors_files_count(tmp_path):
    (tmp_path / "a" / "history").mkdir(parents=True)
    for name in ("zoe.geojson", "ann.geojson", ".ann.host-1.part.geojson", "notes.txt", "history/ann.geojson"):
        (tmp_path / "a" / name).touch()
    assert list(author_files(tmp_path, "a")) == ["ann", "zoe"]
    assert author_files(tmp_path, "b") == {}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"format": "other", "slides": {}}', '{"format": "lamella-annotations-1", "slides": {"a": {}}}',
     json.dumps({"format": "lamella-annotations-1", "slides": {"a": {
         "slide": "a.svs", "width_px0": 0, "height_px0": 5, "mpp_x": 1, "mpp_y": 1}}})],
)  # fmt: skip
def test_damaged_records_are_refused(tmp_path, text):
    (tmp_path / RECORDS).write_text(text)
    with pytest.raises(LamellaError, match="does not say which slides"):
        read_annotated_slides(tmp_path)
