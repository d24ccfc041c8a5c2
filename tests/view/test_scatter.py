"""Items that are alike lie together; what cannot be laid out is refused."""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from lamella.errors import LamellaError, MissingExtraError
from lamella.view import scatter
from lamella.view.marks import colour
from lamella.view.scatter import ScatterSettings, draw_places, lay_out


@pytest.fixture(scope="module")
def clusters() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    return 5 * rng.normal(size=(3, 12))[labels] + rng.normal(size=(60, 12)), labels


@pytest.fixture(scope="module")
def places(clusters):
    return lay_out(clusters[0], ScatterSettings())


def test_neighbours_keep_their_class_and_the_seed_decides(clusters, places) -> None:
    features, labels = clusters
    assert KNeighborsClassifier(3).fit(places.xy, labels).score(places.xy, labels) > 0.95
    assert places.method == "t-SNE, perplexity 15, seed 0"  # a quarter of 60
    np.testing.assert_array_equal(lay_out(features, ScatterSettings()).xy, places.xy)


def test_no_more_items_than_asked_for_are_shown(clusters) -> None:
    found = lay_out(clusters[0], ScatterSettings(most_items=30, perplexity=5))
    assert found.xy.shape == (30, 2)
    assert len(set(found.rows)) == 30
    assert found.method == "t-SNE, perplexity 5, seed 0"


def test_too_few_or_equal_features_are_refused(clusters) -> None:
    with pytest.raises(LamellaError, match="9 items are too few"):
        lay_out(clusters[0][:9], ScatterSettings())
    with pytest.raises(LamellaError, match="all features are alike"):
        lay_out(np.ones((20, 4)), ScatterSettings())


def test_umap_that_is_not_installed_is_named(clusters, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"lamella\[umap\]"):
        lay_out(clusters[0], ScatterSettings(name="umap"))


def test_the_legend_counts_what_is_shown(clusters, places, tmp_path, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(scatter, "save_figure", lambda figure, path: seen.append(figure))
    names = [None if label == 2 else f"class {label}" for label in clusters[1]]
    draw_places(places, names, tmp_path / "a.png", title="Features")
    legend = [text.get_text() for text in seen[0].axes[0].get_legend().get_texts()]
    assert legend == ["no label (20)", "class 0 (20)", "class 1 (20)"]
    texts = " ".join(text.get_text() for text in seen[0].texts)
    assert "60 items; t-SNE, perplexity 15" in texts
    assert "distances between groups" in texts
    plt.close(seen[0])


def test_classes_beyond_the_palette_get_another_shape(places, tmp_path) -> None:
    draw_places(places, [f"{row % 9}" for row in range(60)], tmp_path / "a.png", title="Features")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    for number in range(7):
        assert (np.abs(pixels - colour(number)).max(axis=1) < 50).sum() > 20, number
