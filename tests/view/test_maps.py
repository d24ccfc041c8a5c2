import numpy as np
import pytest
from PIL import Image

from lamella.slides.index import SlideIndex
from lamella.view.maps import TileFeatures, draw_feature_map, draw_scatter, pca_colours


def _clusters(seed: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    centres = np.random.default_rng(9).normal(0, 5, (3, 16))
    return centres[labels] + rng.normal(0, 0.3, (len(labels), 16)), labels


def test_like_tiles_get_like_colours_on_all_slides() -> None:
    (first, labels), (second, _) = _clusters(0, 20), _clusters(1, 20)
    colours = pca_colours([first, second])
    assert [part.shape for part in colours] == [(60, 3), (60, 3)]
    means = np.array([[part[labels == label].mean(axis=0) for label in range(3)] for part in colours])
    apart = min(np.linalg.norm(means[0, a] - means[0, b]) for a in range(3) for b in range(a))
    assert np.linalg.norm(means[0] - means[1], axis=1).max() < apart / 3
    assert 0 <= min(part.min() for part in colours) <= max(part.max() for part in colours) <= 1


def test_a_dimension_that_never_changes_does_no_harm() -> None:
    features, _ = _clusters(0, 5)
    features[:, 3] = 7.0
    assert np.isfinite(pca_colours([features])[0]).all()


def test_map_puts_each_tile_where_it_lies(study, tmp_path) -> None:
    slide = SlideIndex.load(study / "index").slides[0]
    tiles = TileFeatures(slide, np.array([[128, 256]]), 64.0, np.zeros((1, 4)))
    draw_feature_map(tiles, np.array([[1.0, 0.0, 0.0]]), tmp_path / "map.png")
    red = (np.asarray(Image.open(tmp_path / "map.png")) == (255, 0, 0)).all(axis=2)
    rows, columns = np.nonzero(red)
    left, top = 512 + 2 * 20, 34  # right panel: after the thumbnail of 512 px and two gaps
    assert (columns.min() - left, columns.max() - left + 1) == (128, 192)
    assert (rows.min() - top, rows.max() - top + 1) == (256, 320)


@pytest.mark.parametrize("per_class", [3, 12])
def test_scatter_is_drawn_for_few_and_for_more_tiles(tmp_path, per_class: int) -> None:
    features, labels = _clusters(0, per_class)
    groupings = {"class": [str(label) for label in labels], "site": ["a"] * len(labels)}
    draw_scatter(features, groupings, tmp_path / "scatter.png", title="features")
    with Image.open(tmp_path / "scatter.png") as image:
        assert image.width > 1.5 * image.height
