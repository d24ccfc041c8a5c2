"""The address of prompts: what reaches the model, what comes back, and what is refused in words."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from lamella.errors import LamellaError
from lamella.geometry import Box
from lamella.view.server.annotations.store import AnnotationStore
from lamella.view.server.app import make_app
from lamella.view.server.catalogue.items import Catalogue, SlideItem
from lamella.view.server.prompts import PromptAnswer
from lamella.view.server.safety import Safety
from lamella.view.server.served import Served
from lamella.view.server.slide_pool import SlidePool
from lamella.view.server.tile_memory import TileMemory

GOOD = {"region": [0, 0, 400, 300], "boxes": [[10, 20, 30, 40]], "positives": [[15, 25]], "negatives": [[200, 250.5]]}
OWN = {"content-type": "application/json", "x-lamella": "1"}


class Recorder:
    """A prompter that answers one square and keeps what it was asked."""

    name = "recorder"

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    def ask(self, slide, region_px0, boxes_px0, positives_px0, negatives_px0) -> PromptAnswer:
        self.asked.append((slide.frame.width_px, region_px0, boxes_px0, positives_px0, negatives_px0))
        if not positives_px0 and not boxes_px0:
            raise LamellaError("the prompt", "there is none", "Click.")
        return PromptAnswer(
            [{"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 2]}}],
            0.75,
            False,
            0.5,
            (0.0, 0.0, 512.0, 512.0),
        )


@pytest.fixture
def asking(make_slide, tmp_path):
    """asking(prompter, body, slide="a") -> answer."""

    def ask(prompter, body, slide="a", **more):
        items = {"a": SlideItem("a", "a", make_slide("a.tif"))}
        store = AnnotationStore(tmp_path / "annotations")
        served = Served(Catalogue("test", items), SlidePool(items), TileMemory(), store, prompter=prompter, **more)
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        with TestClient(make_app(served, Safety()), base_url="http://127.0.0.1") as client:
            return client.post(f"/api/slides/{slide}/prompt", headers=OWN, **sent)

    return ask


def test_a_prompt_reaches_the_model_and_its_answer_the_page(asking):
    prompter = Recorder()
    answer = asking(prompter, GOOD)
    assert answer.status_code == 200
    (feature,) = answer.json().pop("features")
    assert feature["geometry"]["coordinates"] == [1, 2]
    assert feature["selector"]["type"] == "POLYLINE"  # as the page draws it
    assert 'd="M1,2 1,2"' in answer.json()["svg"]
    assert {name: value for name, value in answer.json().items() if name not in ("features", "svg")} == {
        "believed_iou": 0.75,
        "known_view": False,
        "seconds": 0.5,
        "view_px0": [0, 0, 512, 512],
        "said": "Believed IoU 0.75 (0.5 s, a new view). Accept it, or click to correct it.",
    }
    assert prompter.asked == [
        (1536, Box(0, 0, 400, 300), [Box(10, 20, 30, 40)], [(15.0, 25.0)], [(200.0, 250.5)]),
    ]


def test_what_was_pointed_at_outside_the_view_is_in_the_region(asking):
    prompter = Recorder()
    asking(prompter, {"region": [100, 100, 200, 200], "boxes": [[50, 150, 120, 180]], "negatives": [[150, 230]]})
    assert prompter.asked[0][1] == Box(50, 100, 200, 230)


def test_without_a_model_the_answer_says_how_to_start_one(asking):
    answer = asking(None, GOOD)
    assert answer.status_code == 400
    assert "no promptable model is loaded" in answer.json()["error"]
    assert "model=sam2.1-hiera-tiny" in answer.json()["error"]
    assert "weights are away" in asking(None, GOOD, no_prompter="The weights are away.").json()["error"]


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "an object"),
        ({}, "region"),
        ({**GOOD, "region": [0, 0, 1]}, "region"),
        (b'{"region": [0, 0, 1, NaN]}', "region"),
        ({**GOOD, "positives": [[1, "x"]]}, "positives.0.1"),
        ({**GOOD, "negatives": [[1, 2]] * 65}, "negatives"),
        ({**GOOD, "boxes": [[1, 2, 3, 4]] * 2}, "boxes"),
        ({**GOOD, "path": "/etc/passwd"}, "path"),
    ],
)
def test_malformed_prompts_are_refused_before_the_model(asking, body, cause):
    prompter = Recorder()
    answer = asking(prompter, body)
    assert answer.status_code == 400
    assert cause in answer.json()["error"]
    assert prompter.asked == []


def test_what_the_model_refuses_is_said(asking):
    answer = asking(Recorder(), {"region": GOOD["region"]})
    assert (answer.status_code, answer.json()["error"]) == (400, "the prompt: there is none. Click.")


def test_an_unknown_slide_is_not_found(asking):
    assert asking(Recorder(), GOOD, slide="b").status_code == 404
