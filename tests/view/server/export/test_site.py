"""A site is whole, of the right pixels, and never half of something else."""

import json
import re
import shutil
from collections import namedtuple
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.errors import LamellaError, OutputConflictError, StorageError
from lamella.formats.annotation_folder import AnnotatedSlide
from lamella.formats.geojson import GeoObject, write_geojson
from lamella.view.server.annotations.merge import Change
from lamella.view.server.export import export_site, pyramids
from lamella.view.server.pyramid import Pyramid

SQUARE = np.array([[100, 60], [200, 60], [200, 160], [100, 160]], float)


@pytest.fixture
def slides(tmp_path, make_slide):
    """A folder with a slide, objects that lie over it, and a file that is none."""
    folder = tmp_path / "slides"
    folder.mkdir()
    make_slide("a.tif", height=300, width=520, levels=1, folder=folder)
    write_geojson(folder / "a.geojson", [GeoObject(polygons=((SQUARE,),), classification="tumour")])
    return folder


def pixels(path, mode="RGB"):
    with Image.open(path) as image:
        return np.asarray(image.convert(mode)).astype(int)


def test_a_site_has_every_tile_and_what_is_drawn(viewer, slides, tmp_path):
    (slides / "b.tif").write_bytes(b"II*\0" + b"broken" * 20)
    served = viewer(slides).served
    with served.slides.slide("a") as slide:
        drawn_on = AnnotatedSlide("a", slide.path, slide.frame)
        pyramid = Pyramid.over(slide.frame)
    item = GeoObject(points=np.array([[5.0, 6.0]]), classification="cell & <b>", object_id="1" * 8)
    served.annotations.save(drawn_on, "ann", Change(0, {item.object_id: item}))
    said = []
    site = tmp_path / "site"
    export_site(served, site, layers=["objects"], say=said.append)
    for level in range(pyramid.max_level + 1):
        columns, rows = pyramid.tiles(level)
        for column, row in np.ndindex(columns, rows):
            _, width, height = pyramid.tile(level, column, row)
            assert pixels(site / f"a_files/{level}/{column}_{row}.jpg").shape == (height, width, 3)
    written = tifffile.imread(slides / "a.tif")[256:, 256:512]
    assert np.abs(pixels(site / f"a_files/{pyramid.max_level}/1_1.jpg") - written).mean() < 4
    size = ElementTree.parse(site / "a.dzi").getroot().find("{*}Size")
    assert size.attrib == {"Width": "520", "Height": "300"}
    top = pixels(site / f"a_layers/0_files/{pyramid.max_level - 1}/0_0.png", "RGBA")
    assert top.shape == (150, 256, 4)  # at half the slide's size
    assert top[30:80, 50:100, 3].any()  # where the object is
    assert not top[100:, 150:, 3].any()
    page = (site / "a.html").read_text()
    assert "M5.00,6.00h0" in page
    assert "cell &amp; &lt;b&gt;" in page
    assert (site / "a_annotations/ann.geojson").is_file()
    index = (site / "index.html").read_text()
    assert "Cannot be shown" in index
    assert any("b" in line and "no reader takes it" in line for line in said)
    assert "about" in said[0]


def test_its_pages_need_no_server_and_name_no_path_of_this_machine(viewer, slides, tmp_path):
    export_site(viewer(slides).served, tmp_path / "site", say=print)
    pages = {path: path.read_text() for path in (tmp_path / "site").glob("*.html")}
    assert len(pages) == 2
    for text in (*pages.values(), (tmp_path / "site" / "static" / "exported.js").read_text()):
        assert str(tmp_path) not in text
        assert not re.search(r"https?://|type=\"module\"|\bfetch\(|\bimport\b", text)
    for path, text in pages.items():
        for address in re.findall(r'(?:src|href)="([^"#]+)"', text):
            assert (path.parent / address).is_file()
    assert "openseadragon" in (tmp_path / "site/static/vendor/LICENCES.txt").read_text().lower()


class Interrupted(BaseException):
    pass


def test_an_interrupted_export_leaves_nothing_and_goes_on_where_it_stopped(viewer, slides, tmp_path, monkeypatch):
    made = []

    def counted(slide, level, column, row, pyramid):
        made.append((level, column, row))
        if len(made) == stop_after:
            raise Interrupted
        return real(slide, level, column, row, pyramid)

    real = pyramids.tile_jpeg
    monkeypatch.setattr(pyramids, "tile_jpeg", counted)
    monkeypatch.setattr(pyramids, "_SAMPLED", 1)
    served, site, stop_after = viewer(slides).served, tmp_path / "site", 14
    with pytest.raises(Interrupted):
        export_site(served, site, say=print)
    assert not site.exists()
    there = {path.relative_to(tmp_path) for path in tmp_path.glob(".site.part/a_files/*/*.jpg")}
    assert len(there) >= 8
    made.clear()
    stop_after = 0
    export_site(served, site, say=print)
    again = {f"a_files/{level}/{column}_{row}.jpg" for level, column, row in made[3:]}  # the first are the estimate's
    assert not again & {str(path.relative_to(".site.part")) for path in there}
    assert not (tmp_path / ".site.part").exists()
    made.clear()
    export_site(served, site, say=print)
    assert made == []  # it stands


def test_what_an_export_of_something_else_left_is_not_taken_over(viewer, slides, tmp_path):
    part = tmp_path / ".site.part"
    (part / "a_files" / "0").mkdir(parents=True)
    (part / "a_files" / "0" / "0_0.jpg").write_bytes(b"of another slide")
    (part / "export.json").write_text(json.dumps({"format": "lamella-site-1"}))
    export_site(viewer(slides).served, tmp_path / "site", say=print)
    assert pixels(tmp_path / "site/a_files/0/0_0.jpg").shape == (1, 1, 3)


def test_a_folder_with_something_else_is_left_alone(viewer, slides, tmp_path):
    site = tmp_path / "site"
    served = viewer(slides).served
    export_site(served, site, layers=[], say=print)
    with pytest.raises(OutputConflictError, match="something else"):
        export_site(served, site, say=print)
    with pytest.raises(OutputConflictError):
        export_site(served, slides, say=print)
    assert not (site / "a_layers").exists()


def test_a_corrupt_tile_is_an_error_tile_that_the_page_names(viewer, slides, tmp_path, make_slide):
    path = make_slide("a.tif", height=300, width=520, levels=1, folder=slides, compression="deflate")
    with tifffile.TiffFile(path) as tiff:
        at, count = tiff.pages.first.dataoffsets[0], tiff.pages.first.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[at : at + count] = b"\x13" * count
    path.write_bytes(data)
    export_site(viewer(slides).served, tmp_path / "site", say=print)
    tile = pixels(tmp_path / "site/a_files/10/0_0.jpg")
    assert (np.abs(tile - (255, 193, 7)).max(axis=2) < 40).mean() > 0.2
    assert "tile 0 (row 0, column 0)" in (tmp_path / "site/a.html").read_text()


def test_names_that_nothing_has_are_said_before_anything_is_written(viewer, slides, tmp_path):
    served = viewer(slides).served
    with pytest.raises(LamellaError, match="Choose from a"):
        export_site(served, tmp_path / "site", slides=["c"])
    with pytest.raises(LamellaError, match="no slide has one of that name"):
        export_site(served, tmp_path / "site", layers=["lables"])
    assert not (tmp_path / ".site.part").exists()


def test_a_disk_without_room_is_said_before_tiles_are_written(viewer, slides, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10, 9, 1))
    with pytest.raises(StorageError, match="the disk has"):
        export_site(viewer(slides).served, tmp_path / "site", say=print)
    assert not list(tmp_path.glob("**/*.jpg"))


def test_the_estimate_is_near_what_is_written(viewer, make_slide, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (1024, 1536, 3), np.uint8)
    noise[:, 700:] = 240  # half of it is glass
    tifffile.imwrite(
        folder / "a.tif",
        noise,
        tile=(256, 256),
        photometric="rgb",
        resolution=(2e4, 2e4),
        resolutionunit=3,
        metadata=None,
    )
    said = []
    export_site(viewer(folder).served, tmp_path / "site", say=said.append)
    written = sum(path.stat().st_size for path in (tmp_path / "site" / "a_files").glob("*/*")) / 1e6
    assert float(re.search(r"about ([\d.]+) MB", said[0])[1]) == pytest.approx(written, rel=0.2, abs=0.1)
