from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.verbs.weak_stages.tiny_prediction import MPP, SIDES, TILE_PX, ColourWeak, tiny_stage, write_slides

from lamella.cli import main
from lamella.errors import LamellaError
from lamella.formats.geojson import read_geojson
from lamella.formats.tables import read_csv, read_parquet, write_parquet
from lamella.slides.grid import read_tile_table, tile_table
from lamella.verbs.weak_stages import prediction
from lamella.verbs.weak_stages.prediction_settings import UncertainSettings
from lamella.verbs.weak_stages.prediction_uncertain import write_uncertain

DOUBTS = {"a": ([0.1, 0.5, 0.9], [0.9, 0.2, 0.1]), "b": ([0.3, 0.1, 0.7], [0.5, 0.95, 0.3])}


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    """Two slides with three tiles each."""
    for slide_id, (margin, entropy) in DOUBTS.items():
        table = tile_table(slide_id, np.array([[0, 0], [64, 0], [128, 0]]), 16.0, 0.5)
        columns = {name: table.column(name) for name in table.column_names}
        (tmp_path / slide_id).mkdir()
        write_parquet(
            tmp_path / slide_id / "tiles.parquet",
            {**columns, "margin": margin, "entropy": entropy, "likeliest": ["tumor"] * 3},
        )
    return tmp_path


def listed(folder: Path, **settings) -> list[tuple[str, float]]:
    slides = [{"slide_id": slide_id, "slide_mpp": [0.25, 0.25]} for slide_id in DOUBTS]
    count = write_uncertain(folder, slides, UncertainSettings(**settings))
    rows = read_csv(folder / "uncertain_tiles.csv") if count else []
    assert len(rows) == count
    return [(row["slide_id"], float(row["x_px0"])) for row in rows]


def test_the_least_sure_of_all_slides_come_first(predicted):
    assert listed(predicted, count=4) == [("a", 0), ("b", 64), ("b", 0), ("a", 64)], "equal ones by their slides"
    assert listed(predicted, count=3, by="entropy") == [("b", 64), ("a", 0), ("b", 0)]
    assert listed(predicted, count=4, most_per_slide=1) == [("a", 0), ("b", 64)]


def test_the_tiles_of_each_slide_are_outlines_too_and_old_ones_go(predicted):
    listed(predicted, count=4)
    (first, second) = read_geojson(predicted / "a" / "uncertain_tiles.geojson")
    assert first.bounds_px0() == (0, 0, 64, 64), "16 um at 0.25 um per level-0 pixel"
    assert second.bounds_px0() == (64, 0, 128, 64)
    assert (first.classification, first.name) == ("Uncertain", "tumor?")
    assert first.measurements == {"Margin": 0.1, "Entropy": 0.9}
    assert listed(predicted, count=1) == [("a", 0)]
    assert not (predicted / "b" / "uncertain_tiles.geojson").exists()
    assert listed(predicted, count=0) == []
    assert not list(predicted.rglob("uncertain_tiles*"))


def test_a_slide_whose_table_is_gone_is_an_error_not_a_shorter_list(predicted):
    (predicted / "b" / "tiles.parquet").unlink()
    with pytest.raises(LamellaError, match="the file does not exist"):
        listed(predicted)


def test_the_list_is_a_tile_table_that_convert_and_embed_read(tmp_path, monkeypatch):
    slides, model = write_slides(tmp_path / "slides", 2), ColourWeak()
    monkeypatch.setattr(prediction, "load_dense", lambda spec: model)
    assert (
        prediction.run_prediction(tiny_stage(tmp_path / "study", slides, overrides=("predict.uncertain.count=5",))) == 0
    )
    path = tmp_path / "study" / "out" / "predictions" / "uncertain_tiles.csv"
    table = read_tile_table(path, mpp=None, tile_px=None)
    assert table.num_rows == 5
    assert set(table.column("fov_um").to_pylist()) == {TILE_PX * MPP}
    margins = [float(row["margin"]) for row in read_csv(path)]
    assert margins == sorted(margins)
    everything = [read_parquet(tmp_path / "study" / "out" / "predictions" / s / "tiles.parquet") for s in ("s0", "s1")]
    assert min(min(one.column("margin").to_pylist()) for one in everything) == margins[0]
    whole = -(-SIDES[0] // TILE_PX) * -(-SIDES[1] // TILE_PX)
    assert all(0 < one.num_rows <= whole for one in everything)
    assert main(["index", str(slides), "-o", str(tmp_path / "index")]) == 0
    convert = ["convert", str(path), "-o", str(tmp_path / "qupath"), "to=geojson", "--index", str(tmp_path / "index")]
    assert main(convert) == 0
    assert list((tmp_path / "qupath").rglob("*.geojson"))
