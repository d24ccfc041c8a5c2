from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lamella.errors import LamellaError
from lamella.formats.tensors import read_pt, write_pt

FEATURES = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_written_is_read_and_the_bytes_depend_on_the_numbers_alone(tmp_path: Path, dtype: type) -> None:
    write_pt(tmp_path / "a.pt", FEATURES.astype(dtype))
    write_pt(tmp_path / "b.pt", FEATURES.astype(dtype))
    assert np.array_equal(read_pt(tmp_path / "a.pt"), FEATURES.astype(dtype))
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_bfloat16_is_read_as_float32(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(FEATURES).bfloat16(), tmp_path / "a.pt")
    read = read_pt(tmp_path / "a.pt")
    assert read.dtype == np.float32
    assert np.abs(read - FEATURES).max() < 0.02


@pytest.mark.parametrize("value", [{"a": torch.zeros(2)}, torch.zeros(3), torch.zeros(1, 2, 3), Path("x")], ids=str)
def test_anything_but_one_table_of_numbers_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "a.pt")  # Path would need unpickling
    with pytest.raises(LamellaError, match=r"a\.pt"):
        read_pt(tmp_path / "a.pt")


def test_broken_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("nothing")
    write_pt(tmp_path / "b.pt", FEATURES)
    (tmp_path / "b.pt").write_bytes((tmp_path / "b.pt").read_bytes()[:200])
    for name in ("a.pt", "b.pt", "missing.pt"):
        with pytest.raises(LamellaError, match=name):
            read_pt(tmp_path / name)
