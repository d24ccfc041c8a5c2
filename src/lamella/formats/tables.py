"""Tables in files: Parquet for what Lamella reads back, CSV for what people and other programs read."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lamella.errors import LamellaError, first_line
from lamella.formats.atomic import whole_file

_COMPRESSION = "zstd"  # smaller than snappy at about the same speed; every Parquet reader since 2018 knows it


def write_parquet(
    path: Path | str, columns: Mapping[str, Any] | pa.Table, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a Parquet file, whole or not at all.

    Args:
        path: Where to.
        columns: Name -> values of equal length (lists, numpy or Arrow arrays), or a finished Arrow table.
        metadata: Texts kept in the file's schema.

    Raises:
        StorageError: The disk refused the write.
    """
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    if metadata:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    with whole_file(path) as part:
        pq.write_table(table, part, compression=_COMPRESSION)


@contextmanager
def parquet_parts(path: Path | str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """Write a Parquet file piece by piece (`write_table`), so that memory holds one piece; whole or not at all."""
    with whole_file(path) as part, pq.ParquetWriter(part, schema, compression=_COMPRESSION) as writer:
        yield writer


def read_parquet(path: Path | str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file.

    Raises:
        LamellaError: The file is missing, is no Parquet file, or lacks one of `columns`.
    """
    try:
        with pq.ParquetFile(path) as file:
            missing = [column for column in columns or () if column not in file.schema_arrow.names]
            if not missing:
                return file.read(columns=None if columns is None else list(columns))
    except FileNotFoundError as error:
        raise LamellaError(path, "the file does not exist", "Run the command that makes it.") from error
    except (pa.ArrowException, OSError) as error:
        raise LamellaError(
            path, f"it cannot be read as Parquet ({first_line(error)})", "Delete it and make it again."
        ) from error
    raise LamellaError(path, f"it has no column {', '.join(missing)}", "Make it again with this version of Lamella.")


def parquet_metadata(path: Path | str) -> dict[str, str]:
    """The texts kept in a Parquet file, without reading its rows; Arrow's own entry left out.

    Raises:
        LamellaError: The file is missing or is no Parquet file.
    """
    try:
        with pq.ParquetFile(path) as file:
            stored = file.metadata.metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise LamellaError(
            path, f"it cannot be read as Parquet ({first_line(error)})", "Delete it and make it again."
        ) from error
    return {key.decode(): value.decode() for key, value in stored.items() if key != b"ARROW:schema"}


def write_csv(path: Path | str, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as UTF-8 CSV, one at a time, whole or not at all.

    Args:
        path: Where to.
        rows: Column -> value; None is written as an empty cell. A key outside `columns` is a mistake (ValueError).
        columns: The header, in order.

    Raises:
        StorageError: The disk refused the write.
    """
    with whole_file(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """All rows of a CSV file; see `iterate_csv`."""
    return list(iterate_csv(path))


def iterate_csv(path: Path | str) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV file with a header, one at a time.

    Header and cells are stripped of surrounding blanks, missing cells are empty, wholly empty lines are left out. A
    byte-order mark (spreadsheets write one) is tolerated.

    Raises:
        LamellaError: The file is missing, empty, not UTF-8, has a column twice, or a row is longer than the header.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            yield from _rows(path, file)
    except FileNotFoundError as error:
        raise LamellaError(path, "the file does not exist", "Correct the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise LamellaError(path, f"it is not a CSV file in UTF-8 ({error})", "Save it as CSV with UTF-8.") from error


def _rows(path: Path | str, file: Iterable[str]) -> Iterator[dict[str, str]]:
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]
    if not any(header):
        raise LamellaError(path, "it is empty", "The first line must name the columns.")
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise LamellaError(path, f"the column {repeated[0]!r} stands twice", "Give every column its own name.")
    for cells in reader:
        if len(cells) > len(header):
            raise LamellaError(
                path,
                f"line {reader.line_num} has {len(cells)} cells, the header {len(header)}",
                "Put cells that hold a comma in double quotes.",
            )
        if any(cell.strip() for cell in cells):
            padded = [*cells, *[""] * (len(header) - len(cells))]
            yield dict(zip(header, (cell.strip() for cell in padded), strict=True))
