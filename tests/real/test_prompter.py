"""The viewer's prompts with SAM 2's real weights: glands that pathologists outlined, from boxes and from clicks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lamella.geometry import Box
from lamella.slides.polygons import fill_polygon
from lamella.slides.slide import open_slide
from lamella.verbs.viewing.prompter import make_prompter

WEIGHTS = "weights/sam2_hiera_tiny_image_fp16.safetensors"


@pytest.fixture(scope="module")
def prompter(real_data):
    return make_prompter(f"sam2-hiera-tiny@{real_data / WEIGHTS}", "cpu")


def drawn(features, shape) -> np.ndarray:
    """The mask of features over level 0."""
    mask = np.zeros(shape, bool)
    for feature in features:
        kind, coordinates = feature["geometry"]["type"], feature["geometry"]["coordinates"]
        for rings in coordinates if kind == "MultiPolygon" else [coordinates]:
            fill_polygon(mask, [np.array(ring, float) for ring in rings])
    return mask


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_boxes_outline_glands_in_one_view_and_a_click_corrects(real_data, prompter):
    folder = real_data / "segmentation/glas"
    labels, count = ndimage.label(np.array(Image.open(folder / "masks/train_1.png")) > 0)
    found = []
    with open_slide(folder / "images/train_1.jpg", mpp=0.62) as slide:
        whole = slide.frame.bounds_px
        for y, x in ndimage.find_objects(labels):
            answer = prompter.ask(slide, whole, [Box(x.start, y.start, x.stop, y.stop)], [], [])
            found.append(drawn(answer.features, labels.shape))
        assert (prompter.cache.passes, count) == (1, 7)  # one view for all of them
        scores = [dice(mask, labels == number) for number, mask in enumerate(found, 1)]
        assert np.median(scores) > 0.85, scores
        # A click on the worst one's largest miss or excess makes it better.
        worst = int(np.argmin(scores))
        truth = labels == worst + 1
        y, x = ndimage.find_objects(labels)[worst]
        wrong = ndimage.distance_transform_edt(np.pad(found[worst] != truth, 1))[1:-1, 1:-1]
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        click = [(column + 0.5, row + 0.5)]
        signs = (click, []) if truth[row, column] else ([], click)
        corrected = prompter.ask(slide, whole, [Box(x.start, y.start, x.stop, y.stop)], *signs)
        assert corrected.known_view
        assert dice(drawn(corrected.features, labels.shape), truth) > scores[worst]
