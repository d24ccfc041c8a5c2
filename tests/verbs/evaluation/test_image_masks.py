from __future__ import annotations

import numpy as np
from tests.data.made_labels import made_labels

from lamella.verbs.evaluation.image_masks import class_numbers


def test_ignored_area_is_no_background_for_the_heads_of_an_encoder() -> None:
    # Mistake of the source: ignored area as background.
    mask = np.array([[0, 1, 2, 255]])
    assert class_numbers(mask, made_labels({"a": mask})).tolist() == [[0, 1, 2, 255]]
