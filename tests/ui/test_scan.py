"""Volumes and films in a real browser: linked planes, right proportions, sliders by keys, masks, windows, playing."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image
from tests.ui.conftest import until

pytestmark = pytest.mark.ui

X, Y, Z = 40, 50, 20
SPACING_MM = (1.0, 2.0, 4.0)
MARK = (30, 10, 15)  # the one bright voxel, and the mask


@pytest.fixture
def scans(tmp_path):
    values = np.random.default_rng(0).uniform(0, 50, (X, Y, Z)).astype(np.float32)
    values[MARK] = 200
    mask = np.zeros((X, Y, Z), np.int16)
    mask[MARK] = 1
    affine = np.diag([*SPACING_MM, 1.0])
    folder = tmp_path / "scans"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(values, affine), folder / "case_t1.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), folder / "case_mask.nii.gz")
    shades = [Image.new("RGB", (60, 40), (40 * number, 60, 200)) for number in range(6)]
    shades[0].save(folder / "beat.gif", save_all=True, append_images=shades[1:], duration=40)
    return folder


def shown(page, plane, kind="values"):
    """The address that a plane's picture shows, once it is loaded."""
    picture = f"document.querySelector('.{plane} .{kind}')"
    until(page, f"{picture}.complete && {picture}.naturalWidth")
    return page.evaluate(f"{picture}.src")


def colour(page, picture, column, row):
    """The colour of a pixel of an <img>, by its own pixels."""
    return page.evaluate(
        """([picture, column, row]) => {
          const image = document.querySelector(picture);
          const canvas = Object.assign(document.createElement("canvas"),
            {width: image.naturalWidth, height: image.naturalHeight});
          const context = canvas.getContext("2d");
          context.drawImage(image, 0, 0);
          return [...context.getImageData(column, row, 1, 1).data];
        }""",
        [picture, column, row],
    )


def test_planes_are_linked_and_in_proportion(page, serve_paths, scans):
    page.goto(serve_paths(scans) + "scan/case_t1")
    until(page, "document.getElementById('value').textContent.includes('label 1')")  # it begins where the mask is
    assert [page.evaluate(f"document.getElementById('at-{axis}').value") for axis in "xyz"] == [str(at) for at in MARK]
    boxes = {name: page.locator(f".{name} .picture").bounding_box() for name in ("axial", "coronal", "sagittal")}
    x_mm, y_mm, z_mm = (count * step for count, step in zip((X, Y, Z), SPACING_MM, strict=True))
    for name, ratio in (("axial", x_mm / y_mm), ("coronal", x_mm / z_mm), ("sagittal", y_mm / z_mm)):
        assert boxes[name]["width"] / boxes[name]["height"] == pytest.approx(ratio, rel=0.02)
    scales = [boxes["axial"]["width"] / x_mm, boxes["coronal"]["height"] / z_mm, boxes["sagittal"]["width"] / y_mm]
    assert max(scales) / min(scales) < 1.02
    # A click on the axial plane moves the other two: a quarter from its left edge is three quarters to the right.
    page.mouse.click(boxes["axial"]["x"] + boxes["axial"]["width"] * 0.26, boxes["axial"]["y"] + 5)
    until(page, "document.getElementById('said-x').textContent === '30 of 40'")
    assert page.locator("#said-y").text_content() == "50 of 50"  # the front
    assert "/planes/x/29" in shown(page, "sagittal")


def test_a_known_voxel_has_its_value_and_its_mask(page, serve_paths, scans):
    page.goto(serve_paths(scans) + "scan/case_t1")
    page.get_by_label("From black to white").select_option("own")
    page.get_by_label("White at").fill("200")
    page.get_by_label("Black at").fill("0")
    until(page, "document.querySelector('.axial .values').src.includes('low=0&high=200')")
    shown(page, "axial")
    column, row = X - 1 - MARK[0], Y - 1 - MARK[1]
    assert colour(page, ".axial .values", column, row)[0] == 255
    assert colour(page, ".axial .values", column + 1, row)[0] <= 64
    shown(page, "axial", "mask")
    assert colour(page, ".axial .mask", column, row) == [230, 159, 0, 255]
    assert colour(page, ".axial .mask", column + 1, row)[3] == 0
    page.get_by_label("Opacity").fill("0.2")
    until(page, "getComputedStyle(document.querySelector('.axial .mask')).opacity === '0.2'")
    page.get_by_label("Shown", exact=True).select_option("none")
    until(page, "getComputedStyle(document.querySelector('.axial .mask')).opacity === '0'")


def test_by_keys_alone(page, serve_paths, scans):
    page.goto(serve_paths(scans) + "scan/case_t1")
    shown(page, "axial")
    for _ in range(9):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "at-z":
            break
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.axial .values').src.includes('/planes/z/16')")
    page.keyboard.press("Home")
    until(page, "document.getElementById('said-z').textContent === '1 of 20'")
    until(page, "document.getElementById('value').textContent.startsWith('voxel 30 10 0,')")


def test_a_film_plays_and_stops(page, serve_paths, scans):
    page.goto(serve_paths(scans) + "scan/beat")
    page.get_by_role("button", name="Play").click()
    until(page, "document.getElementById('at-fourth').value === '3'")
    page.get_by_role("button", name="Play").click()
    page.get_by_label("Frame").fill("5")
    until(page, "document.querySelector('.values').src.includes('/frames/5')")
    until(page, "document.querySelector('.values').complete")
    assert abs(colour(page, ".film .values", 30, 20)[0] - 200) < 8
    assert page.locator("#said-fourth").text_content() == "6 of 6, 0.20 s"
    page.wait_for_timeout(200)
    assert page.evaluate("document.getElementById('at-fourth').value") == "5"


def test_a_plane_that_fails_says_why(page, serve_paths, scans):
    page.expected_faults.append("400")
    page.goto(serve_paths(scans) + "scan/case_t1")
    page.get_by_label("From black to white").select_option("own")
    page.get_by_label("White at").fill("-7")
    until(page, "document.getElementById('status').textContent.includes('is not below white')")
