from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, gaussian_filter
from tests.dense.refining.test_morphology import blobs

from lamella.dense.refining.edges import smoothed_edges
from lamella.dense.refining.settings import EdgeSettings


def test_without_a_boundary_nothing_changes():
    labels = np.full((20, 30), 1, np.uint8)
    labels[:, 20:] = 255  # the end of what was looked at is no boundary
    assert (smoothed_edges(labels, 2, 0, EdgeSettings()) == labels).all()


def test_a_notch_and_a_tooth_go_and_the_straight_edge_stays():
    straight = np.zeros((40, 40), np.uint8)
    straight[:, 20:] = 1
    rough = straight.copy()
    rough[10, 18:20], rough[25, 20:22] = 1, 0
    for background in (None, 1):
        assert (smoothed_edges(rough, 2, background, EdgeSettings(threshold=0.5)) == straight).all()


def test_a_lower_threshold_gives_the_classes_more_than_the_background():
    disc = (np.hypot(*(np.indices((41, 41)) - 20)) > 6).astype(np.uint8)  # class 0 in background 1
    areas = [
        int((smoothed_edges(disc, 2, 1, EdgeSettings(threshold=share, sigma_px=3)) == 0).sum())
        for share in (0.3, 0.45, 0.5, 0.6)
    ]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] > areas[-1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1, 6), st.floats(0.5, 3), st.sampled_from([None, 3]))
def test_near_a_boundary_the_strongest_of_the_blurred_classes_wins_and_elsewhere_all_stays(seed, width, sigma, ground):
    labels = blobs(seed, 4, unseen=0.45)
    given_ = EdgeSettings(width_px=width, sigma_px=sigma, threshold=0.4)
    found = smoothed_edges(labels, 4, ground, given_)
    seen = labels != 255
    touching = np.zeros(labels.shape, bool)
    for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        other = np.full(labels.shape, 255, np.uint8)
        rows, columns = (slice(max(0, one), None if one >= 0 else one) for one in step)
        behind = tuple(slice(max(0, -one), None if one <= 0 else -one) for one in step)
        other[rows, columns] = labels[behind]
        touching |= (other != labels) & seen & (other != 255)
    near = np.zeros(labels.shape, bool)
    if touching.any():
        near = (distance_transform_edt(~touching) <= width) & seen
    assert (found[~near] == labels[~near]).all()
    blurred = np.stack(
        [
            gaussian_filter((labels == one).astype(float), sigma, mode="constant", radius=int(np.ceil(3 * sigma)))
            for one in range(4)
        ]
    )
    if ground is None:
        wanted = blurred.argmax(0)
        clear = np.sort(blurred, 0)[-1] - np.sort(blurred, 0)[-2] > 1e-5
    else:
        tissue = blurred[:3]
        wanted = np.where(tissue.sum(0) >= 0.4 * blurred.sum(0), tissue.argmax(0), 3)
        clear = (np.sort(tissue, 0)[-1] - np.sort(tissue, 0)[-2] > 1e-5) & (
            np.abs(tissue.sum(0) - 0.4 * blurred.sum(0)) > 1e-5
        )
    assert (found[near & clear] == wanted[near & clear]).all()
