"""Stage 0: which tiles prototypes are made from, in the source's files; done once, refused when inputs changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.data.made_studies import CLASSES, SIDE, plain_study, write_images, write_text

from lamella.config import Request, Resolved, Settings
from lamella.data.bag_coordinates import TileSize, read_coordinates
from lamella.data.bag_slides import SlideNames, listed_slides, opened
from lamella.data.bag_study import WeakDataSettings, open_study
from lamella.errors import DatasetError, OutputConflictError
from lamella.formats.named_tiles import read_named_tiles
from lamella.formats.tables import read_parquet
from lamella.verbs.weak_stages.coordinates import run_coordinates
from lamella.verbs.weak_stages.prototype_settings import CoordinateSettings
from lamella.verbs.weak_stages.stage import Stage


class Train(Settings):
    folds: int | None = None


class Config(Settings):
    """The part of a study's settings that stage 0 reads."""

    class_order: tuple[str, ...] = CLASSES
    background: str | None = "background"
    data: WeakDataSettings
    coordinates: CoordinateSettings
    train: Train = Train()
    seed: int = 0


def stage(tmp_path: Path, data: dict[str, Any], seed: int = 0, **coordinates: Any) -> Stage:
    settings = CoordinateSettings(**{"samples_per_wsi": 4, **coordinates})
    config = Config(data=WeakDataSettings(**data), coordinates=settings, seed=seed)
    study = open_study(CLASSES, "background", config.data, seed)
    return Stage(Request("weak"), Resolved(config, {}), study, tmp_path / "out")


def picked(folder: Path) -> list[tuple[Any, ...]]:
    rows = read_parquet(folder / "prototype_coordinates" / "tiles.parquet").to_pylist()
    return [(row["class"], row["slide_id"], row["x_px0"], row["y_px0"]) for row in rows]


def test_tiles_of_training_slides_in_the_sources_files(tmp_path: Path) -> None:
    assert run_coordinates(stage(tmp_path, plain_study(tmp_path))) == 0
    folder = tmp_path / "out" / "prototype_coordinates"
    assert sorted(path.name for path in folder.iterdir() if path.suffix in (".npy", ".parquet")) == [
        "benign.npy",
        "tiles.parquet",
        "tumor.npy",
    ]
    tiles = read_named_tiles(folder / "tumor.npy")
    assert tiles.wsi_name.tolist() == ["b.png"] * 4  # not d, which is for testing
    assert len({tuple(corner) for corner in tiles.corners_px0.tolist()}) == 4
    assert tiles.side_px0.tolist() == [SIDE] * 4
    rows = [row for row in picked(tmp_path / "out") if row[0] == "tumor"]
    assert [list(row[2:]) for row in rows] == tiles.corners_px0.tolist()
    record = json.loads((folder / "record.json").read_text())
    assert [(one["name"], one["tiles"], one["slides"]) for one in record["classes"]] == [
        ("benign", 4, {"a": 4}),
        ("tumor", 4, {"b": 4}),
        ("background", 0, {}),
    ]
    assert record["classes"][0]["picked_by"] == "slides labelled with this class alone"
    assert record["pixel_truth_of_training_used"] is False


def test_the_arrays_are_coordinates_that_a_study_reads(tmp_path: Path) -> None:
    data = plain_study(tmp_path)
    run_coordinates(stage(tmp_path, data))
    listed = listed_slides(data["slides"])
    names, size = SlideNames(listed), TileSize(0.5, SIDE, None)
    slides = [opened(slide, 0.5, everywhere=True) for slide in listed]
    file = tmp_path / "out" / "prototype_coordinates" / "benign.npy"
    found = read_coordinates(file, slides, names, CLASSES, size)
    assert found.problems == []
    assert {name: len(tiles.corners_px0) for name, tiles in found.tiles.items()} == {"a": 4}


def test_it_is_done_once_and_refused_when_its_inputs_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Spec: a stage re-run with changed inputs never silently reuses an old cache."""
    data = plain_study(tmp_path)
    run_coordinates(stage(tmp_path, data))
    file = tmp_path / "out" / "prototype_coordinates" / "tiles.parquet"
    before = file.stat().st_mtime_ns
    assert run_coordinates(stage(tmp_path, data)) == 0
    assert "done before" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == before
    with pytest.raises(OutputConflictError, match=r"coordinates\.num_per_class: 5 there, 2 now"):
        run_coordinates(stage(tmp_path, data, num_per_class=2))
    write_images(tmp_path / "slides", ["a.png"], (96, 64))
    with pytest.raises(OutputConflictError, match=r"inputs\.study"):
        run_coordinates(stage(tmp_path, data))


def test_the_draw_hangs_on_the_seed_alone(tmp_path: Path) -> None:
    data = plain_study(tmp_path)
    draws = []
    for number, seed in enumerate((0, 0, 1)):
        run_coordinates(stage(tmp_path / str(number), data, seed))
        draws.append(picked(tmp_path / str(number) / "out"))
    assert draws[0] == draws[1] != draws[2]


def test_up_to_so_many_slides_and_tiles_of_each(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(6)]
    data = plain_study(tmp_path)
    data["slides"] = (write_images(tmp_path / "slides", [f"{name}.png" for name in names]),)
    write_text(data["split_csv"], "filename,split", *(f"{name},train" for name in names))
    write_text(data["labels_csv"], "image_name,label", *(f"{name},{int(name == 's5')}" for name in names))
    run_coordinates(stage(tmp_path, data, num_per_class=3, samples_per_wsi=2))
    chosen = [(row[0], row[1]) for row in picked(tmp_path / "out")]
    assert len(set(chosen)) == 4
    assert all(chosen.count(pair) == 2 for pair in chosen)
    assert chosen == sorted(chosen)


def test_patches_are_drawn_by_their_number(tmp_path: Path) -> None:
    """Five slides of one tile each would be five exemplars."""
    names = [f"s{number:02d}" for number in range(20)]
    patches = write_images(tmp_path / "patches", [f"{name}.png" for name in names], (SIDE, SIDE))
    labels = (f"{name},{('benign', 'tumor', 'background')[number % 3]}" for number, name in enumerate(names))
    data = {**plain_study(tmp_path), "slides": patches, "labels_are": "patch", "split_csv": None, "label_format": None}
    data["labels_csv"] = write_text(tmp_path / "labels.csv", "image_name,label", *labels)
    run_coordinates(stage(tmp_path, data, num_per_class=2, samples_per_wsi=3))
    counts = [row[0] for row in picked(tmp_path / "out")]
    assert [counts.count(name) for name in ("benign", "tumor", "background")] == [6, 6, 6]
    record = json.loads((tmp_path / "out" / "prototype_coordinates" / "record.json").read_text())
    assert {one["picked_by"] for one in record["classes"]} == {"labels of tiles"}


def test_pixel_truth_of_training_is_used_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only of training slides, and never where pure=labels."""
    data = {**plain_study(tmp_path), "masks": tmp_path / "masks", "mask_values": {"benign": 1, "tumor": 2}}
    (tmp_path / "masks").mkdir()
    values = np.zeros((64, 96), np.uint8)
    values[:32, :32], values[32:, 64:] = 1, 2
    for name in "ad":
        Image.fromarray(values).save(tmp_path / "masks" / f"{name}.png")
    run_coordinates(stage(tmp_path, data, min_cover=1))
    assert picked(tmp_path / "out")[0] == ("benign", "a", 0, 0)
    record = json.loads((tmp_path / "out" / "prototype_coordinates" / "record.json").read_text())
    assert record["pixel_truth_of_training_used"] is True
    assert "benign: 1 tiles of 1 slide(s), picked by pixel truth of training slides" in capsys.readouterr().out
    run_coordinates(stage(tmp_path / "weak", data, pure="labels"))
    weak = json.loads((tmp_path / "weak" / "out" / "prototype_coordinates" / "record.json").read_text())
    assert weak["pixel_truth_of_training_used"] is False
    with pytest.raises(DatasetError, match="class tumor: no tile of a training slide is covered by it to 100%"):
        run_coordinates(stage(tmp_path / "strict", data, pure="masks", min_cover=1))


def test_folds_are_told_whose_tiles_these_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prototypes of a fold must do without the groups that it holds out; the table says whose each tile is."""
    asked = stage(tmp_path, {**plain_study(tmp_path), "split_csv": None})
    config = asked.resolved.config.model_copy(update={"train": Train(folds=2)})
    run_coordinates(Stage(asked.request, Resolved(config, {}), asked.study, asked.out))
    assert "these tiles are of 4 slides; each fold makes its prototypes without its own" in capsys.readouterr().out
    table = read_parquet(tmp_path / "out" / "prototype_coordinates" / "tiles.parquet")
    assert table.column("group").to_pylist() == table.column("slide_id").to_pylist()


def test_judged_images_lend_no_truth(tmp_path: Path) -> None:
    """Without a split, whole images with a mask and no label are for judging: their truth picks nothing."""
    data = {**plain_study(tmp_path), "split_csv": None, "masks": tmp_path / "masks"}
    data["mask_values"] = {"benign": 1, "tumor": 2}
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.ones((64, 96), np.uint8)).save(tmp_path / "masks" / "d.png")
    write_text(data["labels_csv"], "image_name,label", "a,0", "b,1", "c,0")
    run_coordinates(stage(tmp_path, data))
    assert {row[1] for row in picked(tmp_path / "out")} == {"a", "b", "c"}
