import numpy as np
import pytest
from PIL import Image

from lamella.data.augment import StainSettings
from lamella.data.cross import CrossDataSettings, CrossSamples
from lamella.slides.anchors.catalogue import Catalogue
from lamella.view.flow import flow_image, panels, write_gif, zoom_image
from lamella.view.marks import colour

SIDE = 256  # 4 px for a micrometre of the 64 um context


@pytest.fixture(scope="module")
def drawn(study):
    catalogue = Catalogue.load(study / "anchors")
    samples = CrossSamples(catalogue, CrossDataSettings(stain=StainSettings(enabled=False)), seed=0)
    sample = samples.sample(0)
    slide = catalogue.index[sample.slide_id]
    with slide.open() as opened:
        thumbnail = opened.thumbnail(512)
    samples.close()
    return sample, panels(sample, slide, thumbnail, SIDE)


def test_five_steps_of_one_size(drawn) -> None:
    _, steps = drawn
    assert [step.image.size for step in steps] == [(SIDE, SIDE)] * 5
    assert "64 µm" in steps[1].facts[0]
    assert "1 µm/px" in steps[1].facts[0]
    assert "0.5 µm/px" in steps[3].facts[0]


def test_dropped_tokens_do_not_show_the_context_and_kept_ones_do(drawn) -> None:
    sample, steps = drawn
    context = np.asarray(Image.fromarray(sample.context).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(int)
    shown = np.asarray(steps[4].image).astype(int)
    token = SIDE // 8
    kept = np.zeros((8, 8), bool)
    kept.flat[sample.footprint.keep] = True
    touched = np.zeros((8, 8), bool)
    for tokens in sample.footprint.touched:
        touched.flat[tokens] = True
    np.testing.assert_array_equal(kept, ~touched)
    for row, column in np.ndindex(8, 8):
        inner = np.s_[row * token + 4 : (row + 1) * token - 4, column * token + 4 : (column + 1) * token - 4]
        same = np.abs(shown[inner] - context[inner]).max(axis=2) == 0
        # Tissue may by chance have the colour of the cover in a pixel or two.
        assert same.mean() > 0.9 if kept[row, column] else same.mean() < 0.1, (row, column)


def test_queries_lie_at_the_target_tokens_in_the_targets_colour(drawn) -> None:
    sample, steps = drawn
    shown = np.asarray(steps[4].image)
    per_side = sample.targets.shape[1] // sample.sampling.patch_px
    last = len(sample.boxes_um) - 1  # drawn on top of the others
    x0, y0, x1, y1 = sample.boxes_um[last] * SIDE / 64
    for row, column in np.ndindex(per_side, per_side):
        x = x0 + (column + 0.5) * (x1 - x0) / per_side
        y = y0 + (row + 0.5) * (y1 - y0) / per_side
        assert tuple(shown[int(y), int(x)]) == colour(last)


def test_a_target_keeps_its_colour_in_all_panels(drawn) -> None:
    sample, steps = drawn
    for number in range(len(sample.targets)):
        for step in steps[2:]:
            assert (np.asarray(step.image) == colour(number)).all(axis=2).any(), (number, step.title)


def test_reveal_leaves_later_steps_empty(drawn) -> None:
    _, steps = drawn
    whole, first = (np.asarray(flow_image(steps, "slide", shown)) for shown in (None, 1))
    assert whole.shape == first.shape
    width = whole.shape[1]
    np.testing.assert_array_equal(whole[:, : width // 6], first[:, : width // 6])
    assert (first[:, width // 4 :] < 200).mean() < 0.001


def test_zoom_shows_four_steps_two_by_two(drawn) -> None:
    _, steps = drawn
    image = zoom_image(steps, "slide")
    assert 2 * SIDE < image.width < 3 * SIDE
    assert 2 * SIDE < image.height < 3 * SIDE


def test_gif_reveals_one_step_a_frame(drawn, tmp_path) -> None:
    _, steps = drawn
    write_gif(steps, "slide", tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5
        ink = []
        for frame in range(5):
            gif.seek(frame)
            ink.append((np.asarray(gif.convert("L")) < 250).mean())
    assert ink == sorted(ink)
    assert ink[-1] > 2 * ink[0]
