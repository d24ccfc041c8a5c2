from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.imaging.datasets.miniatures import make_class_folder, make_medmnist
from tests.verbs.tiny_space_time import film_model, graded_volumes, moving_films, volume_model

from lamella.cli import main
from lamella.data.volumes import PreparedVolumes, VolumeDataSettings
from lamella.formats.tables import parquet_metadata, read_parquet
from lamella.imaging.datasets.opening import open_collection
from lamella.imaging.spacing import resize_image
from lamella.models.hub import from_pretrained


def test_every_image_gets_a_row_and_a_rerun_changes_nothing(tmp_path: Path) -> None:
    data = make_medmnist(tmp_path / "pneumoniamnist.npz")
    out = tmp_path / "out"
    assert main(["embed", "colour-stats", str(data), "-o", str(out)]) == 0
    table = read_parquet(out / "features.parquet")
    assert table.num_rows == 22
    assert np.stack(table["features"].to_numpy()).shape == (22, 110)
    assert table["labels"].to_pylist()[0] == ["normal"]
    assert set(table["split"].to_pylist()) == {"train", "val", "test"}
    assert parquet_metadata(out / "features.parquet")["encoder"] == "colour-stats"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(["embed", "colour-stats", str(data), "-o", str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_an_image_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    data = make_class_folder(tmp_path / "data")
    picture = sorted(data.rglob("*.png"))[0]
    picture.write_bytes(picture.read_bytes()[:60])
    assert main(["embed", "colour-stats", str(data), "-o", str(tmp_path / "out")]) == 1
    assert read_parquet(tmp_path / "out" / "features.parquet").num_rows == 5
    assert picture.name in (tmp_path / "out" / "failed.csv").read_text()


def test_volumes_get_the_mean_over_their_windows(tmp_path: Path) -> None:
    model, data = volume_model(tmp_path / "model"), graded_volumes(tmp_path, patients=3)
    out = tmp_path / "out"
    assert main(["embed", str(model), str(data), "-o", str(out), "overlap=0"]) == 0
    table = read_parquet(out / "features.parquet")
    assert table["labels"].to_pylist() == [["LGG"], ["HGG"], ["LGG"]]
    encoder, collection = from_pretrained(model), open_collection(data)
    settings = VolumeDataSettings(spacing_mm=(2.0, 2.0, 2.0), crop=(8, 16, 16))
    values = PreparedVolumes(collection, settings).values(collection.items[1])
    assert values.shape == (1, 20, 18, 20)
    windows = [values[:, z : z + 8, y : y + 16, x : x + 16] for z in (0, 6, 12) for y in (0, 2) for x in (0, 4)]
    expected = encoder.pooled(torch.from_numpy(np.stack(windows))).mean(0).numpy()
    assert np.allclose(np.stack(table["features"].to_numpy())[1], expected, atol=1e-5)


def test_films_get_the_mean_over_their_clips_and_one_that_is_cut_is_listed(tmp_path: Path) -> None:
    model, data = film_model(tmp_path / "model"), moving_films(tmp_path / "films", each=2)
    bad = data / "move" / "move1.gif"
    bad.write_bytes(bad.read_bytes()[:400])
    out = tmp_path / "out"
    assert main(["embed", str(model), str(data), "-o", str(out), "frame_stride=3", "clips=2"]) == 1
    table = read_parquet(out / "features.parquet")
    assert table.num_rows == 3
    assert "move1" in (out / "failed.csv").read_text()
    collection = open_collection(data)
    pixels = collection.read(collection.items[0]).frames_TYXC
    clips = [
        np.stack([resize_image(pixels[at][:, 2:22], 16, 16) for at in range(start, start + 10, 3)]) for start in (0, 2)
    ]
    shown = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3)
    expected = from_pretrained(model).pooled(shown).mean(0).numpy()
    assert np.allclose(np.stack(table["features"].to_numpy())[0], expected, atol=1e-5)


def test_an_encoder_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = volume_model(tmp_path / "model"), make_class_folder(tmp_path / "data")
    assert main(["embed", str(model), str(data), "-o", str(tmp_path / "out")]) == 2
    assert "it holds images, and tiny3d is an encoder of volumes" in capsys.readouterr().err
    assert main(["embed", "colour-stats", str(graded_volumes(tmp_path)), "-o", str(tmp_path / "out")]) == 2
    assert "it holds volumes, and colour-stats is an encoder of images" in capsys.readouterr().err
