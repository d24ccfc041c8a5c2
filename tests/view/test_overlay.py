import numpy as np
from PIL import Image

from lamella.geometry import Frame
from lamella.slides.anchors.sampling import CrossSampling
from lamella.slides.index import SlideIndex
from lamella.slides.tissue_map import TissueMap
from lamella.view.overlay import draw_anchor_overlay, tissue_edge

SAMPLING = CrossSampling(context_fov_um=64, target_fov_um=16, patch_px=8, target_margin_um=0)


def test_overlay_marks_the_anchor_and_leaves_the_rest(study, tmp_path) -> None:
    slide = SlideIndex.load(study / "index").slides[0]
    bare, marked = tmp_path / "bare.png", tmp_path / "marked.png"
    draw_anchor_overlay(slide, np.zeros((0, 2)), SAMPLING, bare)
    draw_anchor_overlay(slide, np.array([[256.0, 256.0]]), SAMPLING, marked)
    before, after = (np.asarray(Image.open(path)).astype(int) for path in (bare, marked))
    assert before.shape == after.shape
    changed = np.abs(before - after).max(axis=2) > 0
    left, top = 24, before.shape[0] - 24 - 512  # the thumbnail is the slide at its 512 px, in a margin of 24
    rows, columns = np.nonzero(changed[top + 10 : -24, left + 10 : -24])
    # 64 um around the centre are 128 px: from 192 to 320.
    assert (rows.min() + 10, columns.min() + 10) == (192, 192)
    assert abs(rows.max() + 10 - 319) <= 1
    assert abs(columns.max() + 10 - 319) <= 1


def test_tissue_edge_is_where_tissue_ends() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:8, 3:9] = True
    frame = Frame(10, 10, 4.0, 4.0)
    edge = tissue_edge(TissueMap(mask, frame), frame)
    inside = np.zeros((10, 10), bool)
    inside[3:7, 4:8] = True
    np.testing.assert_array_equal(edge, mask & ~inside)


def test_tissue_that_fills_the_slide_is_outlined_at_its_edge() -> None:
    frame = Frame(6, 6, 4.0, 4.0)
    edge = tissue_edge(TissueMap(np.ones((6, 6), bool), frame), frame)
    assert edge.sum() == 20
    assert not edge[1:-1, 1:-1].any()
