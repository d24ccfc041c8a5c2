from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lamella.config import Request
from lamella.data.splits import LeakageError
from lamella.errors import LamellaError
from lamella.formats.tables import read_csv
from lamella.models.dense_contract import DenseContract
from lamella.models.pretraining_record import PretrainingRecord
from lamella.verbs import evaluate
from lamella.verbs.evaluation import automatic, colour_baseline, segment_models
from lamella.verbs.evaluation.results_files import results_of
from lamella.verbs.evaluation.segment_report import chosen_ranks

SIDE, PATIENTS = (40, 52), 6


class DarkIsGland:
    """A segmenter of one number: the darker, the more gland."""

    name, fingerprint = "dark is gland", "0123456789abcdef"

    def __init__(self, mpp: float | None = 0.5, channels: tuple[str, ...] = ("background", "gland")) -> None:
        self.contract = DenseContract(channels, mpp, 32)
        self.gland = channels.index("gland")

    def maps(self, images: Tensor) -> Tensor:
        gland = torch.sigmoid((128 - images.float().mean(1)) / 10)
        return torch.stack([gland if number == self.gland else 1 - gland for number in range(2)], 1)

    def to(self, device: object) -> DarkIsGland:
        return self


def pixels_of(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A dark gland on pale ground, some of it as pale as the ground."""
    rng = np.random.default_rng(number)
    mask = np.zeros(SIDE, np.uint8)
    y, x = rng.integers(2, 12, 2)
    mask[y : y + 20, x : x + 24] = 1
    pixels = np.where(mask[..., None] == 1, (110, 60, 130), (220, 180, 200)) + rng.integers(-20, 20, (*SIDE, 3))
    pixels[y : y + 3 + number % 4, x : x + 24] = 210
    return pixels.astype(np.uint8), mask


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each patient; nobody states a spacing."""
    folder = tmp_path_factory.mktemp("glands")
    rows = ["image_id,image_path,mask_path,patient"]
    for number in range(2 * PATIENTS):
        pixels, mask = pixels_of(number)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
        rows.append(f"im{number},{number}.png,{number}_mask.png,p{number // 2}")
    (folder / "glands.csv").write_text("\n".join(rows))
    return folder / "glands.csv"


Runs = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Makes folders that count as segmenters, with what each was trained on."""
    loaded = {"mpp": 0.5, "channels": ("background", "gland")}

    def make(*trained: list[int] | None, mpp: float | None = 0.5, channels=("background", "gland")) -> Path:
        loaded.update(mpp=mpp, channels=channels)
        root = tmp_path / "run"
        for number, patients in enumerate(trained):
            folder = root / f"fold{number}" / "model" if len(trained) > 1 else root / "model"
            folder.mkdir(parents=True)
            (folder / "it").touch()
            if patients is not None:
                groups = [f"glands/p{patient}" for patient in patients]
                PretrainingRecord.of(["glands"], groups, [], []).write(folder)
        return root

    monkeypatch.setattr(segment_models, "is_segmenter", lambda folder: (Path(folder) / "it").is_file())
    monkeypatch.setattr(colour_baseline, "_PIXELS", 600)
    monkeypatch.setattr(automatic, "load_segmenter", lambda folder: DarkIsGland(**loaded))
    return make


SETTINGS = (
    "dataset.mask_classes.gland=1", "dataset.mpp=0.5", "object_um2=[50]", "tolerance_um=1", "device=cpu", "overlays=0",
)  # fmt: skip


def judge(model: Path, data: Path, out: Path, *more: str) -> int:
    return evaluate.run(Request("evaluate", (model, data), out, overrides=(*SETTINGS, *more)))


def rows_of(out: Path, measure: str) -> dict[str, dict]:
    return {row["encoder"]: row for row in results_of(out)["rows"] if row["measure"] == measure}


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


FOLDS = ([2, 3, 4, 5], [0, 1, 4, 5], [0, 1, 2, 3])


def test_a_run_with_folds_is_judged_image_by_image_with_baselines_and_pictures(model, data, tmp_path, capsys):
    out = tmp_path / "results"
    assert judge(model(*FOLDS), data, out, "overlays=1") == 0
    assert "the one of 3 models that has seen nothing of its patient" in capsys.readouterr().out
    found = rows_of(out, "Dice of gland")
    assert set(found) == {
        "dark is gland (3 models)", "colour alone (logistic regression)", "all background", "all gland",
    }  # fmt: skip
    # By hand: the model calls what is darker than 128; every pixel of every image counts alike.
    both = own = called = 0
    for number in range(2 * PATIENTS):
        pixels, mask = pixels_of(number)
        dark = pixels.mean(-1) < 128
        both, own, called = both + (dark & (mask == 1)).sum(), own + mask.sum(), called + dark.sum()
    assert found["dark is gland (3 models)"]["estimate"]["value"] == pytest.approx(2 * both / (own + called))
    estimate = found["dark is gland (3 models)"]["estimate"]
    assert (estimate["n"], estimate["groups"]) == (12, 6)
    assert estimate["low"] < estimate["value"] < estimate["high"]
    assert found["dark is gland (3 models)"]["control"]["value"] < estimate["value"]
    assert {row["protocol"]["task"] for row in results_of(out)["rows"]} == {"automatic"}
    assert {row["question"] for row in results_of(out)["rows"]} == {"Automatic (no truth at test time): glands"}
    text = (out / "results.md").read_text()
    for picture in ("confusion.png", "best_median_worst.png"):
        assert f"]({picture})" in text
        assert f'<img src="{picture}"' in (out / "results.html").read_text()
        assert size_of(out / picture)[0] > 300
    assert "Colour alone was fitted on the images that the judging model was trained on" in text
    lines = read_csv(out / "segment_images.csv")
    assert len(lines) == 12 * 4
    assert len(list((out / "predictions").glob("*.png"))) == 12


def test_the_grid_is_the_images_own_whatever_the_mpp_of_the_model(model, data, tmp_path):
    """Models of other mpp are judged on the same pixels, so they may stand in one table."""
    out = [tmp_path / "fine", tmp_path / "coarse"]
    run = model(None)
    assert judge(run, data, out[0]) == 0
    automatic.load_segmenter = lambda folder: DarkIsGland(mpp=0.9)  # monkeypatched by the fixture, which undoes it
    assert judge(run, data, out[1]) == 0
    first, second = (rows_of(each, "Dice of gland")["dark is gland"] for each in out)
    assert first["protocol"]["table"] == second["protocol"]["table"]
    assert first["estimate"]["value"] > second["estimate"]["value"] > 0.8
    for path in (out[1] / "predictions").glob("*.png"):
        assert size_of(path) == SIDE[::-1]


def test_classes_are_matched_by_name(model, data, tmp_path):
    """Mistake of the source: class ids that drifted between scripts."""
    ordered, turned = tmp_path / "ordered", tmp_path / "turned"
    run = model(None)
    judge(run, data, ordered)
    automatic.load_segmenter = lambda folder: DarkIsGland(channels=("gland", "background"))
    judge(run, data, turned)
    one, other = (rows_of(each, "Dice of gland")["dark is gland"] for each in (ordered, turned))
    assert one == other
    automatic.load_segmenter = lambda folder: DarkIsGland(channels=("gland", "stroma"))
    with pytest.raises(LamellaError, match="its classes are gland, stroma; the masks have background, gland"):
        judge(run, data, tmp_path / "third")


def test_a_model_that_saw_the_judged_patients_is_refused_or_they_are_left_out(model, data, tmp_path):
    run = model([0, 1])
    with pytest.raises(LeakageError, match=r"4 of 12 images .*patient p0, p1"):
        judge(run, data, tmp_path / "results")
    assert judge(run, data, tmp_path / "results", "seen=leave_out") == 0
    assert rows_of(tmp_path / "results", "Dice of gland")["dark is gland"]["estimate"]["groups"] == 4


def test_an_unknown_past_is_the_first_thing_that_is_read(model, data, tmp_path):
    judge(model(None), data, tmp_path / "results")
    text = (tmp_path / "results" / "results.md").read_text()
    assert text.index("whether it saw the judged images is unknown") < text.index("## Automatic")
    assert "Colour alone was fitted on the other patients of the judged images, in folds" in text


def test_a_rerun_does_nothing_and_one_that_was_cut_short_goes_on(model, data, tmp_path, monkeypatch, capsys):
    run, out = model(None), tmp_path / "results"
    judge(run, data, out)
    first = (out / "results.json").read_bytes()
    judge(run, data, out)
    assert "nothing to do" in capsys.readouterr().out
    (out / "results.json").unlink()
    lost = sorted((out / "predictions").glob("*.png"))[3]
    lost.unlink()
    shown = []
    monkeypatch.setattr(
        DarkIsGland, "maps", lambda self, images, maps=DarkIsGland.maps: shown.append(1) or maps(self, images)
    )
    judge(run, data, out)
    assert len(shown) == 1  # one image of one batch
    assert (out / "results.json").read_bytes() == first


def test_an_image_that_cannot_be_read_is_left_out_and_named(model, data, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for path in data.parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "3_mask.png")
    out = tmp_path / "results"
    assert judge(model(None), folder / "glands.csv", out) == 1
    assert [row["item_id"] for row in read_csv(out / "failed.csv")] == ["im3"]
    found = rows_of(out, "Dice of gland")
    assert {row["estimate"]["n"] for row in found.values()} == {11}  # of every row alike


def test_without_a_spacing_outlines_are_not_asked_and_a_model_with_an_mpp_says_what_is_missing(model, data, tmp_path):
    settings = tuple(each for each in SETTINGS if "mpp" not in each)
    run = model(None, mpp=None)
    out = tmp_path / "results"
    assert evaluate.run(Request("evaluate", (run, data), out, overrides=settings)) == 0
    assert "**boundaries and objects**: an image states no spacing" in (out / "results.md").read_text()
    assert rows_of(out, "Dice of gland")["dark is gland"]["protocol"]["mpp"] is None
    automatic.load_segmenter = lambda folder: DarkIsGland(mpp=0.5)
    with pytest.raises(LamellaError, match=r"states no spacing, and dark is gland takes images of 0.5 um/px"):
        evaluate.run(Request("evaluate", (run, data), tmp_path / "other", overrides=settings))


def test_models_that_have_not_seen_an_image_are_averaged_where_that_is_asked(model, data, tmp_path):
    run = model([0, 1, 2], [0, 1, 3])
    with pytest.raises(LamellaError, match="ensemble=true"):
        judge(run, data, tmp_path / "results", "seen=leave_out")
    assert judge(run, data, tmp_path / "results", "seen=leave_out", "ensemble=true", "blend.tta=d4") == 0
    text = (tmp_path / "results" / "results.md").read_text()
    assert "the mean of those of 2 models" in text
    assert "Test-time augmentation: d4" in text


def test_the_colour_baseline_learns_nothing_from_the_judged_group(model, data, tmp_path, monkeypatch):
    """Every sample that a rule is fitted on is of a patient that the rule does not judge."""
    plan = []
    original = colour_baseline._fitted_on
    monkeypatch.setattr(colour_baseline, "_fitted_on", lambda *given: plan.append(original(*given)) or plan[-1])
    run = model(*FOLDS)
    judge(run, data, tmp_path / "known")
    (run / "fold1").rename(tmp_path / "aside1")
    (run / "fold2").rename(tmp_path / "aside2")
    (run / "fold0" / "model" / "pretraining.json").unlink()
    judge(run, data, tmp_path / "unknown")
    assert len(plan) == 2
    for fitted_on, _ in plan:
        assert len(fitted_on) == 12
        for item, others in fitted_on.items():
            assert others
            assert item.group not in {other.group for other in others}


def test_slides_and_volumes_are_refused_in_words(model, data, tmp_path, monkeypatch):
    run = model(None)
    monkeypatch.setattr(evaluate, "is_slide_index", lambda data: True)
    with pytest.raises(LamellaError, match="a slide index holds none to judge them by"):
        judge(run, data, tmp_path / "results")


def test_a_dry_run_says_what_would_be_judged_and_writes_nothing(model, data, tmp_path, capsys):
    request = Request("evaluate", (model(*FOLDS), data), tmp_path / "results", overrides=SETTINGS, dry_run=True)
    assert evaluate.run(request) == 0
    assert "12 images of 6 patients are judged; classes: background, gland" in capsys.readouterr().out
    assert not (tmp_path / "results").exists()


def test_models_of_folds_are_named_after_what_they_share():
    one = automatic._Model("segformer-fpn-fold0", "f", DarkIsGland().contract)
    assert automatic._name_of([one]) == "segformer-fpn-fold0"
    assert automatic._name_of([one, one]) == "segformer-fpn (2 models)"


@pytest.mark.parametrize(
    ("count", "each", "expected"),
    [
        (9, 1, [(0, "best"), (4, "median"), (8, "worst")]),
        (10, 2, [(0, "best"), (1, "best"), (4, "median"), (5, "median"), (8, "worst"), (9, "worst")]),
        (2, 2, [(0, "best"), (1, "best")]),
        (3, 2, [(0, "best"), (1, "best"), (2, "worst")]),
        (1, 1, [(0, "best")]),
        (5, 0, []),
    ],
)
def test_no_image_is_drawn_twice(count, each, expected):
    assert chosen_ranks(count, each) == expected


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"object_um2": (5.0, 5.0)}, {"object_um2": (9.0, 5.0)}, {"tolerance_um": 0}):
        with pytest.raises(ValueError, match=r"tolerance_um|rise"):
            automatic.Config(**wrong)


def test_results_hold_plain_numbers_only(model, data, tmp_path):
    judge(model(None), data, tmp_path / "results")
    json.loads((tmp_path / "results" / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
