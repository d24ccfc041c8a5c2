"""Coordinates of new slides: only what their tiles cover is labelled, and only if they are of this slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import textured, write_pyramid
from tests.verbs.weak_stages.tiny_prediction import MPP, SIDES, TILE_PX, ColourWeak, tiny_stage, write_slides

from lamella.errors import LamellaError, SlideError
from lamella.formats.named_tiles import write_named_tiles
from lamella.geometry import Frame
from lamella.verbs.weak_stages import prediction
from lamella.verbs.weak_stages.prediction_places import area_of_tiles

CORNERS = np.array([[32, 32], [64, 32], [96, 64]])
PLAIN = (
    "predict.refine.morphological_op=none",
    "predict.refine.min_component_size=0",
    "predict.refine.edge_refinement=false",
)


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> ColourWeak:
    found = ColourWeak()
    monkeypatch.setattr(prediction, "load_dense", lambda spec: found)
    return found


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write_slides(tmp_path / "new", 1)


def predict(tmp_path: Path, new: Path, coordinates: Path, *overrides: str) -> np.ndarray:
    given_so = (f"predict.coordinates={coordinates}", *PLAIN, *overrides)
    assert prediction.run_prediction(tiny_stage(tmp_path / "study", new, new, overrides=given_so)) == 0
    return np.asarray(Image.open(tmp_path / "study" / "out" / "predictions" / "s0" / "segmentation_mask.png"))


def covered(corners: np.ndarray) -> np.ndarray:
    wanted = np.zeros(SIDES, bool)
    for x, y in corners:
        wanted[max(0, y) : y + TILE_PX, max(0, x) : x + TILE_PX] = True
    return wanted


def named(path: Path, names: list[str], corners: np.ndarray, **changed) -> Path:
    path.parent.mkdir(exist_ok=True)
    count = len(corners)
    facts = {
        "tile_px": TILE_PX,
        "side_px0": np.full(count, TILE_PX),
        "tile_level": np.zeros(count, int),
        "read_px": np.full(count, TILE_PX),
    }
    write_named_tiles(path, names, corners, **{**facts, **changed})
    return path.parent


def test_only_what_the_tiles_cover_is_labelled(new, tmp_path):
    """Their places, not their pixels: the dense engine blends its own tiles, and shows whole ones at the edges."""
    np.save(tmp_path / "s0.npy", CORNERS)
    mask = predict(tmp_path, new, tmp_path / "s0.npy", "predict.place=corner")
    assert ((mask != 255) == covered(CORNERS)).all()


def test_centres_are_no_corners(new, tmp_path):
    np.save(tmp_path / "s0.npy", CORNERS)
    mask = predict(tmp_path, new, tmp_path / "s0.npy", "predict.place=centre")
    assert ((mask != 255) == covered(CORNERS - TILE_PX // 2)).all()


def test_a_bare_list_must_say_which(new, tmp_path):
    # Mistake of the source: centres and corners were mixed.
    np.save(tmp_path / "s0.npy", CORNERS)
    with pytest.raises(LamellaError, match="corners or centres"):
        predict(tmp_path, new, tmp_path / "s0.npy")
    assert not (tmp_path / "study" / "out" / "predictions" / "s0").exists()


@pytest.mark.parametrize("name", ["s0", "s0.tif"])
def test_names_with_and_without_extension_are_the_same_slide(new, tmp_path, name):
    # Mistake of the source: without the extension the patches were cut from the first slide listed.
    write_pyramid(new / "another.tif", textured(*SIDES, 7), mpp=MPP, levels=2)
    named(tmp_path / "given" / "s0.npy", [name] * 3, CORNERS)
    named(tmp_path / "given" / "another.npy", ["another"] * 3, CORNERS)
    mask = predict(tmp_path, new, tmp_path / "given")
    assert ((mask != 255) == covered(CORNERS)).all()


def test_the_level_that_tiles_were_read_at_is_honoured(new, tmp_path):
    # Mistake of the source: tile_level and micrometres per pixel were ignored. Read at level 1, half as fine, 16 px are
    # 32 level-0 pixels; taken as 16 of level 0 they would cover a quarter.
    level_1 = {"tile_level": np.ones(3, int), "read_px": np.full(3, TILE_PX // 2)}
    mask = predict(tmp_path, new, named(tmp_path / "given" / "s0.npy", ["s0"] * 3, CORNERS, **level_1))
    assert ((mask != 255) == covered(CORNERS)).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tile_level": np.full(3, 5)}, "it reads level 5 of slide s0, which has 2 levels"),
        ({"side_px0": np.full(3, 4 * TILE_PX), "read_px": np.full(3, 4 * TILE_PX)}, "um wide, the study's"),
        ({"side_px0": np.full(3, 2 * TILE_PX)}, "tile_size_lv0 is 64"),
    ],
)
def test_tiles_of_another_size_or_pyramid_are_refused(new, tmp_path, changed, words):
    folder = named(tmp_path / "given" / "s0.npy", ["s0"] * 3, CORNERS, **changed)
    with pytest.raises(LamellaError, match=words):
        predict(tmp_path, new, folder)


def test_coordinates_of_another_slide_are_refused(new, tmp_path):
    folder = named(tmp_path / "given" / "s0.npy", ["elsewhere"] * 3, CORNERS)
    with pytest.raises(LamellaError, match="no slide goes by this name"):
        predict(tmp_path, new, folder)
    write_pyramid(new / "s1.tif", textured(*SIDES, 7), mpp=MPP, levels=2)
    folder = named(tmp_path / "given" / "s0.npy", ["s1"] * 3, CORNERS)
    with pytest.raises(LamellaError, match="named after slide s0, but holds tiles of s1"):
        predict(tmp_path, new, folder)


def test_a_slide_without_coordinates_is_refused_with_those_that_fit_none(new, tmp_path):
    np.save(tmp_path / "s9.npy", CORNERS)
    with pytest.raises(LamellaError, match=r"no coordinates of s0.*s9\.npy"):
        predict(tmp_path, new, tmp_path / "s9.npy", "predict.place=corner")


def test_tiles_off_the_slide_are_refused_not_read_as_blank(new, tmp_path):
    # Mistake of the source: what could not be read became black pixels.
    np.save(tmp_path / "s0.npy", np.array([[32, 32], [5000, 32]]))
    with pytest.raises(LamellaError, match="1 of its 2 tiles lie off slide s0"):
        predict(tmp_path, new, tmp_path / "s0.npy", "predict.place=corner")


def test_a_slide_that_cannot_be_read_fails_alone_though_it_has_coordinates(new, tmp_path):
    (new / "torn.tif").write_bytes(b"II*\0torn")
    named(tmp_path / "given" / "s0.npy", ["s0"] * 3, CORNERS)
    stage = tiny_stage(tmp_path / "study", new, new, overrides=(f"predict.coordinates={tmp_path / 'given'}",))
    assert prediction.run_prediction(stage) == 1
    assert (tmp_path / "study" / "out" / "predictions" / "s0" / "metadata.json").is_file()


# ---- the area of tiles ----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-20, 400), st.integers(-20, 300)), max_size=8), st.integers(21, 90))
def test_every_level_0_pixel_is_in_the_area_exactly_if_a_tile_covers_it(places, side):
    frame = Frame(403, 305, 0.5, 0.25)
    area = area_of_tiles("file", "s", np.array(places).reshape(-1, 2), (side, side), frame)
    wanted = np.zeros((305, 403), bool)
    for x, y in places:
        wanted[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = True
    step = round(area.frame.mpp_x / 0.5)
    found = area.mask.repeat(step, 0).repeat(step, 1)[:305, :403]
    assert (found == wanted).all()
    assert area.frame.mpp_y == step * 0.25


def test_on_a_large_slide_edges_are_rounded_to_its_mask():
    frame = Frame(200_000, 90_000, 0.25, 0.25)
    corners = np.array([[1001, 2003], [150_000, 60_000]])
    area = area_of_tiles("file", "s", corners, (448, 448), frame)
    assert max(area.mask.shape) <= 4096
    shares = area.fractions(np.array([[*(corner * 0.25), *((corner + 448) * 0.25)] for corner in corners]))
    assert (shares > 0.85).all()
    assert area.mask.sum() * area.frame.mpp_x**2 == pytest.approx(2 * (448 * 0.25) ** 2, rel=0.15)


def test_the_area_of_a_tile_off_the_slide_is_refused():
    with pytest.raises(SlideError, match="lie off slide s of 403x305"):
        area_of_tiles("file", "s", np.array([[403, 0]]), (32, 32), Frame(403, 305, 0.5, 0.5))
