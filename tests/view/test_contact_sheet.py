"""All slides at one glance."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamella.slides.index import IndexedSlide, SlideIndex
from lamella.slides.indexing import SlideFate
from lamella.slides.manifest import ManifestRow
from lamella.view import contact_sheet
from lamella.view.contact_sheet import SheetEntry, draw_contact_sheet, sheet_entries


@pytest.fixture
def entries(study):
    slides = SlideIndex.load(study / "index").slides
    bad = SheetEntry("broken", "failed", "it is cut short")
    return [*(SheetEntry(slide.slide_id, "ok", slide=slide) for slide in slides), bad]


def opened(page):
    with Image.open(page) as image:
        return image.copy()


def frame_of(image, number):
    """The pixels inside a frame's line."""
    left, top = 14 + number * 304, 44
    return np.asarray(image)[top + 1 : top + 209, left + 1 : left + 289].astype(int)


def test_every_slide_has_its_frame(entries, tmp_path):
    pages = draw_contact_sheet(entries, tmp_path / "contact_sheet.png")
    assert pages == [tmp_path / "contact_sheet.png"]
    image = opened(pages[0])
    assert image.width == 3 * 304 + 14
    for number, entry in enumerate(entries[:2]):
        frame = frame_of(image, number)
        outline = (frame == (0, 128, 84)).all(axis=2)
        assert 200 < outline.sum() < 4000
        # Inside the outline lies stained tissue: green is darkest.
        middle = frame[90:120, 130:160].reshape(-1, 3).mean(axis=0)
        assert middle[1] < min(middle[0], middle[2]) - 10, entry.slide_id
    empty = frame_of(image, 2)
    assert (empty.min(axis=2) > 200).mean() > 0.95  # the reason's letters
    assert (empty.min(axis=2) < 100).sum() > 50


def test_an_identical_rerun_opens_no_slide_and_a_change_draws_anew(entries, tmp_path, monkeypatch):
    path = tmp_path / "contact_sheet.png"
    draw_contact_sheet(entries, path)
    before = path.read_bytes()
    seen = []
    real = IndexedSlide.open
    monkeypatch.setattr(IndexedSlide, "open", lambda slide: seen.append(slide.slide_id) or real(slide))
    draw_contact_sheet(entries, path)
    assert (seen, path.read_bytes()) == ([], before)
    draw_contact_sheet([*entries[:-1], replace(entries[-1], reason="it is gone")], path)
    assert len(seen) == 2
    assert path.read_bytes() != before


def test_many_slides_go_on_pages_and_old_pages_go(entries, tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "SLIDES_PER_PAGE", 2)
    path = tmp_path / "contact_sheet.png"
    (tmp_path / "contact_sheet_notes.png").touch()
    bad = [SheetEntry(f"slide_{number}", "rejected", "no tissue was found") for number in range(5)]
    assert [page.name for page in draw_contact_sheet(bad, path)] == [f"contact_sheet_0{n}.png" for n in (1, 2, 3)]
    assert draw_contact_sheet(bad[:3], path) == [tmp_path / f"contact_sheet_0{n}.png" for n in (1, 2)]
    assert draw_contact_sheet(bad[:2], path) == [path]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["contact_sheet.png", "contact_sheet_notes.png"]


def test_a_slide_that_is_gone_since_leaves_its_frame_and_says_why(entries, tmp_path):
    lost = replace(entries[0].slide, wsi_path=Path("/nowhere/a.svs"))
    (page,) = draw_contact_sheet([replace(entries[0], slide=lost)], tmp_path / "contact_sheet.png")
    empty = frame_of(opened(page), 0)
    assert (empty.min(axis=2) > 200).mean() > 0.95
    assert (empty.min(axis=2) < 100).sum() > 50


@pytest.mark.parametrize("count", [0, 1, 7])
def test_any_number_of_slides_makes_a_sheet(tmp_path, count):
    entries = [SheetEntry("x" * 300, "failed", "words " * 200)] * count
    (page,) = draw_contact_sheet(entries, tmp_path / "contact_sheet.png")
    assert opened(page).width == (304 * min(6, max(3, count))) + 14


def test_another_programs_picture_in_its_place_is_drawn_over(entries, tmp_path):
    path = tmp_path / "contact_sheet.png"
    path.write_bytes(b"no picture")
    draw_contact_sheet(entries[2:], path)
    assert opened(path).width == 3 * 304 + 14


def test_entries_tell_the_cause_without_the_path():
    row = ManifestRow("a", Path("/data/a.svs"), Path("/data/a.png"))
    fates = [
        SlideFate(row, "failed", "/data/a.svs: the file does not exist. Correct the path."),
        SlideFate(row, "rejected", "/data/a.png: the mask shows no tissue (it is 0 everywhere). Give another mask."),
    ]
    assert [(entry.status, entry.reason) for entry in sheet_entries(fates)] == [
        ("failed", "the file does not exist"),
        ("rejected", "the mask shows no tissue (it is 0 everywhere)"),
    ]
