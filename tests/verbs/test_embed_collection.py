from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.imaging.datasets.miniatures import make_class_folder, make_medmnist

from lamella.cli import main
from lamella.formats.tables import parquet_metadata, read_parquet


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
