"""Tiles in a real browser: the file's own JPEG has its colours, and what cannot be read is seen as such."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.ui.conftest import until

from lamella.slides.slide import open_slide

pytestmark = pytest.mark.ui

READ = """async (address) => {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [image.width, ...context.getImageData(10, 10, 1, 1).data];
}"""
RED = (200, 40, 60)


@pytest.mark.parametrize(("coded", "tag"), [("ycbcr", 6), ("rgb", 2)])
def test_a_stored_jpeg_has_the_slides_colours_in_the_browser(page, serve_paths, tmp_path, coded, tag):
    """RGB in JPEG, as Aperio writes it, needs a marker, or a browser takes it for YCbCr."""
    pixels = np.full((256, 256, 3), RED, np.uint8)
    stream = imagecodecs.jpeg8_encode(pixels, level=95, outcolorspace=coded)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(
            iter([stream]),
            shape=(256, 256, 3),
            dtype=np.uint8,
            tile=(256, 256),
            photometric="rgb",
            compression="jpeg",
            resolution=(2e4, 2e4),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tiff:
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite(tag)
    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.stored_jpeg(slide.frame.bounds_px, 256, 256, slide.mpp)  # it is not coded anew
    page.goto(serve_paths(tmp_path / "a.tif"))
    width, *colour, opaque = page.evaluate(READ, "api/slides/a/tiles/8/0_0.jpg")
    assert (width, opaque) == (256, 255)
    assert np.abs(np.subtract(colour, RED)).max() <= 3


def test_what_cannot_be_read_is_hatched_in_the_viewer(page, serve_paths, make_slide):
    page.expected_faults.append("500 (Internal Server Error)")
    path = make_slide("a.tif", compression="deflate", levels=1)
    with tifffile.TiffFile(path) as tiff:
        at, count = tiff.pages.first.dataoffsets[8], tiff.pages.first.databytecounts[8]
    data = bytearray(path.read_bytes())
    data[at : at + count] = b"\x13" * count
    path.write_bytes(data)
    page.goto(serve_paths(path) + "slide/a")
    until(page, "globalThis.lamella?.viewer.world.getItemAt(0)")
    # Level-0 pixels one to one, the broken tile (512, 256) - (768, 512) in the middle.
    page.evaluate("""() => {
        const viewport = lamella.viewer.viewport;
        viewport.fitBounds(viewport.imageToViewportRectangle(384, 128, 512, 512), true);
    }""")
    until(page, "lamella.viewer.world.getItemAt(0).getFullyLoaded()")
    page.wait_for_timeout(300)
    shot = Image.open(io.BytesIO(page.locator("#viewer").screenshot())).convert("RGB")
    scale = page.evaluate("lamella.viewer.viewport.viewportToImageZoom(lamella.viewer.viewport.getZoom())")
    middle, half = np.array(shot.size) / 2, 120 * scale
    pixels = np.asarray(shot.crop((*(middle - half), *(middle + half))))
    assert (np.abs(pixels.astype(int) - (255, 193, 7)).max(axis=2) < 12).mean() > 0.2
    beside = np.asarray(shot)[int(middle[1]), int(middle[0] + 180 * scale)]
    assert np.abs(beside.astype(int) - (255, 193, 7)).max() > 40
