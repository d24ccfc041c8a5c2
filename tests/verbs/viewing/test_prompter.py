"""The viewer's prompts: views that are known again, answers in level-0 pixels, and prompts that are refused."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.tiny_sam2 import SIDE_PX, tiny_sam2

from lamella.errors import LamellaError
from lamella.formats.geojson import as_feature
from lamella.geometry import Box, Frame
from lamella.models.prompts import PromptError
from lamella.slides.slide import open_slide
from lamella.verbs.viewing.prompter import SamPrompter, snapped_view

REGION = Box(300, 200, 500, 330)


@pytest.fixture
def slide(make_slide):
    with open_slide(make_slide("a.tif")) as slide:
        yield slide


@pytest.fixture(scope="module")
def model():
    return tiny_sam2()


@settings(deadline=None, max_examples=60)
@given(
    x=st.floats(-50, 1900),
    y=st.floats(-50, 900),
    width=st.floats(1, 2100),
    height=st.floats(1, 1100),
    mpp_y=st.sampled_from([0.25, 0.5]),
)
def test_a_view_holds_what_is_seen_and_is_not_much_larger(x, y, width, height, mpp_y):
    frame = Frame(2000, 1000, 0.25, mpp_y)
    region = Box(x, y, x + width, y + height)
    seen = region.intersection(frame.bounds_px)
    if seen.width <= 0 or seen.height <= 0:
        with pytest.raises(LamellaError, match="nothing of the slide"):
            snapped_view(region, frame, SIDE_PX)
        return
    view = snapped_view(region, frame, SIDE_PX)
    assert view.box_px0.contains(seen, slack=1)  # views begin on whole pixels
    assert frame.bounds_px.contains(view.box_px0)
    view_um, seen_um = frame.box_um(view.box_px0), frame.box_um(seen)
    most_um = max(max(seen_um.width, seen_um.height) * 4 / 3 * 2**0.5, SIDE_PX * frame.mpp / 4)
    assert max(view_um.width, view_um.height) <= most_um + 1
    assert max(view.width_px, view.height_px) <= SIDE_PX + 1


def test_a_small_pan_meets_a_known_view(slide, model):
    prompter = SamPrompter(model)
    first = prompter.ask(slide, REGION, [Box(350, 230, 420, 300)], [], [])
    again = prompter.ask(slide, REGION.shifted(-3, 5), [], [(400.0, 260.0)], [(460.0, 300.0)])
    far = prompter.ask(slide, REGION.shifted(500, 0), [], [(900.0, 260.0)], [])
    assert (first.known_view, again.known_view, far.known_view) == (False, True, False)
    assert first.view_px0 == again.view_px0 != far.view_px0
    assert prompter.cache.passes == 2


def test_a_region_is_made_ready_before_it_is_asked_about(slide, model):
    prompter = SamPrompter(model)
    ready = prompter.ask(slide, REGION, [], [], [])
    assert (list(ready.features), ready.known_view) == ([], False)
    assert prompter.ask(slide, REGION, [], [(400.0, 260.0)], []).known_view


def test_an_answer_lies_where_its_mask_lies(slide, monkeypatch, model):
    """The mask of the view goes through the same corners: what is drawn on the slide fills to the mask again."""
    from lamella.slides.polygons import fill_polygon
    from lamella.verbs.prompting import answers

    kept = []
    tidied = answers.tidied
    monkeypatch.setattr(answers, "tidied", lambda mask, share: kept.append(tidied(mask, share)) or kept[-1])
    answer = SamPrompter(model).ask(slide, REGION, [Box(350, 230, 420, 300)], [], [])
    (feature,) = answer.features
    x0, y0, x1, _ = answer.view_px0
    view_per_px0 = kept[0].shape[1] / (x1 - x0)
    geometry = feature["geometry"]
    polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    drawn = np.zeros(kept[0].shape, bool)
    for polygon in polygons:
        fill_polygon(drawn, [(np.array(ring) - [x0, y0]) * view_per_px0 for ring in polygon])
    assert kept[0].any()
    assert (drawn != kept[0]).mean() < 0.01  # corners are written to a hundredth of a level-0 pixel


def test_the_same_prompt_gets_the_same_answer_from_every_thread(slide, model):
    prompter = SamPrompter(model)
    asked = [(REGION, [Box(350, 230, 420, 300)]), (REGION.shifted(600, 0), [Box(950, 230, 1020, 300)])]
    alone = [SamPrompter(model).ask(slide, region, boxes, [], []).features for region, boxes in asked]
    found: dict[int, object] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: prompter.ask(slide, *asked[n % 2], [], []).features}))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == alone * 3


@pytest.mark.parametrize(
    ("boxes", "positives", "negatives", "cause"),
    [
        ([], [], [(400.0, 260.0)], "says only what is not the object"),
        ([Box(350, 230, 350, 300)], [], [], "no area"),
        ([Box(1350, 830, 1400, 900)], [], [], "no area on the slide in view"),
        ([], [(1400.0, 900.0)], [], "outside"),
        ([Box(350, 230, 420, 300)] * 2, [], [], "2 boxes"),
    ],
)
def test_prompts_without_an_answer_are_refused(slide, model, boxes, positives, negatives, cause):
    with pytest.raises(PromptError, match=cause):
        SamPrompter(model).ask(slide, REGION, boxes, positives, negatives)


def test_nothing_seen_is_no_feature(slide, model, monkeypatch):
    from lamella.verbs.prompting import answers

    monkeypatch.setattr(answers, "tidied", lambda mask, share: np.zeros_like(mask))
    assert list(SamPrompter(model).ask(slide, REGION, [], [(400.0, 260.0)], []).features) == []


def test_an_empty_object_is_no_feature():
    from lamella.formats.geojson import GeoObject

    with pytest.raises(LamellaError, match="no geometry"):
        as_feature(GeoObject(), "the answer")
