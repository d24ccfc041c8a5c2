"""Parquet and CSV."""

import numpy as np
import pyarrow as pa
import pytest

from lamella.errors import LamellaError
from lamella.formats.tables import (
    iterate_csv,
    parquet_metadata,
    parquet_parts,
    read_csv,
    read_parquet,
    write_csv,
    write_parquet,
)


def test_parquet_keeps_columns_types_and_texts(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(path, {"slide_id": ["a", "b"], "x_px0": np.array([0.5, 2.0])}, {"settings": "{}"})
    table = read_parquet(path)
    assert table.to_pylist() == [{"slide_id": "a", "x_px0": 0.5}, {"slide_id": "b", "x_px0": 2.0}]
    assert parquet_metadata(path) == {"settings": "{}"}
    assert read_parquet(path, ["x_px0"]).column_names == ["x_px0"]


def test_parquet_in_parts_equals_parquet_at_once(tmp_path):
    schema = pa.schema([("n", pa.int64())])
    with parquet_parts(tmp_path / "a.parquet", schema) as writer:
        for start in (0, 3):
            writer.write_table(pa.table({"n": np.arange(start, start + 3)}, schema=schema))
    assert read_parquet(tmp_path / "a.parquet")["n"].to_pylist() == list(range(6))


@pytest.mark.parametrize(
    ("content", "cause"), [(None, "does not exist"), (b"", "cannot be read as Parquet"), (b"PAR1 no", "cannot be read")]
)
def test_what_is_no_parquet_is_refused_by_name(tmp_path, content, cause):
    path = tmp_path / "a.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LamellaError, match=cause) as caught:
        read_parquet(path)
    assert caught.value.thing == str(path)


def test_a_missing_column_is_named(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"x": [1]})
    with pytest.raises(LamellaError, match="no column y, z"):
        read_parquet(tmp_path / "a.parquet", ["x", "y", "z"])


def test_csv_round_trip_with_commas_quotes_and_blanks(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, iter([{"name": 'a, "b"', "n": 1}, {"name": "ü", "n": None}]), ("name", "n"))
    assert read_csv(path) == [{"name": 'a, "b"', "n": "1"}, {"name": "ü", "n": ""}]


def test_csv_of_a_spreadsheet_with_byte_order_mark_blanks_and_short_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfslide_id , wsi_path,site\r\n a ,x.tif\r\n,,\r\nb, y.tif ,2\r\n")
    assert read_csv(path) == [
        {"slide_id": "a", "wsi_path": "x.tif", "site": ""},
        {"slide_id": "b", "wsi_path": "y.tif", "site": "2"},
    ]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (b"a,b\n1,2,3\n", "line 2 has 3 cells, the header 2"),
        (b"a,a\n1,2\n", "the column 'a' stands twice"),
        (b"a,b\n\xff\xfe,2\n", "not a CSV file in UTF-8"),
        (None, "does not exist"),
    ],
)
def test_bad_csv_is_refused_with_its_cause(tmp_path, content, cause):
    path = tmp_path / "a.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LamellaError, match=cause):
        read_csv(path)


def test_csv_is_read_one_row_at_a_time(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n2,3\n")
    rows = iterate_csv(path)
    assert next(rows) == {"a": "1"}  # before the bad line is met
    with pytest.raises(LamellaError, match="line 3"):
        next(rows)
