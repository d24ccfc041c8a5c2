"""How much of each place is tissue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.data.tiny_expression import GRID, counts_of, full_rc, slide_of

from lamella.data.expression_tissue import disk_points, lattice_fractions, place_fractions, slide_tissue
from lamella.errors import EmptyTissueError, MaskMismatchError
from lamella.geometry import Frame
from lamella.slides.tissue import TissueSettings
from lamella.slides.tissue_map import TissueMap

FRAME = Frame(160, 160, 0.5, 0.5)


def left_half() -> TissueMap:
    mask = np.zeros((80, 80), bool)
    mask[:, :40] = True
    return TissueMap(mask, FRAME.resized(80, 80))


def test_shares_of_squares_and_disks() -> None:
    places = np.array([[20.0, 80.0], [80.0, 80.0], [140.0, 80.0], [84.0, 80.0], [-50.0, 80.0], [0.0, 0.0]])
    squares = place_fractions(left_half(), FRAME, places, 16.0, "bin")
    assert squares == pytest.approx([1, 0.5, 0, 0.375, 0, 0.25])
    disks = place_fractions(left_half(), FRAME, places, 16.0, "spot")
    # A segment of a circle cut at a quarter of its radius: (acos(q) - q sqrt(1 - q^2)) / pi.
    segment = (np.arccos(0.25) - 0.25 * np.sqrt(1 - 0.25**2)) / np.pi
    assert disks == pytest.approx([1, 0.5, 0, segment, 0, 0.25], abs=0.02)


def test_the_points_of_a_disk_are_even() -> None:
    points = disk_points(4000)
    radius = np.hypot(*points.T)
    assert radius.max() < 0.5
    assert (radius < 0.25).mean() == pytest.approx(0.25, abs=0.005)
    assert points.mean(axis=0) == pytest.approx([0, 0], abs=0.005)


def test_a_stretch_of_a_lattice_is_its_places() -> None:
    rc = full_rc(6, 9, row0=3, col0=-2)
    places = np.stack(GRID.place_px0(rc[:, 0].astype(float), rc[:, 1].astype(float)), axis=1)
    direct = place_fractions(left_half(), FRAME, places, 2.0, "bin").reshape(6, 9)
    assert lattice_fractions(left_half(), FRAME, GRID, (3, -2, 9, 7)) == pytest.approx(direct)


def test_counts_never_say_where_tissue_is(tmp_path: Path) -> None:
    """mistake: label-derived tissue mask."""
    half = np.zeros((160, 160), bool)
    half[:, :80] = True
    rich = slide_of(tmp_path, counts_of(np.full((4, 1), 99), full_rc(2, 2)), tissue=half)
    poor = slide_of(tmp_path, counts_of(np.zeros((4, 1), int), full_rc(2, 2)), tissue=half)
    masks = [slide_tissue(slide, TissueSettings()).mask for slide in (rich, poor)]
    assert (masks[0] == half).all()
    assert (masks[1] == half).all()


def test_without_a_mask_tissue_is_found_on_the_image(tmp_path: Path) -> None:
    picture = Image.new("RGB", (400, 400), (243, 241, 245))
    ImageDraw.Draw(picture).ellipse((100, 100, 300, 300), fill=(190, 90, 160))
    slide = slide_of(tmp_path, counts_of(np.ones((4, 1), int), full_rc(2, 2)), pixels=np.asarray(picture))
    (tmp_path / "s0_mask.png").unlink()
    found = slide_tissue(
        type(slide)(slide.slide_id, slide.wsi_path, slide.frame, slide.patient, slide.load), TissueSettings(mpp=2)
    )
    inside = place_fractions(found, slide.frame, np.array([[200.0, 200], [20, 20]]), 10, "bin")
    assert inside.tolist() == [1, 0]


def test_masks_that_show_nothing_or_do_not_fit(tmp_path: Path) -> None:
    counts = counts_of(np.ones((4, 1), int), full_rc(2, 2))
    with pytest.raises(EmptyTissueError, match="shows no tissue"):
        slide_tissue(slide_of(tmp_path, counts, tissue=np.zeros((160, 160), bool)), TissueSettings())
    with pytest.raises(MaskMismatchError, match="another aspect"):
        slide_tissue(slide_of(tmp_path, counts, name="wide", tissue=np.ones((160, 80), bool)), TissueSettings())
