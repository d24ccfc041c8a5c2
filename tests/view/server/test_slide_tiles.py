"""Tiles and thumbnails as the page gets them."""

import io
import logging

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.view.server import slide_tiles

TILE = "/api/slides/a/tiles/{}/{}_{}.jpg"


def pixels(answer):
    return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)


def test_tiles_are_the_slides_pixels_and_are_kept(viewer, make_slide):
    path = make_slide("a.tif")
    client = viewer(path)
    answer = client.get(TILE.format(11, 2, 1))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    written = tifffile.imread(path)[256:512, 512:768]
    assert np.abs(pixels(answer) - written).mean() < 3
    assert client.served.tiles.bytes == len(answer.content)
    assert client.get(TILE.format(11, 2, 1)).content == answer.content
    assert client.get(TILE.format(0, 0, 0)).status_code == 200
    assert client.head(TILE.format(11, 2, 1)).headers["etag"] == answer.headers["etag"]


@pytest.mark.parametrize("place", [(12, 0, 0), (11, 6, 0), (11, 0, 4)])
def test_a_tile_outside_the_slide_is_not_found(viewer, make_slide, place):
    client = viewer(make_slide("a.tif"))
    assert client.get(TILE.format(*place)).status_code == 404
    assert client.get(TILE.format(*place).replace("/a/", "/b/")).status_code == 404
    assert client.get("/api/slides/b/thumbnail.jpg").status_code == 404


@pytest.mark.parametrize("address", [TILE.format(11, 2, 1), "/api/slides/a/thumbnail.jpg"])
def test_a_browsers_copy_holds_until_the_slide_changes(viewer, make_slide, address):
    client = viewer(make_slide("a.tif"))
    first = client.get(address)
    assert "no-cache" in first.headers["cache-control"]
    seen = {"if-none-match": first.headers["etag"]}
    again = client.get(address, headers=seen)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    make_slide("a.tif", seed=1)
    changed = client.get(address, headers=seen)
    assert changed.status_code == 200
    assert np.abs(pixels(changed) - pixels(first)).mean() > 5


def test_a_corrupt_tile_is_an_error_tile_with_a_line_in_the_log(viewer, make_slide, caplog):
    path = make_slide("a.tif", compression="deflate", levels=1)
    with tifffile.TiffFile(path) as tiff:
        at, count = tiff.pages.first.dataoffsets[8], tiff.pages.first.databytecounts[8]
    data = bytearray(path.read_bytes())
    data[at : at + count] = b"\x13" * count
    path.write_bytes(data)
    client = viewer(path)
    with caplog.at_level(logging.ERROR, "lamella.view"):
        answer = client.get(TILE.format(11, 2, 1))
    assert (answer.status_code, answer.headers["content-type"]) == (500, "image/png")
    assert answer.headers["cache-control"] == "no-store"
    shown = pixels(answer)
    assert shown.shape == (256, 256, 3)
    assert ((shown == (255, 193, 7)).all(axis=2)).mean() > 0.3  # hatched in amber: no glass, no tissue
    (said,) = [record.getMessage() for record in caplog.records]
    assert "tile 8 (row 1, column 2)" in said
    assert TILE.format(11, 2, 1) in said
    assert client.get(TILE.format(11, 1, 1)).status_code == 200  # the rest works
    assert client.get(TILE.format(11, 2, 1)).status_code == 500  # it is not kept as if it were the tile


def test_a_fault_of_our_own_is_an_error_tile_too(viewer, make_slide, caplog, monkeypatch):
    """Whatever is wrong, a page without the tile would show white glass."""

    def fails(*args, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr(slide_tiles, "thumbnail_jpeg", fails)
    answer = viewer(make_slide("a.tif")).get("/api/slides/a/thumbnail.jpg")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "image/png")
    assert "Traceback" in caplog.text


def test_a_slide_that_is_gone_is_an_error_tile(viewer, make_slide, caplog):
    path = make_slide("a.tif")
    client = viewer(path)
    assert client.get(TILE.format(11, 0, 0)).status_code == 200
    path.unlink()
    assert client.get(TILE.format(11, 1, 1)).status_code == 500
    assert "does not exist" in caplog.text


def test_thumbnails_fit_the_gallery(viewer, make_slide):
    answer = viewer(make_slide("a.tif")).get("/api/slides/a/thumbnail.jpg")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert pixels(answer).shape == (171, 256, 3)
