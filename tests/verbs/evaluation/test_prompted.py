from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.tiny_glands import SIDE, write_glands, write_tiny_sam2

from lamella.config import Request
from lamella.data.labelled_image import LabelledImage
from lamella.data.splits import LeakageError
from lamella.errors import LamellaError
from lamella.formats.label_values import NOT_LABELLED
from lamella.formats.tables import read_csv
from lamella.metrics.prompted import BOX, DISK
from lamella.metrics.segments.protocol import ORACLE
from lamella.models.embedding_cache import EmbeddingCache
from lamella.models.pretraining_record import PretrainingRecord
from lamella.models.prompt_protocol import PromptProtocol
from lamella.models.promptable import load_promptable
from lamella.verbs import evaluate
from lamella.verbs.evaluation import prompted_study
from lamella.verbs.evaluation.prompted import promptables_in
from lamella.verbs.evaluation.prompted_images import answered, objects_of, remembered, trivial, windows_of
from lamella.verbs.evaluation.results_files import results_of

SMALL = (
    "mpp=null", "tile_px=64", "device=cpu", "overlays=1", "protocol.min_area_px=20", "protocol.clicks=[1,2]",
)  # fmt: skip


@pytest.fixture(scope="module")
def glands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_glands(tmp_path_factory.mktemp("glands"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_sam2(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def results(glands: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results") / "out"
    assert evaluate.run(Request("evaluate", (model, glands), out, overrides=SMALL)) == 0
    return out


def test_every_table_is_headed_oracle(results: Path) -> None:
    tree = json.loads((results / "results.json").read_text())
    assert all(ORACLE in row["question"] for row in tree["rows"])
    assert {row["protocol"]["task"] for row in tree["rows"]} == {"prompted"}
    assert len({row["protocol"]["table"] for row in tree["rows"]}) == 1
    headings = [line for line in (results / "results.md").read_text().splitlines() if line.startswith("## Prompted")]
    assert headings == [f"## Prompted ({ORACLE}): glands"]
    assert f"<h2>Prompted ({ORACLE}): glands</h2>" in (results / "results.html").read_text()


def test_all_prompts_have_the_same_objects_and_their_answers_without_a_model(results: Path) -> None:
    rows = [row for row in results_of(results)["rows"] if row["measure"].startswith("mean per-class")]
    assert {row["probe"] for row in rows} == {
        "noisy box", "1 click", "2 clicks", "centroid", "multi-point", "box", "box + negatives",
        "box + negatives + TTA",
    }  # fmt: skip
    assert len({row["estimate"]["n"] for row in rows}) == 1
    assert {row["encoder"] for row in rows} == {"tiny", BOX, DISK}
    assert {row["baseline"]["name"] for row in rows if "box" in row["probe"]} == {BOX}


def test_each_line_of_the_objects_is_one_answer(results: Path) -> None:
    lines = read_csv(results / "objects.csv")
    of_model = [line for line in lines if line["model"] == "tiny"]
    assert len(of_model) == 8 * 15  # prompts, glands of six images with two or three each
    for line in of_model:
        both, own, called = (int(line[key]) for key in ("both_px", "area_px", "answered_px"))
        assert float(line["dice"]) == pytest.approx(2 * both / (own + called), abs=1e-6)


def test_the_encoder_runs_once_an_image_and_once_for_each_further_turn(results: Path) -> None:
    assert "encoder passes: 24" in (results / "results.md").read_text()  # 6 images, as they are and in three mirrors


def test_a_finished_evaluation_is_left_alone_and_one_cut_short_goes_on(
    results: Path, glands: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = Request("evaluate", (model, glands), results, overrides=SMALL)
    assert evaluate.run(request) == 0
    assert "nothing to do" in capsys.readouterr().out
    before = (results / "objects.csv").read_text()
    (results / "results.json").unlink()
    asked = []
    monkeypatch.setattr(prompted_study, "answered", lambda *args, **more: asked.append(args))
    assert evaluate.run(request) == 0
    assert not asked  # every image had been asked about
    assert (results / "objects.csv").read_text() == before


def test_a_picture_shows_the_best_median_and_worst(results: Path) -> None:
    assert (results / "best_median_worst.png").stat().st_size > 1000


def test_boxes_and_disks_without_a_model(glands: Path) -> None:
    channels = np.zeros(SIDE, np.uint8)
    channels[10:20, 10:30] = 1
    channels[10, 10] = NOT_LABELLED
    image = LabelledImage(np.zeros((*SIDE, 3), np.uint8), channels)
    protocol = PromptProtocol(min_area_px=20)
    found = trivial(list(windows_of(image, 64)), 0, protocol, lambda channel: np.pi * 4.2**2)
    assert found[BOX].tolist() == [[199, 199, 199]]  # where nobody knows the truth nothing counts
    both, own, called = found[DISK][0].tolist()
    assert (own, both) == (199, called)
    assert called == pytest.approx(np.pi * 4.2**2, rel=0.1)


def test_long_images_are_parted_evenly_without_overlap() -> None:
    channels = np.arange(50 * 70, dtype=np.uint16).reshape(50, 70).astype(np.uint8)
    image = LabelledImage(np.zeros((50, 70, 3), np.uint8), channels)
    parts = list(windows_of(image, 32))
    assert {part.channels_YX.shape for part in parts} == {(25, 23), (25, 24)}
    whole = np.zeros_like(channels)
    for part in parts:
        height, width = part.channels_YX.shape
        whole[part.y0 : part.y0 + height, part.x0 : part.x0 + width] += part.channels_YX
    assert np.array_equal(whole, channels)
    assert len(list(windows_of(image, 70))) == 1


def test_numbers_of_an_image_do_not_depend_on_the_others(glands: Path, model: Path) -> None:
    loaded = load_promptable(model)
    rng = np.random.default_rng(0)
    image = LabelledImage(
        rng.integers(0, 255, (48, 60, 3)).astype(np.uint8), (rng.random((48, 60)) < 0.7).astype(np.uint8)
    )
    protocol = PromptProtocol(prompts=("noisy box",), min_area_px=5)
    windows = list(windows_of(image, 64))
    cache = EmbeddingCache(loaded)
    one, other = (answered(loaded, windows, 0, protocol, embed=remembered(loaded, cache), seed=(3,)) for _ in range(2))
    assert np.array_equal(one.counts["noisy box"], other.counts["noisy box"])
    assert cache.passes == 1
    assert len(objects_of(windows[0], 0, protocol)) == len(one.channels)


def test_a_spec_with_a_place_is_no_run(model: Path, tmp_path: Path) -> None:
    assert promptables_in(Path(f"sam2-hiera-tiny@{model}")) == ()
    assert promptables_in(model) == ()
    write_tiny_sam2(tmp_path / "run" / "fold10" / "model")
    write_tiny_sam2(tmp_path / "run" / "fold2" / "model")
    assert [path.parent.name for path in promptables_in(tmp_path / "run")] == ["fold2", "fold10"]


def test_a_rival_that_has_seen_the_images_is_refused(glands: Path, model: Path, tmp_path: Path) -> None:
    rival = write_tiny_sam2(tmp_path / "rival", seed=1)
    PretrainingRecord.of({"glands"}, {"glands/p1"}, {"glands/im1"}, ()).write(rival)
    request = Request("evaluate", (model, glands), tmp_path / "out", overrides=(*SMALL, f"rival={rival}"))
    with pytest.raises(LeakageError, match="has seen in training"):
        evaluate.run(request)


def test_images_without_large_objects_are_told(glands: Path, model: Path, tmp_path: Path) -> None:
    request = Request("evaluate", (model, glands), tmp_path / "out", overrides=(*SMALL, "protocol.min_area_px=9999"))
    with pytest.raises(LamellaError, match="no object has 9999 pixels or more"):
        evaluate.run(request)


def test_images_without_a_spacing_ask_for_one(glands: Path, model: Path, tmp_path: Path) -> None:
    request = Request("evaluate", (model, glands), tmp_path / "out", overrides=("device=cpu", "overlays=0"))
    with pytest.raises(LamellaError, match=r"states no spacing.*State it with dataset\.mpp=0\.5"):
        evaluate.run(request)
