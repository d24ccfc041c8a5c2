from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import SlideError
from lamella.formats.placed_tiles import PlacedTiles
from lamella.geometry import Frame
from lamella.slides.grid import tile_table
from lamella.slides.placing import Stated, from_table, settle, slide_of, slides_by_name, stem, to_table

FRAME = Frame(4000, 3000, 0.2528, 0.2528)


@dataclass(frozen=True)
class Slide:
    slide_id: str = "a"
    wsi_path: Path = Path("slides/a-scan.svs")
    frame: Frame = FRAME


A, B = Slide(), Slide("b", Path("slides/b-scan.svs"))


def tiles_of(**fields: object) -> PlacedTiles:
    given = {"source": Path("a.h5"), "name": "a", "places_px0": np.array([[0, 0], [1000, 2500]])}
    return PlacedTiles(**{**given, "side_px0": 443.0, "tile_px": 224, **fields})


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.h5", "a"),
        ("a_patches.h5", "a"),
        ("a.b.h5", "a.b"),
        ("a.coordinates.npz", "a"),
        ("a.geojson", "a"),
        ("a.geojson.gz", "a"),
        ("a.npy", "a"),
    ],
)
def test_a_file_is_named_after_its_slide(file: str, name: str) -> None:
    assert stem(Path("folder") / file) == name


@pytest.mark.parametrize(
    ("file", "inside"), [("a.h5", "a"), ("a.h5", "a-scan"), ("a-scan.h5", "a-scan"), ("x.h5", "a")]
)
def test_a_slide_is_found_by_the_files_name_or_the_name_inside(file: str, inside: str) -> None:
    assert slide_of(tiles_of(source=Path(file), name=inside), slides_by_name([B, A])) is A


@pytest.mark.parametrize("inside", ["b", "c"])
def test_a_file_of_another_slide_is_refused_and_both_are_named(inside: str) -> None:
    with pytest.raises(SlideError, match=rf"a\.h5: .*slide a, .*{inside}"):
        slide_of(tiles_of(name=inside), slides_by_name([A, B]))


def test_a_file_name_that_two_slides_share_names_none() -> None:
    one, other = Slide("p1", Path("p1/scan.svs")), Slide("p2", Path("p2/scan.svs"))
    assert set(slides_by_name([one, other])) == {"p1", "p2"}
    assert slides_by_name([one, Slide("scan", Path("x.svs"))])["scan"].slide_id == "scan"  # a slide_id goes first


def test_an_unknown_slide_is_refused() -> None:
    with pytest.raises(SlideError, match="no slide z"):
        slide_of(tiles_of(source=Path("z.h5"), name="z"), slides_by_name([A, B]))


def test_the_slides_own_micrometres_are_used() -> None:
    table = to_table(settle(tiles_of(), A, Stated()))
    assert table.column("fov_um").to_pylist() == pytest.approx([443 * 0.2528] * 2)
    assert table.column("mpp").to_pylist() == pytest.approx([443 * 0.2528 / 224] * 2)
    assert table.column("slide_id").to_pylist() == ["a", "a"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"level0_size_px": (4000, 3001)}, r"a\.h5: .*4000x3001 pixels, slide a has 4000x3000"),
        ({"level0_mpp": 0.5}, r"a\.h5: .*0\.5 um .*slide a 0\.2528"),
        ({"places_px0": np.array([[0, 0], [4000, 0]])}, r"a\.h5: 1 of its 2 tiles lie off slide a .*tile 1 at 4000, 0"),
        ({"places_px0": np.array([[0, -443]])}, r"lie off"),
        ({"side_px0": None}, r"how large its tiles are.*mpp="),
        ({"place": None}, r"corners or centres.*place=corner"),
        ({"place": "centre", "side_px0": None, "tile_px": None}, r"how large"),
    ],
)
def test_what_does_not_fit_the_slide_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(SlideError, match=says):
        settle(tiles_of(**fields), A, Stated())


def test_a_tile_that_reaches_over_the_edge_is_kept() -> None:
    assert len(settle(tiles_of(places_px0=np.array([[3999, 2999], [-442, 0]])), A, Stated())) == 2


def test_what_the_user_states_counts_only_where_the_file_is_silent() -> None:
    stated = Stated(mpp=0.5056, tile_px=100, place="centre")
    spoken = settle(tiles_of(), A, stated)
    assert (spoken.side, spoken.pixels) == (443, 224)
    assert np.array_equal(spoken.places_px0, tiles_of().places_px0)
    silent = settle(tiles_of(side_px0=None, tile_px=None, place=None), A, stated)
    assert (silent.side, silent.pixels) == (pytest.approx(200), 100)
    assert silent.places_px0.tolist() == [[-100, -100], [900, 2400]]


def test_rectangles_are_read_at_the_stated_mpp() -> None:
    assert settle(tiles_of(tile_px=None), A, Stated(mpp=0.5)).pixels == round(443 * 0.2528 / 0.5)


def test_a_file_that_knows_its_micrometres_needs_no_slide() -> None:
    assert settle(tiles_of(level0_mpp=0.25), None, Stated()).mpp == 443 * 0.25 / 224


@settings(max_examples=60, deadline=None)
@given(
    corners=st.lists(st.tuples(st.floats(0, 3999), st.floats(0, 2999)), min_size=1, max_size=5),
    tile_px=st.integers(8, 1024),
    mpp=st.floats(0.1, 4),
)
def test_a_table_comes_back_from_level_0_pixels(corners: list[tuple[float, float]], tile_px: int, mpp: float) -> None:
    table = tile_table("a", np.array(corners), tile_px * mpp, mpp).append_column(
        "tissue_fraction", pa.array(np.linspace(0, 1, len(corners)))
    )
    back = to_table(from_table(Path("t.csv"), table, A))
    assert back.column_names == table.column_names
    for name in table.column_names[1:]:
        assert back.column(name).to_numpy() == pytest.approx(table.column(name).to_numpy())


def test_tiles_of_several_sizes_have_no_place_in_the_others_formats() -> None:
    table = pa.concat_tables([tile_table("a", np.zeros((1, 2)), fov_um, 0.5) for fov_um in (112, 56)])
    with pytest.raises(SlideError, match="56 to 112 um"):
        from_table(Path("t.csv"), table, A)
