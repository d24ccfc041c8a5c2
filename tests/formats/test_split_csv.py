"""Split CSV: both layouts; ragged columns are fine, longer rows are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamella.errors import DatasetError, LamellaError
from lamella.formats.split_csv import read_split


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "split.csv"
    path.write_text(text)
    return path


def test_columns_may_be_ragged(tmp_path: Path) -> None:
    path = written(tmp_path, "train,val,test\na,c,d\nb\n,,e.svs\n")
    assert read_split(path) == [("a", "train"), ("b", "train"), ("c", "val"), ("d", "test"), ("e.svs", "test")]


def test_row_numbers_of_other_programs_are_passed_over(tmp_path: Path) -> None:
    assert read_split(written(tmp_path, ",train,val\n0,a,b\n1,c,\n")) == [("a", "train"), ("c", "train"), ("b", "val")]


def test_list_with_a_part_each(tmp_path: Path) -> None:
    path = written(tmp_path, "filename,split\na.png,training\nb.png,valid\nc.png,test\n")
    assert read_split(path) == [("a.png", "train"), ("b.png", "val"), ("c.png", "test")]


def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path: Path) -> None:
    """Issue 6, bad input: ragged split CSV. Nothing says whose the fourth cell is."""
    with pytest.raises(LamellaError, match="line 3 has 4 cells, the header 3"):
        read_split(written(tmp_path, "train,val,test\na,b,c\nd,e,f,g\n"))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("train,validate\na,b\n", "column 'validate' is no part"),
        ("val,valid,train\na,b,c\n", "two columns mean the same part"),
        ("val,test\na,b\n", "trains on no slide"),
        ("train,val\n", "names no slide"),
        ("filename,split\na,holdout\n", "line 2: 'holdout' is no part"),
        ("filename,split\n,train\n", "line 2: it has no filename"),
        ("file,split\na,train\n", "none of filename"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(DatasetError, match=cause):
        read_split(written(tmp_path, text))
