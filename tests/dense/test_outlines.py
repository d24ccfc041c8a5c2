from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from lamella.dense import outlines as module
from lamella.dense.outlines import Outline, OutlineTracer
from lamella.formats.ring_crossings import crossing_pairs
from lamella.slides.polygons import fill_polygon

CLASSES = ["a", "b", "c"]


def trace(
    labels: np.ndarray,
    heights: Sequence[int] = (),
    *,
    background: str | None = None,
    values: np.ndarray | None = None,
    simplify_px: float | None = None,
    min_area_px: int = 0,
) -> list[Outline]:
    tracer = OutlineTracer(CLASSES, background, simplify_px=simplify_px, min_area_px=min_area_px)
    found, y0 = [], 0
    for height in heights or [len(labels)]:
        band = slice(y0, y0 + height)
        found += list(tracer.add(y0, labels[band], None if values is None else values[band]))
        y0 += height
    return found + list(tracer.finish())


def filled(outline: Outline, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    fill_polygon(mask, outline.rings_px)
    return mask


def plain(outlines: list[Outline]) -> list[object]:
    return [(o.value, o.area_px, o.mean, [ring.tolist() for ring in o.rings_px]) for o in outlines]


def twice_area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def label_maps(side: int = 14) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(1, side), st.integers(1, side))
    return shapes.flatmap(lambda shape: hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 255])))


@st.composite
def cut_maps(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    labels = draw(label_maps())
    cuts = draw(st.sets(st.integers(1, len(labels)), max_size=4)) - {len(labels)}
    edges = [0, *sorted(cuts), len(labels)]
    return labels, [lower - upper for upper, lower in itertools.pairwise(edges)]


@settings(max_examples=80, deadline=None)
@given(label_maps(), st.sampled_from([None, 0.0]))
def test_filling_the_outlines_gives_the_label_map_again(labels: np.ndarray, simplify_px: float | None) -> None:
    again = np.full(labels.shape, 255, np.uint8)
    for outline in trace(labels, simplify_px=simplify_px):
        mask = filled(outline, labels.shape)
        assert mask.sum() == outline.area_px
        assert (again[mask] == 255).all()  # no pixel twice
        again[mask] = outline.value
    np.testing.assert_array_equal(again, labels)


@settings(max_examples=80, deadline=None)
@given(cut_maps(), st.sampled_from([None, 0.0, 2.0]))
def test_bands_change_neither_outlines_nor_their_order(
    cut: tuple[np.ndarray, list[int]], simplify_px: float | None
) -> None:
    labels, heights = cut
    values = np.random.default_rng(0).integers(0, 256, labels.shape, np.uint8)
    whole = trace(labels, values=values, simplify_px=simplify_px)
    assert plain(trace(labels, heights, values=values, simplify_px=simplify_px)) == plain(whole)


@settings(max_examples=60, deadline=None)
@given(label_maps())
def test_each_four_connected_piece_has_one_outline(labels: np.ndarray) -> None:
    outlines = trace(labels)
    for value in range(len(CLASSES)):
        pieces, count = ndimage.label(labels == value)
        own = [outline for outline in outlines if outline.value == value]
        assert len(own) == count
        for outline in own:  # one piece, and all of it
            numbers = np.unique(pieces[filled(outline, labels.shape)])
            assert len(numbers) == 1
            assert (pieces == numbers[0]).sum() == outline.area_px


@settings(max_examples=60, deadline=None)
@given(label_maps(), st.sampled_from([None, 0.0, 1.0, 4.0]))
def test_no_ring_crosses_or_touches_itself(labels: np.ndarray, simplify_px: float | None) -> None:
    for outline in trace(labels, simplify_px=simplify_px):
        for ring in outline.rings_px:
            assert len(np.unique(ring, axis=0)) == len(ring) >= 3
            assert len(crossing_pairs(ring, np.roll(ring, -1, axis=0), touching=True)) == 0
        starts = np.concatenate(outline.rings_px)
        ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in outline.rings_px])
        assert len(crossing_pairs(starts, ends)) == 0  # nor do two rings cross
        # The outer ring runs one way, holes the other: nothing else is in the polygon.
        assert twice_area(outline.rings_px[0]) > 0
        assert all(twice_area(hole) < 0 for hole in outline.rings_px[1:])


@settings(max_examples=60, deadline=None)
@given(label_maps())
def test_on_the_edges_of_pixels_the_area_is_exact(labels: np.ndarray) -> None:
    for outline in trace(labels, simplify_px=0):
        assert sum(map(twice_area, outline.rings_px)) == 2 * outline.area_px


@settings(max_examples=60, deadline=None)
@given(cut_maps())
def test_values_are_averaged_over_each_piece(cut: tuple[np.ndarray, list[int]]) -> None:
    labels, heights = cut
    values = np.random.default_rng(0).integers(0, 256, labels.shape, np.uint8)
    for outline in trace(labels, heights, values=values):
        assert outline.mean == pytest.approx(values[filled(outline, labels.shape)].mean())


def nested() -> np.ndarray:
    """A frame of 1 around a frame of 0 around a block of 1, and a second hole."""
    labels = np.full((9, 14), 1, np.uint8)
    labels[2:7, 2:7] = 0
    labels[3:6, 3:6] = 1
    labels[4, 4] = 2
    labels[3:5, 9:12] = 255
    return labels


@pytest.mark.parametrize("height", [1, 2, 9])
def test_holes_are_in_the_piece_around_them(height: int) -> None:
    labels = nested()
    heights = [height] * (9 // height) + ([9 % height] if 9 % height else [])
    outlines = trace(labels, heights, simplify_px=0)
    boxes = {
        (o.value, *o.rings_px[0].min(axis=0)): [tuple(hole.min(axis=0)) for hole in o.rings_px[1:]] for o in outlines
    }
    assert boxes == {
        (1, 0.0, 0.0): [(2.0, 2.0), (9.0, 3.0)],
        (0, 2.0, 2.0): [(3.0, 3.0)],
        (1, 3.0, 3.0): [(4.0, 4.0)],
        (2, 4.0, 4.0): [],
    }


def test_pixels_that_touch_at_a_corner_are_two_pieces() -> None:
    labels = np.array([[1, 0], [0, 1]], np.uint8)
    assert sorted((o.value, o.area_px) for o in trace(labels)) == [(0, 1), (0, 1), (1, 1), (1, 1)]


@pytest.mark.parametrize("simplify_px", [None, 0.0])
def test_a_piece_that_touches_itself_at_a_corner_is_one_valid_polygon(simplify_px: float | None) -> None:
    ring = np.array([[1, 1, 1], [1, 255, 1], [1, 1, 255]], np.uint8)  # the hole meets the outside at a corner
    (outline,) = trace(ring, simplify_px=simplify_px)
    assert len(outline.rings_px) == (2 if simplify_px == 0 else 1)
    np.testing.assert_array_equal(filled(outline, ring.shape), ring == 1)


def test_on_the_edges_of_pixels_a_rectangle_has_four_corners() -> None:
    labels = np.full((600, 40), 255, np.uint8)
    labels[3:590, 5:9] = 2
    (outline,) = trace(labels, [200] * 3, simplify_px=0)
    assert outline.rings_px[0].tolist() == [[5, 3], [9, 3], [9, 590], [5, 590]]
    assert (outline.name, outline.area_px, outline.mean) == ("c", 587 * 4, None)


def test_background_and_what_was_not_looked_at_have_no_outlines() -> None:
    labels = np.array([[0, 1, 255, 0, 2]], np.uint8)
    assert [outline.name for outline in trace(labels, background="a")] == ["b", "c"]


def test_small_pieces_are_left_out_with_their_holes() -> None:
    labels = nested()
    assert {o.area_px for o in trace(labels, min_area_px=16)} == {int((labels == 1).sum()) - 8, 16}


def test_a_line_one_pixel_wide_becomes_few_corners() -> None:
    labels = np.full((60, 60), 255, np.uint8)
    for number in range(50):
        labels[number + 3, number + 3 : number + 5] = 0
    exact, smooth = (trace(labels, simplify_px=simplify_px)[0].rings_px[0] for simplify_px in (0.0, None))
    assert len(exact) == 200
    assert len(smooth) < 10


@pytest.mark.parametrize("simplify_px", [1.0, 5.0])
def test_a_tolerance_is_kept_and_saves_corners(simplify_px: float) -> None:
    y, x = np.mgrid[:200, :200]
    labels = np.where((x - 100) ** 2 + (y - 100) ** 2 < 80**2, 0, 255).astype(np.uint8)
    (ring,) = trace(labels, simplify_px=simplify_px)[0].rings_px
    assert len(ring) < len(trace(labels)[0].rings_px[0]) / 2
    ends = np.roll(ring, -1, axis=0)
    along = np.linspace(0, 1, 50)[:, None, None]
    distance = np.hypot(*(ring + along * (ends - ring) - 99.5).reshape(-1, 2).T)
    assert np.abs(distance - 80).max() < simplify_px + 1.5  # pixels lie within 1.5 of the circle


def test_memory_is_bounded_on_noise_too(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    original = module.find_corners
    monkeypatch.setattr(module, "_CHANGES_AT_ONCE", 3000)
    monkeypatch.setattr(module, "find_corners", lambda labels: sizes.append(labels.size) or original(labels))
    labels = np.random.default_rng(0).integers(0, 3, (128, 200), np.uint8)
    halved = trace(labels)
    assert max(sizes) < 6000 < labels.size
    monkeypatch.undo()
    assert plain(halved) == plain(trace(labels))


def test_what_is_held_does_not_grow_with_the_rows_gone_by() -> None:
    tracer = OutlineTracer(CLASSES, "a")
    band = np.zeros((64, 300), np.uint8)
    band[10:50, ::7] = 1
    for number in range(40):
        assert len(list(tracer.add(64 * number, band))) == 43
        assert not tracer._chains
        assert not tracer._open.holes


def test_bands_out_of_order_or_of_another_width_or_class_are_refused() -> None:
    tracer = OutlineTracer(CLASSES, None)
    list(tracer.add(0, np.zeros((4, 5), np.uint8)))
    for y0, band in ((8, np.zeros((4, 5))), (4, np.zeros((4, 6))), (4, np.full((4, 5), 3))):
        with pytest.raises(ValueError, match=r"a band from row 8|a band of 6 columns|none of its 3 classes"):
            list(tracer.add(y0, band.astype(np.uint8)))
