from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lamella.errors import LamellaError
from lamella.formats.exemplars import FEATURES_FILE, TABLE_FILE, Exemplars, read_exemplars, write_exemplars


def _exemplars(n: int = 4, seed: int = 0) -> Exemplars:
    numbers = pa.array(np.arange(n, dtype=np.float64))
    table = pa.table(
        {
            "slide_id": pa.array([f"s{row % 2}" for row in range(n)]),
            "x_px0": numbers,
            "y_px0": numbers,
            "fov_um": numbers,
            "mpp": numbers,
            "class": pa.array(["gland", "stroma"] * (n // 2)),
        }
    )
    features = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    return Exemplars(features, table, {"encoder": "e", "fingerprint": "f"})


def test_what_is_written_is_read_also_twice(tmp_path: Path) -> None:
    written = _exemplars()
    write_exemplars(tmp_path, written)
    found = read_exemplars(tmp_path)
    write_exemplars(tmp_path, found)  # what was read carries nothing of its old file
    for each in (found, read_exemplars(tmp_path)):
        np.testing.assert_array_equal(each.features_ND, written.features_ND)
        assert each.table.equals(written.table)
        assert each.record == written.record
    assert found.rows("stroma").tolist() == [1, 3]


def test_features_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    # A mistake of the source: fp16 that overflowed went on.
    wrong = _exemplars()
    with np.errstate(over="ignore"):
        wrong.features_ND[2] = np.float32(1e6).astype(np.float16)
    with pytest.raises(LamellaError, match="1 of 4 features are not finite"):
        write_exemplars(tmp_path, wrong)
    assert not list(tmp_path.iterdir())


def test_files_of_two_runs_are_refused(tmp_path: Path) -> None:
    for number in (0, 1):
        write_exemplars(tmp_path / str(number), _exemplars(seed=number))
    (tmp_path / "0" / FEATURES_FILE).write_bytes((tmp_path / "1" / FEATURES_FILE).read_bytes())
    with pytest.raises(LamellaError, match="not written together"):
        read_exemplars(tmp_path / "0")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    write_exemplars(tmp_path, _exemplars())
    (tmp_path / FEATURES_FILE).unlink()
    with pytest.raises(LamellaError, match=f"{FEATURES_FILE}: the file does not exist"):
        read_exemplars(tmp_path)
    (tmp_path / TABLE_FILE).unlink()
    with pytest.raises(LamellaError, match=f"{TABLE_FILE}: the file does not exist"):
        read_exemplars(tmp_path)
