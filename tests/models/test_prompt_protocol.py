from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tests.models.tiny_sam2 import SIDE_PX, tiny_sam2

from lamella.models.canvas import Canvas
from lamella.models.prompt_protocol import FIVE, TTA, PromptProtocol, answers, ask, clicks_name, overlap
from lamella.models.promptable_model import Decoded, Embedded
from lamella.models.prompts import NOT_THIS, THIS, Prompts
from lamella.models.simulated_user import Given, TrueObject, box_of, true_objects

KNOWN = np.ones((SIDE_PX, SIDE_PX), bool)


def channels() -> np.ndarray:
    """Two large squares and a small one."""
    found = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    found[8:28, 8:28] = 1
    found[8:28, 36:60] = 1
    found[40:44, 40:44] = 1
    return found


OBJECTS = true_objects(channels(), background=0, min_area_px=5)


@dataclass
class Obedient:
    """Answers with a disk of 8 px around each positive click or with the box; remembers what it was asked.

    Of one click it gives three masks, of which it believes most in the last.
    """

    asked: list[tuple[Prompts, bool]]
    believed: tuple[float, float, float] = (0.1, 0.2, 0.9)

    def decode(self, embedded: Embedded, prompts: Prompts, multimask: bool, at_once: int = 1) -> Decoded:
        self.asked.append((prompts, multimask))
        M, K = prompts.shape[1], 3 if multimask else 1
        y, x = torch.meshgrid(torch.arange(SIDE_PX) + 0.5, torch.arange(SIDE_PX) + 0.5, indexing="ij")
        logits = torch.full((1, M, K, SIDE_PX, SIDE_PX), -5.0)
        for row in range(M):
            own = torch.zeros(SIDE_PX, SIDE_PX, dtype=torch.bool)
            if prompts.points_BMP2 is not None and prompts.labels_BMP is not None:
                for (px, py), label in zip(prompts.points_BMP2[0, row], prompts.labels_BMP[0, row], strict=True):
                    near = (x - px) ** 2 + (y - py) ** 2 < 64
                    own = own | near if label == THIS else own & ~near if label == NOT_THIS else own
            if prompts.boxes_BM4 is not None:
                x0, y0, x1, y1 = prompts.boxes_BM4[0, row]
                own |= (x > x0) & (x < x1) & (y > y0) & (y < y1)
            logits[0, row, -1][own] = 5.0
        believed = torch.tensor(self.believed if multimask else (0.5,)).expand(1, M, K)
        return Decoded(logits, believed, None)

    def upsample(self, logits: torch.Tensor, embedded: Embedded) -> torch.Tensor:
        return logits


def embedded() -> Embedded:
    return Embedded((torch.zeros(1, 1, 4, 4),), Canvas((SIDE_PX, SIDE_PX), SIDE_PX))


def asked(protocol: PromptProtocol, model: Obedient | None = None, **more: object) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for row, name, mask in answers(model or Obedient([]), embedded(), OBJECTS, KNOWN, protocol, **more):  # type: ignore[arg-type]
        assert len(found.setdefault(name, [])) == row
        found[name].append(mask)
    return found


def test_a_box_is_scored_against_its_own_object_alone() -> None:
    """Mistake of the source: the box of the largest part, scored against the whole class."""
    found = asked(PromptProtocol(prompts=("box",)))["box"]
    for mask, one in zip(found, OBJECTS, strict=True):
        assert overlap(mask, one, KNOWN) == (one.area_px, one.area_px, one.area_px)
    assert sum(one.area_px for one in OBJECTS) == int((channels() == 1).sum())


def test_one_click_is_answered_by_the_mask_the_model_believes_in_and_all_else_by_one() -> None:
    model = Obedient([])
    asked(PromptProtocol(prompts=("clicks", "box"), clicks=(1, 3)), model)
    kinds = [
        (multimask, prompts.labels_BMP is not None and prompts.labels_BMP.shape[2] == 1)
        for prompts, multimask in model.asked
    ]
    assert kinds == [(True, True), (False, False), (False, False), (False, False)]
    doubtful = Obedient([], believed=(0.9, 0.2, 0.1))  # believes in an empty mask
    assert not asked(PromptProtocol(prompts=("centroid",)), doubtful)["centroid"][0].any()


def test_further_clicks_go_to_errors_with_the_answer_before_and_right_answers_are_left_alone() -> None:
    model = Obedient([])
    found = asked(PromptProtocol(prompts=("clicks",), clicks=(3,)), model)
    assert list(found) == [clicks_name(count) for count in (1, 2, 3)] == ["1 click", "2 clicks", "3 clicks"]
    first, second = model.asked[0][0], model.asked[1][0]
    assert first.masks_BMhw is None
    assert second.masks_BMhw is not None
    assert second.points_BMP2 is not None
    assert second.labels_BMP is not None
    for row, one in enumerate(OBJECTS):
        truth = one.mask(SIDE_PX, SIDE_PX)
        x, y = (int(place) for place in second.points_BMP2[0, row, 1].tolist())
        assert found["1 click"][row][y, x] != truth[y, x]
        assert bool(second.labels_BMP[0, row, 1] == THIS) == bool(truth[y, x])


def test_what_is_right_is_not_clicked_at_again() -> None:
    y, x = np.ogrid[:SIDE_PX, :SIDE_PX]
    window = (slice(0, SIDE_PX), slice(0, SIDE_PX))
    disk = TrueObject(1, window, (x - 30) ** 2 + (y - 30) ** 2 < 64)
    model = Obedient([])
    protocol = PromptProtocol(prompts=("clicks",), clicks=(5,))
    found = list(answers(model, embedded(), [disk], KNOWN, protocol))  # type: ignore[arg-type]
    assert len(model.asked) == 1
    assert [name for _, name, _ in found] == [clicks_name(count) for count in range(1, 6)]  # still scored five times


def test_the_five_prompts_are_the_sources() -> None:
    assert FIVE == ("centroid", "multi-point", "box", "box + negatives", "box + negatives + TTA")
    model = Obedient([])
    half = np.full((len(OBJECTS), SIDE_PX, SIDE_PX), 0.5)
    found = asked(PromptProtocol(prompts=FIVE), model, averaged=lambda given: half)
    assert set(found) == set(FIVE)
    assert not found[TTA][0].any()  # mistake of the source: a tie of the averaged masks was called object
    centroid, several, box, negatives = (prompts for prompts, _ in model.asked)
    assert centroid.labels_BMP.shape[2] == 1
    assert (several.labels_BMP[0, 0] == THIS).all()
    assert several.labels_BMP.shape[2] == 3
    assert box.labels_BMP is None
    assert box.boxes_BM4[0, 0].tolist() == list(box_of(OBJECTS[0].mask(SIDE_PX, SIDE_PX)))
    assert (negatives.labels_BMP[0, 0] == NOT_THIS).all()


def test_noisy_boxes_depend_on_the_image_and_its_object_and_on_nothing_else() -> None:
    one, again, other = (asked(PromptProtocol(prompts=("noisy box",)), seed=(seed,))["noisy box"] for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_answers_do_not_depend_on_how_many_objects_are_asked_about_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from lamella.models import prompt_protocol

    model = tiny_sam2()
    images = torch.randint(
        0, 255, (1, 3, SIDE_PX, SIDE_PX), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        seen = model.embed(images)
    protocol = PromptProtocol(prompts=("noisy box", "clicks"), clicks=(2,))
    whole = list(answers(model, seen, OBJECTS, KNOWN, protocol))
    monkeypatch.setattr(prompt_protocol, "_OBJECTS_AT_ONCE", 1)
    single = {(row, name): mask for row, name, mask in answers(model, seen, OBJECTS, KNOWN, protocol)}
    for row, name, mask in whole:
        assert np.mean(mask != single[row, name]) < 0.01  # rounding of batches of another size


def test_ask_takes_boxes_and_clicks_together() -> None:
    model = Obedient([])
    ask(model, embedded(), [Given(box=(0, 0, 4, 4)), Given(((3.5, 3.5),), (THIS,))])  # type: ignore[arg-type]
    prompts, multimask = model.asked[0]
    assert not multimask
    assert prompts.shape == (1, 2)
